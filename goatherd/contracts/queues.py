"""Names of worker pools and of the Temporal task queue that each one polls."""

from __future__ import annotations

from enum import StrEnum


class Pool(StrEnum):
    """What a worker process serves; scale each by starting more processes of it."""

    ACTORS = "actors"
    INFERENCE = "inference"
    STORE = "store"


def task_queue(pool: Pool, prefix: str = "goatherd") -> str:
    """`goatherd-actors`, `goatherd-inference`, `goatherd-store`."""
    return f"{prefix}-{pool.value}"


def own_queue(worker: str, prefix: str = "goatherd") -> str:
    """Of one worker of the pool `inference`, which only it polls: `goatherd-inference.ID`."""
    return f"{task_queue(Pool.INFERENCE, prefix)}.{worker}"
