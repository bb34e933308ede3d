"""One client's way along a task: every event once and in order.

Events are written by several processes, side by side, so that they come late, doubled, and out of order. A
number that is missing is on its way: its caller writes it, or else the task's actor, within seconds. What is
live is kept meanwhile, what is not live is read from the store.
"""

from __future__ import annotations

from activities.task_ports import TaskStore
from api.following import Following
from api.frames import COMMENT, Cursor, Frame, Wire, task_wire
from api.subscription import Limits, Subscription
from goatherd.contracts.task import TaskEvent, TaskEventType

LAST = (TaskEventType.TASK_CLOSED, TaskEventType.TASK_CANCELLED, TaskEventType.TASK_EXPIRED)
"""After one of these the task may be closed; what follows from the end may come after it."""
GIVE_UP_S = 30.0
"""A number that is still missing so long after the task was closed is lost: its actor was ended by force."""
_PAGE = 256
_MOST_EARLY = 1_000


class TaskFollower(Following):
    """See `Following`, and the module."""

    def __init__(
        self, store: TaskStore, subscription: Subscription, task: str, cursor: Cursor, limits: Limits
    ) -> None:
        super().__init__(subscription, limits, task=task)
        self._store = store
        self._task = task
        self._last = cursor.seq
        self._early: dict[int, Wire] = {}
        self._reading = True
        self._ending = False

    def _begin(self) -> None:
        self._reading = True

    def _ping(self) -> Frame:
        return COMMENT

    async def _advance(self) -> None:
        await (self._read_on() if self._reading else self._live())

    async def _live(self) -> None:
        wire = self._subscription.take()
        if wire is None:
            self._subscription.reading = False
            if not await self._subscription.wait(self._limits.check_s):
                self._go_back()
            return
        self._offer(wire)
        if self._early or self._ending:
            # A number is missing, which may be a moment behind; or that was the last.
            self._go_back()

    def _offer(self, wire: Wire) -> None:
        event = wire.item
        assert isinstance(event, TaskEvent)
        if event.seq == self._last + 1:
            self._deliver(wire)
            while (following := self._early.pop(self._last + 1, None)) is not None:
                self._deliver(following)
        elif event.seq > self._last and len(self._early) < _MOST_EARLY:
            self._early[event.seq] = wire

    def _deliver(self, wire: Wire) -> None:
        event = wire.item
        assert isinstance(event, TaskEvent)
        self._last = event.seq
        self._ending = self._ending or event.type in LAST
        self._retry_s = self._limits.retry_s
        self._out.append(Frame(wire, Cursor(event.seq)))

    async def _read_on(self) -> None:
        """From the store, until nothing is missing of what is known."""
        while (wire := self._subscription.take()) is not None:
            self._offer(wire)
        events = await self._read(self._store.events(self._task, after=self._last, limit=_PAGE))
        for event in events:
            self._offer(task_wire(event))
        for seq in [seq for seq in self._early if seq <= self._last]:
            del self._early[seq]
        if self._out:
            if self._ending and not self._early:
                await self._check_end()
            return
        if not self._early:
            await self._check_end()
            self._reading = False
            return
        if self._clock() - self._moved >= GIVE_UP_S and await self._closed_at() is not None:
            self._last = min(self._early) - 1
            return
        await self._wait_for_missing()

    async def _wait_for_missing(self) -> None:
        """Until what is missing comes by, or the store is to be asked again: not for every later event."""
        until = self._clock() + self._next_retry_s()
        while not self._out and not self._subscription.stale and (left := until - self._clock()) > 0:
            self._subscription.check()
            wire = self._subscription.take()
            if wire is not None:
                self._offer(wire)
            else:
                await self._subscription.wait(left)

    async def _check_end(self) -> None:
        """A task that is closed has no events after its last."""
        last = await self._closed_at()
        self.done = last is not None and self._last >= last

    async def _closed_at(self) -> int | None:
        """The number of a closed task's last event."""
        document = await self._read(self._store.task(self._task))
        if document is None or document.closed_at is None:
            return None
        return document.version

    def _go_back(self) -> None:
        self._reading = True
        self._subscription.reading = True
