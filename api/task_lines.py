"""Those who wait in this process for work of a task, in the order in which they came.

Waiting costs the task's actor nothing: it is asked when there may be something. What says so are events, of
answers that this process had or of the store's feed, each with its number; and the time at which the actor
has said that something comes back by itself. Whoever was told "nothing" at number S is waked by what came
after S only, so that nothing is missed that came while he asked, and nothing counts twice.

As many are waked as subtasks came. One who is waked and leaves some behind (or can't take them) wakes the
next who has not asked since.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from goatherd.contracts.task import SubtaskStatus, TaskEvent, TaskEventType
from goatherd.errors import Unavailable

ALL = 1_000_000
_GRACE_S = 0.02
_LEAST_S = 0.1
_MOST_COUNTED = 10_000
_COMES_BACK = (
    TaskEventType.SUBTASK_RELEASED,
    TaskEventType.SUBTASK_EXPIRED,
    TaskEventType.SUBTASK_RETRYING,
)
_MORE_TAKE_IT = (TaskEventType.SUBTASK_UNBLOCKED, TaskEventType.SUBTASK_REQUEUED)
_CLOSES = (TaskEventType.TASK_CANCELLED, TaskEventType.TASK_EXPIRED, TaskEventType.TASK_CLOSED)
_ENDS = (TaskEventType.TASK_COMPLETED, TaskEventType.TASK_FAILED)
_FOR_ALL = (TaskEventType.TASK_RESUMED, *_CLOSES)


@dataclass(slots=True, eq=False)
class Waiter:
    """One who asks, and waits when there is nothing. `seen`: the task's number at his last answer;
    `asked_at`: the loop's time when he began to ask. `coming`: he was waked, and has no answer since.
    `ended`: because all was done by then."""

    most: int
    seen: int = 0
    asked_at: float = 0.0
    coming: bool = False
    waked: asyncio.Future[bool] | None = None
    ended: bool = False


class Line:
    """Of one task. `overlap`: how many may take each subtask."""

    def __init__(self, overlap: int, on_empty: Callable[[], None]) -> None:
        self.askers = 0
        self._overlap = overlap
        self._on_empty = on_empty
        self._waiting: deque[Waiter] = deque()
        self._counted: set[int] = set()
        self._newest = 0
        self._ended = 0
        self._stirred_at = 0.0
        self._spare = 0
        self._coming = 0
        self._due: datetime | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    # -- those who ask

    def enter(self, most: int) -> Waiter:
        self.askers += 1
        return Waiter(most)

    def leave(self, waiter: Waiter) -> None:
        if waiter.coming:
            # He goes away with what was meant for somebody.
            self._has_come(waiter)
            self._wake(1)
        self.askers -= 1
        if not self.askers:
            if self._alarm is not None:
                self._alarm.cancel()
            self._on_empty()

    def asks(self, waiter: Waiter) -> None:
        waiter.asked_at = self._loop.time()

    def answered(self, waiter: Waiter, seq: int, left: int, retry_at: datetime | None) -> None:
        """What the actor said. `left`: subtasks that somebody could take after that."""
        waiter.seen = max(waiter.seen, seq)
        self._has_come(waiter)
        if left > self._coming:
            self._wake(1)
        if retry_at is not None:
            self._set_alarm(retry_at)

    async def wait(self, waiter: Waiter, until: float) -> bool:
        """Until there may be something for him; False if there was nothing by that time of the loop."""
        if waiter.seen < self._ended:
            waiter.ended = True
            return True
        if self._spare > 0 and self._concerns(waiter):
            self._spare -= waiter.most
            self._comes(waiter)
            return True
        waiter.waked = self._loop.create_future()
        alarm = self._loop.call_at(until, _settle, waiter.waked, False)
        self._waiting.append(waiter)
        try:
            return await waiter.waked
        finally:
            alarm.cancel()
            waiter.waked = None
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    # -- what happens

    def on_events(self, events: Sequence[TaskEvent]) -> None:
        for event in events:
            if event.type in _ENDS:
                self._end(event.seq)
            count = self._count(event)
            if not count or event.seq in self._counted:
                continue
            self._counted.add(event.seq)
            if len(self._counted) > _MOST_COUNTED:
                self._counted.clear()
            if event.seq > self._newest:
                self._newest = event.seq
                self._spare = 0
            self._spare = self._wake(count)

    def stir(self, count: int) -> None:
        """Something may have happened that no event was seen of."""
        self._stirred_at = self._loop.time()
        self._spare = self._wake(count)

    def close(self) -> None:
        """The process is about to go."""
        for waiter in self._waiting:
            if waiter.waked is not None and not waiter.waked.done():
                waiter.waked.set_exception(Unavailable("The server restarts. Ask again.", code="restarting"))

    def _count(self, event: TaskEvent) -> int:
        """How many more may take something after this."""
        if event.type is TaskEventType.SUBTASKS_CREATED:
            return int(event.data.get("count", 1)) * self._overlap
        if event.type in _FOR_ALL:
            return ALL
        if event.type is TaskEventType.SUBTASK_UPDATED:
            return self._overlap
        state = event.state
        if state is None or state.status not in (SubtaskStatus.PENDING, SubtaskStatus.LEASED):
            return 0
        if event.type in _MORE_TAKE_IT:
            return self._overlap
        if event.type in _COMES_BACK:
            if state.not_before is None:
                return 1
            self._set_alarm(state.not_before)
        return 0

    def _end(self, seq: int) -> None:
        """All is done: whoever waits may know it at once. He who comes later waits for what may be added."""
        self._ended = max(self._ended, seq)
        for waiter in self._waiting:
            if waiter.waked is not None and not waiter.waked.done() and waiter.seen < seq:
                waiter.ended = True
                waiter.waked.set_result(True)

    def _wake(self, count: int) -> int:
        """Wakes those who come first of those whom it concerns. Gives how many more could have been."""
        for waiter in list(self._waiting):
            if count <= 0:
                return 0
            if waiter.waked is not None and not waiter.waked.done() and self._concerns(waiter):
                waiter.waked.set_result(True)
                self._comes(waiter)
                count -= waiter.most
        return max(count, 0)

    def _comes(self, waiter: Waiter) -> None:
        waiter.coming = True
        self._coming += waiter.most

    def _has_come(self, waiter: Waiter) -> None:
        if waiter.coming:
            waiter.coming = False
            self._coming -= waiter.most

    def _concerns(self, waiter: Waiter) -> bool:
        return waiter.seen < self._newest or waiter.asked_at < self._stirred_at

    def _set_alarm(self, at: datetime) -> None:
        if self._due is not None and self._due <= at:
            return
        self._due = at
        if self._alarm is not None:
            self._alarm.cancel()
        delay = (at - datetime.now(UTC)).total_seconds() + _GRACE_S
        self._alarm = self._loop.call_later(max(delay, _LEAST_S), self._ring)

    def _ring(self) -> None:
        self._due = self._alarm = None
        self.stir(1)


class Lines:
    """All tasks that somebody in this process waits for work of."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._closed = False

    def of(self, task: str, overlap: int) -> Line:
        if self._closed:
            raise Unavailable("The server restarts. Ask again.", code="restarting")
        line = self._lines.get(task)
        if line is None:
            line = self._lines[task] = Line(overlap, lambda: self._drop(task))
        return line

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._lines)

    def _drop(self, task: str) -> None:
        self._lines.pop(task, None)

    def on_events(self, task: str, events: Sequence[TaskEvent]) -> None:
        line = self._lines.get(task)
        if line is not None:
            line.on_events(events)

    def on_missed(self) -> None:
        """Some events were not seen: one of each line looks, and wakes the next if there is something."""
        for line in self._lines.values():
            line.stir(1)

    def close(self) -> None:
        self._closed = True
        for line in self._lines.values():
            line.close()


def _settle(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():
        future.set_result(value)
