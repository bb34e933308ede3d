"""Calls of one model and task that wait at the same time, sent to a worker together.

Nothing waits while nothing is under way. While one order is under way, what comes gathers; a second order
goes out when as much has gathered as the first one carries, so that a worker has its next batch at hand, or
when somebody has waited for `LATE_S`: what is under way may take long, and have nothing to do with his.
Callers take turns, so that one with a thousand inputs does not keep out one with a single one: who is late
and has nothing under way gets an order that waits for no other's inputs.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from goatherd.contracts.inference_work import InferAnswer, Outcome, WorkItem
from goatherd.errors import TooManyRequests
from goatherd.waiting import put_down

MOST_BYTES = 160_000
"""Of one order's inputs, if they are more than one: what is larger goes by claim check, and is slow."""
MOST_FILE_BYTES = 32 << 20
"""Of the files that go by claim with one order, if they are more than one."""
LATE_S = 0.05
_MORE_FLIGHTS = 2
"""Orders beyond those of a group, for those who are late and have none."""
_LINGER = 0.1
_LINGER_MAX_S = 0.015
"""After an order of several, its callers' next calls are on their way: they are waited for, for a tenth of
what the order took, at most so long."""

Send = Callable[[Sequence[WorkItem], float], Awaitable[InferAnswer]]


@dataclass(eq=False, slots=True)
class _Waiting:
    item: WorkItem
    size: int
    files: int
    deadline: float
    since: float
    outcome: asyncio.Future[Outcome]


@dataclass(eq=False, slots=True)
class _Flight:
    parts: list[_Waiting]
    task: asyncio.Task[None] = field(init=False)


class Group:
    """Of one model and task. Belongs to one event loop."""

    def __init__(self, send: Send, *, most: int, flights: int, queue: int) -> None:
        """`send` gives the answer to some items, by a deadline (seconds since 1970). At most `most` items go
        together, `flights` orders are under way (a few more for who is late), and `queue` items wait."""
        self._send = send
        self._most = most
        self._most_flights = flights
        self._queue = queue
        self._callers: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._count = 0
        self._flights: set[_Flight] = set()
        self._expected = 0
        self._hold: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._late = False
        """Whether somebody has waited for too long."""
        self._under_way: Counter[str] = Counter()
        """Inputs, by caller."""

    @property
    def idle(self) -> bool:
        return not self._count and not self._flights

    def admit(self) -> None:
        """Raises `TooManyRequests` if as many wait as may. Who was let in may submit all that it has, bit by
        bit: turning it away midway would waste what was done."""
        if self._count >= self._queue:
            raise TooManyRequests(f"{self._count} inputs wait for this model already. Try again in a moment.")

    async def submit(self, item: WorkItem, size: int, deadline: float, *, files: int = 0) -> Outcome:
        """The outcome. `size`: bytes of the item itself; `files`: those of what it has by claim.

        Cancelled, the item is not sent any more; an order that nobody waits for is cancelled.

        Raises `GoatherdError`: what became of the whole order.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(item, size, files, deadline, loop.time(), loop.create_future())
        self._callers.setdefault(item.caller, deque()).append(waiting)
        self._count += 1
        self._go()
        try:
            return await waiting.outcome
        except asyncio.CancelledError:
            self._forget(waiting)
            raise

    def _go(self) -> None:
        """Sends what should be sent now."""
        if self._hold is not None:
            if self._count < self._expected:
                return
            self._release()
        while self._count and (due := self._due()) is not None:
            self._late = False
            flight = _Flight(self._take(due))
            self._flights.add(flight)
            flight.task = asyncio.create_task(self._fly(flight))
        if self._count and self._alarm is None and not self._late:
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_at(self._oldest() + LATE_S, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._count:
            # Whom it was set for may be on his way. And a timer may come a bit early.
            self._late = asyncio.get_running_loop().time() - self._oldest() >= 0.99 * LATE_S
            self._go()

    def _oldest(self) -> float:
        return min(waiting[0].since for waiting in self._callers.values())

    def _due(self) -> Iterable[str] | None:
        """The callers whose inputs go now. None: none do."""
        if not self._flights:
            return self._callers
        roomy = len(self._flights) < self._most_flights
        if roomy:
            under_way = max(len(flight.parts) for flight in self._flights)
            if self._count >= min(under_way, self._most):
                return self._callers
        if self._late:
            new = [caller for caller in self._callers if not self._under_way[caller]]
            if new and len(self._flights) < self._most_flights + _MORE_FLIGHTS:
                return new
            if roomy:
                return self._callers
        return None

    def _take(self, callers: Iterable[str]) -> list[_Waiting]:
        """The next order: an item of each of these callers in turn, as far as there is room."""
        taken: list[_Waiting] = []
        size = files = 0
        turns = deque(callers)
        while turns and len(taken) < self._most:
            caller = turns.popleft()
            waiting = self._callers[caller]
            size += waiting[0].size
            files += waiting[0].files
            if taken and (size > MOST_BYTES or files > MOST_FILE_BYTES):
                break
            taken.append(waiting.popleft())
            self._count -= 1
            self._under_way[caller] += 1
            if waiting:
                self._callers.move_to_end(caller)
                turns.append(caller)
            else:
                del self._callers[caller]
        return taken

    async def _fly(self, flight: _Flight) -> None:
        began = time.monotonic()
        parts = flight.parts
        try:
            answer = await self._send([part.item for part in parts], max(part.deadline for part in parts))
            for part, outcome in zip(parts, answer.outcomes, strict=True):
                if not part.outcome.done():
                    part.outcome.set_result(outcome)
        except BaseException as error:
            for part in parts:
                if not part.outcome.done():
                    part.outcome.set_exception(error)
                    part.outcome.exception()  # Whoever asked may be gone.
            if not isinstance(error, Exception):
                raise
        finally:
            self._flights.discard(flight)
            for part in parts:
                self._under_way[part.item.caller] -= 1
            self._under_way = +self._under_way  # Without those that have none.
            self._linger(len(parts), time.monotonic() - began)
            self._go()

    def _linger(self, expected: int, took_s: float) -> None:
        if expected > 1 and not self._flights and self._hold is None:
            self._expected = expected
            delay = min(_LINGER * took_s, _LINGER_MAX_S)
            self._hold = asyncio.get_running_loop().call_later(delay, self._held_long_enough)

    def _held_long_enough(self) -> None:
        self._hold = None
        self._go()

    def _release(self) -> None:
        assert self._hold is not None
        self._hold.cancel()
        self._hold = None

    def _forget(self, waiting: _Waiting) -> None:
        queue = self._callers.get(waiting.item.caller)
        if queue is not None and waiting in queue:
            queue.remove(waiting)
            self._count -= 1
            if not queue:
                del self._callers[waiting.item.caller]
            self._late = self._late and self._count > 0
            return
        for flight in self._flights:
            if waiting in flight.parts and all(part.outcome.done() for part in flight.parts):
                flight.task.cancel()

    async def close(self) -> None:
        """Ends all that is under way."""
        if self._hold is not None:
            self._release()
        if self._alarm is not None:
            self._alarm.cancel()
        await put_down(*(flight.task for flight in self._flights))
