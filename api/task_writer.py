"""The way of tasks' events from their actors' answers to the store: written behind, many at once.

An answer is durable before it comes: what it says is in its actor's history. So nobody waits for the store,
and nothing is lost with this process: an actor that hears from nobody that its events are written writes
them itself, after a few seconds. What was written is told to each task's actor with the next request to it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from activities.task_ports import TaskChange, TaskStore
from goatherd.contracts.task import TaskEvent, TaskEventType, TaskSummary
from goatherd.contracts.task_messages import Range, ranges
from goatherd.telemetry import get_logger
from goatherd.telemetry.metrics import STORE_APPEND_EVENTS, STORE_APPEND_SECONDS

MOST_WAITING = 50_000
"""Events that may wait to be written; more are left to their actors."""
LINGER_S = 1.0
"""When much is written: what is done to a subtask in this time is one update. A reader here hurries it."""
SOON_S = 0.25
"""The same, if somebody elsewhere may wait for it."""
_AWAITED_BY_NOBODY = frozenset(
    {
        TaskEventType.SUBTASK_LEASED,
        TaskEventType.SUBTASK_PROGRESS,
        TaskEventType.SUBTASK_ANSWERED,
        TaskEventType.SUBTASK_COMPLETED,
    }
)
"""Nothing to take comes by these."""
_BUSY = 8
_MOST_AT_ONCE = 2_000
_MOST_TASKS = 10_000
_MOST_ACKS = 5_000

log = get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Gathered:
    """Events that are written together. `awaited`: somebody may wait for one of them. `hurry`: not to wait
    for more. `done`: they are written, or nobody here will write them."""

    events: dict[str, list[TaskEvent]] = field(default_factory=dict)
    summaries: dict[str, TaskSummary] = field(default_factory=dict)
    count: int = 0
    awaited: bool = False
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, task: str, events: Sequence[TaskEvent], summary: TaskSummary) -> None:
        self.events.setdefault(task, []).extend(events)
        known = self.summaries.get(task)
        if known is None or known.version < summary.version:
            self.summaries[task] = summary
        self.count += len(events)
        self.awaited = self.awaited or not all(event.type in _AWAITED_BY_NOBODY for event in events)

    def parts(self) -> list[list[TaskChange]]:
        """What goes to the store by one call each."""
        parts: list[list[TaskChange]] = [[]]
        room = _MOST_AT_ONCE
        for task, events in self.events.items():
            for start in range(0, len(events), _MOST_AT_ONCE):
                piece = events[start : start + _MOST_AT_ONCE]
                if room < len(piece):
                    parts.append([])
                    room = _MOST_AT_ONCE
                parts[-1].append(TaskChange(task, piece, self.summaries[task]))
                room -= len(piece)
        return parts


class TaskWriter:
    """One a process. Give it a `close` before the store is closed."""

    def __init__(self, store: TaskStore, *, linger_s: float = LINGER_S) -> None:
        self._store = store
        self._linger_s = linger_s
        self._gathering = _Gathered()
        self._writing: _Gathered | None = None
        self._worker: asyncio.Task[None] | None = None
        self._patient = False
        self._closing = False
        self._written: OrderedDict[str, list[int]] = OrderedDict()

    def add(self, task: str, events: Sequence[TaskEvent], summary: TaskSummary) -> None:
        """Has events written soon. Never waits."""
        if not events:
            return
        if self._gathering.count >= MOST_WAITING:
            log.warning("the store is behind: events are left to their actor", task=task, events=len(events))
            return
        self._gathering.add(task, events, summary)
        if self._patient and self._gathering.awaited:
            self._gathering.hurry.set()
        if self._worker is None:
            self._worker = asyncio.create_task(self._write_all())

    async def settled(self, task: str) -> None:
        """Returns when all that was added of a task before is written, or was given up."""
        if task in self._gathering.events:
            gathered = self._gathering
            gathered.hurry.set()
            await gathered.done.wait()
        elif self._writing is not None and task in self._writing.events:
            await self._writing.done.wait()

    def acks(self, task: str) -> list[Range]:
        """What was written of a task and not told yet, to be told now."""
        written = self._written.pop(task, None)
        return [] if written is None else ranges(written)

    def put_back(self, task: str, acks: Sequence[Range]) -> None:
        """They could not be told."""
        if acks:
            self._remember(task, [seq for first, last in acks for seq in range(first, last + 1)])

    async def close(self) -> None:
        """Writes what there is."""
        self._closing = True
        self._gathering.hurry.set()
        if self._worker is not None:
            await self._worker

    async def _write_all(self) -> None:
        try:
            last = 0
            while self._gathering.count:
                if last > _BUSY and not self._closing:
                    await self._linger()
                self._writing, self._gathering = self._gathering, _Gathered()
                last = self._writing.count
                try:
                    for part in self._writing.parts():
                        await self._write(part)
                finally:
                    self._writing.done.set()
                    self._writing = None
        finally:
            self._worker = None

    async def _linger(self) -> None:
        """More is on its way, and one write of several costs little more than one."""
        gathering, soon_s = self._gathering, min(SOON_S, self._linger_s)
        if await _is_set(gathering.hurry, soon_s) or gathering.awaited:
            return
        self._patient = True
        await _is_set(gathering.hurry, self._linger_s - soon_s)
        self._patient = False

    async def _write(self, changes: list[TaskChange]) -> None:
        count = sum(len(change.events) for change in changes)
        STORE_APPEND_EVENTS.observe(count)
        try:
            with STORE_APPEND_SECONDS.time():
                await self._store.apply(changes)
        except Exception as error:
            log.warning(
                "events of tasks could not be written: their actors will", events=count, error=repr(error)
            )
            return
        for change in changes:
            self._remember(change.task, [event.seq for event in change.events])

    def _remember(self, task: str, numbers: list[int]) -> None:
        known = self._written.setdefault(task, [])
        if len(known) < _MOST_ACKS:
            known.extend(numbers)
        self._written.move_to_end(task)
        if len(self._written) > _MOST_TASKS:
            self._written.popitem(last=False)


async def _is_set(event: asyncio.Event, within_s: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await event.wait()
    return event.is_set()
