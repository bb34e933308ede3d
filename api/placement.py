"""Which worker a call goes to: one that has the model, if there is one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from activities.ports import WorkerRegistry, WorkerStatus
from goatherd.contracts.queues import Pool
from goatherd.errors import GoatherdError, Unavailable
from goatherd.telemetry import get_logger

FRESH_S = 1.0
"""For so long what was read of the workers counts."""
ALIVE_S = 6.0
"""A worker that has said nothing for so long is not sent anything. It says something every two seconds."""
KNOWN_S = 15.0
"""For so long what was read last still serves while the store can't say."""
_PATIENCE_S = 0.25
"""How long a call waits for the store if something is known."""
_HEARD_S = 3.0
"""A worker that has said something within so long is alive, whatever it did not take."""
SHUNNED_S = 10.0
"""For so long a worker that did not take, or did not finish, what it was sent gets nothing else."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """A task queue; `worker` polls it alone, or it is everybody's."""

    queue: str
    worker: str | None = None


class Placement:
    """Reads the workers' reports, at most once in `FRESH_S`, and counts what this process has sent where.

    A report may be seconds old. What it is wrong about shows when nobody takes a call (`shun`). While the
    store is away, calls go on by what was read last.
    """

    def __init__(
        self,
        workers: WorkerRegistry,
        shared_queue: str,
        *,
        pool: Pool = Pool.INFERENCE,
        serves: str = "models",
    ) -> None:
        """Of the workers of `pool`, which serve what `serves` says, as people are told."""
        self._workers = workers
        self._pool = pool
        self._serves = serves
        self._shared_queue = shared_queue
        self._known: list[WorkerStatus] = []
        self._read_at = float("-inf")
        """When what is known counts from; it may have been forgotten since."""
        self._known_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._shunned: dict[str, float] = {}
        self._sent: Counter[str] = Counter()

    async def workers(self) -> list[WorkerStatus]:
        """Those of the pool. Raises `Unavailable` if nobody can say and nothing is known."""
        now = asyncio.get_running_loop().time()
        if now - self._read_at <= FRESH_S:
            return self._known
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(self._has_read)
        reading = self._reading
        something = now - self._known_at <= KNOWN_S
        await asyncio.wait({reading}, timeout=_PATIENCE_S if something else None)
        if not something:
            reading.result()
        return self._known

    async def _read(self) -> None:
        alive = await self._workers.alive(within_s=ALIVE_S)
        self._known = [one for one in alive if self._pool.value in one.pools]
        self._read_at = self._known_at = asyncio.get_running_loop().time()

    def _has_read(self, reading: asyncio.Task[None]) -> None:
        self._reading = None
        if not reading.cancelled() and isinstance(error := reading.exception(), GoatherdError):
            log.warning("the workers' reports can't be read", error=error.message)

    async def hears(self, place: Place) -> bool:
        """Whether its worker has said something within the last seconds: then it is not gone, but busy."""
        self.forget()
        since = datetime.now(UTC) - timedelta(seconds=_HEARD_S)
        return any(
            one.identity == place.worker and one.at is not None and one.at >= since
            for one in await self.workers()
        )

    @property
    def shared(self) -> Place:
        """Everybody's: whoever has room takes it."""
        return Place(self._shared_queue)

    async def choose(
        self, model: str, *, refused_by: Collection[str] = (), some_worker: bool = False
    ) -> Place:
        """Where a call of this model goes.

        A worker that has the model before one that is loading it before the one with most room. Of several
        that have it, the one that this process has sent least that is not done. The shared queue, if all are
        left alone for now; with `some_worker` one of these all the same, for what the shared queue has not.

        Raises:
            Unavailable: there is no worker that serves models (`no-worker`).
        """
        now = asyncio.get_running_loop().time()
        known = [one for one in await self.workers() if one.queue and one.state != "stopping"]
        if not known:
            raise Unavailable(
                f"No worker serves {self._serves}: start one by `goatherd worker --pool {self._pool}`.",
                code="no-worker",
                retry_after_s=5,
            )
        able = [
            one
            for one in known
            if one.identity not in refused_by and self._shunned.get(one.identity, 0.0) <= now
        ]
        if some_worker:
            able = able or known
        for state in ("ready", "loading"):
            having = [one for one in able if one.standing(model)[0] == state]
            if having:
                chosen = min(having, key=lambda one: self._sent[one.identity])
                return Place(chosen.queue, chosen.identity)
        if able:
            roomy = max(able, key=lambda one: (one.memory_bytes - one.used_bytes, one.identity))
            return Place(roomy.queue, roomy.identity)
        return self.shared

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
