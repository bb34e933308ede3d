"""Names of worker pools and of the Temporal task queue that each one polls."""

from __future__ import annotations

from enum import StrEnum


class Pool(StrEnum):
    """What a worker process serves; scale each by starting more processes of it."""

    ACTORS = "actors"
    INFERENCE = "inference"
    STORE = "store"
    RETRIEVAL = "retrieval"


def task_queue(pool: Pool, prefix: str = "goatherd") -> str:
    """`goatherd-actors`, `goatherd-inference`, `goatherd-store`, `goatherd-retrieval`."""
    return f"{prefix}-{pool.value}"


def own_queue(worker: str, prefix: str = "goatherd", pool: Pool = Pool.INFERENCE) -> str:
    """Of one worker of a pool, which only it polls: `goatherd-inference.ID`."""
    return f"{task_queue(pool, prefix)}.{worker}"
