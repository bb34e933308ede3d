"""Which worker a call goes to: one that has the model, if there is one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from activities.ports import WorkerRegistry, WorkerStatus
from goatherd.contracts.queues import Pool
from goatherd.errors import Unavailable

FRESH_S = 1.0
"""For so long what was read of the workers counts."""
ALIVE_S = 6.0
"""A worker that has said nothing for so long is not sent anything. It says something every two seconds."""
SHUNNED_S = 10.0
"""For so long a worker that did not take, or did not finish, what it was sent gets nothing else."""


@dataclass(frozen=True, slots=True)
class Place:
    """A task queue; `worker` polls it alone, or it is everybody's."""

    queue: str
    worker: str | None = None


class Placement:
    """Reads the workers' reports, at most once in `FRESH_S`, and counts what this process has sent where.

    A report may be seconds old. What it is wrong about shows when nobody takes a call (`shun`).
    """

    def __init__(self, workers: WorkerRegistry, shared_queue: str) -> None:
        self._workers = workers
        self._shared = shared_queue
        self._known: list[WorkerStatus] = []
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._shunned: dict[str, float] = {}
        self._sent: Counter[str] = Counter()

    async def workers(self) -> list[WorkerStatus]:
        """Those that serve models. Raises `Unavailable` if nobody can say and nothing is known."""
        loop = asyncio.get_running_loop()
        async with self._reading:
            if loop.time() - self._read_at > FRESH_S:
                alive = await self._workers.alive(within_s=ALIVE_S)
                self._known = [one for one in alive if Pool.INFERENCE.value in one.pools]
                self._read_at = loop.time()
        return self._known

    async def choose(self, model: str, *, refused_by: Collection[str] = ()) -> Place:
        """Where a call of this model goes.

        A worker that has the model before one that is loading it before the one with most room. Of several
        that have it, the one that this process has sent least that is not done.

        Raises:
            Unavailable: there is no worker that serves models (`no-worker`).
        """
        now = asyncio.get_running_loop().time()
        known = [one for one in await self.workers() if one.queue and one.state != "stopping"]
        if not known:
            raise Unavailable(
                "No worker serves models: start one by `goatherd worker --pool inference`.",
                code="no-worker",
                retry_after_s=5,
            )
        able = [
            one
            for one in known
            if one.identity not in refused_by and self._shunned.get(one.identity, 0.0) <= now
        ]
        for state in ("ready", "loading"):
            having = [one for one in able if one.standing(model)[0] == state]
            if having:
                chosen = min(having, key=lambda one: self._sent[one.identity])
                return Place(chosen.queue, chosen.identity)
        if able:
            roomy = max(able, key=lambda one: (one.memory_bytes - one.used_bytes, one.identity))
            return Place(roomy.queue, roomy.identity)
        return Place(self._shared)

    def sent(self, place: Place, items: int) -> None:
        """Counts what is under way there; a negative number when it is done."""
        if place.worker is not None:
            self._sent[place.worker] += items
            if self._sent[place.worker] <= 0:
                del self._sent[place.worker]

    def shun(self, place: Place) -> None:
        """Sends that worker nothing for a while."""
        if place.worker is not None:
            self._shunned[place.worker] = asyncio.get_running_loop().time() + SHUNNED_S
        self.forget()

    def forget(self) -> None:
        """What was read of the workers: it is not so any more."""
        self._read_at = float("-inf")
