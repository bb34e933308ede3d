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
from goatherd.contracts.task import TaskEvent, TaskSummary
from goatherd.contracts.task_messages import Range
from goatherd.telemetry import get_logger
from goatherd.telemetry.metrics import STORE_APPEND_EVENTS, STORE_APPEND_SECONDS

MOST_WAITING = 50_000
"""Events that may wait to be written; more are left to their actors."""
LINGER_S = 0.25
"""When much is written: what is done to a subtask in this time is one update. A reader here hurries it."""
_BUSY = 8
_MOST_AT_ONCE = 2_000
_MOST_TASKS = 10_000
_MOST_ACKS = 5_000

log = get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Gathered:
    """Events that are written together. `done`: they are, or nobody here will write them."""

    events: dict[str, list[TaskEvent]] = field(default_factory=dict)
    summaries: dict[str, TaskSummary] = field(default_factory=dict)
    count: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, task: str, events: Sequence[TaskEvent], summary: TaskSummary) -> None:
        self.events.setdefault(task, []).extend(events)
        known = self.summaries.get(task)
        if known is None or known.version < summary.version:
            self.summaries[task] = summary
        self.count += len(events)

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
        self._hurry = asyncio.Event()
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
        if self._worker is None:
            self._worker = asyncio.create_task(self._write_all())

    async def settled(self, task: str) -> None:
        """Returns when all that was added of a task before is written, or was given up."""
        if task in self._gathering.events:
            gathered = self._gathering
            self._hurry.set()
            await gathered.done.wait()
        elif self._writing is not None and task in self._writing.events:
            await self._writing.done.wait()

    def acks(self, task: str) -> list[Range]:
        """What was written of a task and not told yet, to be told now."""
        written = self._written.pop(task, None)
        return [] if written is None else _ranges(written)

    def put_back(self, task: str, acks: Sequence[Range]) -> None:
        """They could not be told."""
        if acks:
            self._remember(task, [seq for first, last in acks for seq in range(first, last + 1)])

    async def close(self) -> None:
        """Writes what there is."""
        self._closing = True
        self._hurry.set()
        if self._worker is not None:
            await self._worker

    async def _write_all(self) -> None:
        try:
            last = 0
            while self._gathering.count:
                if last > _BUSY and not self._closing:
                    # More is on its way, and one write of several costs little more than one.
                    self._hurry.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._linger_s):
                            await self._hurry.wait()
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


def _ranges(numbers: list[int]) -> list[Range]:
    ranges: list[Range] = []
    for number in sorted(numbers):
        if ranges and number <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], max(number, ranges[-1][1]))
        else:
            ranges.append((number, number))
    return ranges
