"""`TaskStore` in memory: a fake for tests, under the same contract tests as the real one.

Nothing awaits in the middle of a change, so that each call is atomic for other tasks of the same loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime

from activities.backends.memory import page_of
from activities.backends.memory_feed import Watchers
from activities.ports import Page, Resync
from activities.task_fold import WAITING, Known, Sweep, created_of_batch, is_chosen, told
from activities.task_ports import Subtask, TaskChange, TaskFeedItem, TaskNews, TaskStats, WorkerStats
from goatherd.contracts.task import (
    OPEN,
    Answer,
    Counts,
    SubtaskInfo,
    SubtaskSpec,
    SubtaskStatus,
    Task,
    TaskEvent,
    TaskEventType,
    TaskStatus,
    TaskSummary,
)

_ENDS = {
    TaskStatus.CANCELLED: TaskEventType.TASK_CANCELLED,
    TaskStatus.EXPIRED: TaskEventType.TASK_EXPIRED,
    TaskStatus.FAILED: TaskEventType.TASK_FAILED,
}


@dataclass(slots=True)
class _Kept:
    """All of one task. `closed`: from outside, so that nothing is newer."""

    made: Task | None = None
    summary: TaskSummary | None = None
    latest: datetime | None = None
    closed: bool = False
    events: dict[int, TaskEvent] = field(default_factory=dict)
    sweeps: dict[int, Sweep] = field(default_factory=dict)
    subtasks: dict[str, Known] = field(default_factory=dict)

    def stand(self, summary: TaskSummary) -> None:
        if not self.closed and (self.summary is None or self.summary.version < summary.version):
            self.summary = summary

    def touch(self, at: datetime) -> None:
        if not self.closed and (self.latest is None or self.latest < at):
            self.latest = at

    def know(self, known: Known) -> None:
        self.subtasks.setdefault(known.id, Known(known.id, known.task)).join(known)

    def task(self) -> Task | None:
        if self.made is None:
            return None
        fields = self.summary.model_dump() if self.summary is not None else {}
        times = [self.made.updated_at, *([self.latest] if self.latest else [])]
        return Task.model_validate({**self.made.model_dump(), **fields, "updated_at": max(times)})

    def all(self) -> list[Subtask]:
        sweeps = list(self.sweeps.values())
        return [one for known in self.subtasks.values() if (one := known.read(sweeps)) is not None]


class MemoryTaskStore:
    """`TaskStore` in memory."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._batches: dict[str, list[SubtaskSpec]] = {}
        self._answers: dict[str, Answer] = {}
        self._secrets: dict[str, str] = {}
        self._watchers: Watchers[TaskFeedItem] = Watchers()

    async def prepare(self) -> None:
        pass

    async def ping(self) -> None:
        pass

    def _of(self, task: str) -> _Kept:
        return self._kept.setdefault(task, _Kept())

    # -- written

    async def put_task(self, task: Task) -> None:
        kept = self._of(task.id)
        if kept.made is None:
            kept.made = task
            fields = {name: getattr(task, name) for name in TaskSummary.model_fields}
            kept.stand(TaskSummary(**fields))

    async def put_subtasks(self, subtasks: Sequence[Subtask]) -> None:
        for one in subtasks:
            self._of(one.info.task).know(Known(one.info.id, one.info.task, one.info, one.state))

    async def put_batch(self, batch: str, task: str, specs: Sequence[SubtaskSpec]) -> None:
        self._batches.setdefault(batch, list(specs))

    async def delete_batch(self, batch: str) -> None:
        self._batches.pop(batch, None)

    async def put_answers(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            self._answers.setdefault(answer.id, answer)

    async def put_secret(self, task: str, secret: str) -> None:
        self._secrets.setdefault(task, secret)

    async def apply(self, changes: Sequence[TaskChange]) -> None:
        for change in changes:
            kept = self._of(change.task)
            all_told = told(change.task, change.events)
            for event in all_told.batches:
                for one in created_of_batch(event, self._batches.pop(event.data["batch"], [])):
                    kept.know(Known(one.info.id, change.task, one.info, one.state))
            for known in all_told.subtasks.values():
                kept.know(known)
            kept.sweeps.update(all_told.sweeps)
            kept.stand(change.summary)
            for event in change.events:
                kept.touch(event.ts)
                if not kept.closed or event.seq <= max(kept.events):
                    kept.events.setdefault(event.seq, event)
            await self.put_answers(list(all_told.answers.values()))
            self._show(TaskNews(change.task, sorted(change.events, key=lambda event: event.seq)))

    async def close_task(self, task: str, status: str, reason: str, at: datetime) -> None:
        stored = await self.task(task)
        if stored is None or stored.closed_at is not None:
            return
        kept = self._of(task)
        seq = max(stored.version, *kept.events, 0) + 1
        if stored.status in (TaskStatus.COMPLETED, TaskStatus.FAILED) and not stored.counts.unfinished:
            status = stored.status
        kept.sweeps[seq] = Sweep(seq, reason, at, final=True)
        counts = Counts().model_dump()
        for one in kept.all():
            counts[one.state.status] += 1
        end = _ENDS.get(TaskStatus(status)) if status != stored.status else None
        events = [
            TaskEvent(seq=seq + place, type=kind, task=task, ts=at, data={"reason": reason})
            for place, kind in enumerate([*([end] if end else []), TaskEventType.TASK_CLOSED])
        ]
        kept.events = {number: event for number, event in kept.events.items() if number < seq}
        kept.events.update({event.seq: event for event in events})
        kept.latest = at
        kept.summary = TaskSummary(
            version=events[-1].seq,
            status=TaskStatus(status),
            counts=Counts(**counts),
            reason=reason,
            ended_at=stored.ended_at or at,
            closed_at=at,
        )
        kept.closed = True
        self._show(TaskNews(task, events))

    # -- read

    async def task(self, task: str) -> Task | None:
        return self._of(task).task()

    async def tasks(
        self, owner: str, page: Page, *, status: str | None = None, label: str | None = None
    ) -> list[Task]:
        found = [
            task
            for kept in self._kept.values()
            if (task := kept.task()) is not None
            and task.owner == owner
            and (status is None or task.status == status)
            and (label is None or label in task.labels)
        ]
        return page_of(found, page, lambda task: task.id)

    async def open_tasks(self, ids: Sequence[str]) -> list[str]:
        return [one for one in ids if (task := self._of(one).task()) is not None and task.closed_at is None]

    async def subtask(self, task: str, subtask: str) -> Subtask | None:
        kept = self._of(task)
        known = kept.subtasks.get(subtask)
        return None if known is None else known.read(list(kept.sweeps.values()))

    async def subtasks(
        self, task: str, page: Page, *, status: str | None = None, assignee: str | None = None
    ) -> list[Subtask]:
        found = [one for one in self._of(task).all() if is_chosen(one.state, status, assignee)]
        return page_of(found, page, lambda one: one.info.number)

    async def infos(self, ids: Sequence[str]) -> dict[str, SubtaskInfo]:
        wanted = set(ids)
        return {
            one.info.id: one.info
            for kept in self._kept.values()
            for one in kept.all()
            if one.info.id in wanted
        }

    async def answers(self, task: str, subtasks: Sequence[str]) -> list[Answer]:
        found = [one for one in self._answers.values() if one.task == task and one.subtask in subtasks]
        return sorted(found, key=lambda answer: answer.id)

    async def secret(self, task: str) -> str | None:
        return self._secrets.get(task)

    async def events(self, task: str, *, after: int, limit: int) -> list[TaskEvent]:
        return [event for seq, event in sorted(self._of(task).events.items()) if seq > after][:limit]

    async def last_seq(self, task: str) -> int:
        return max(self._of(task).events, default=0)

    async def stats(self, task: str) -> TaskStats:
        workers: dict[str, WorkerStats] = {}
        oldest: dict[str, datetime] = {}
        for answer in self._answers.values():
            if answer.task == task:
                stats = workers.get(answer.worker, WorkerStats())
                more = {"failed": stats.failed + 1} if answer.error else {"completed": stats.completed + 1}
                workers[answer.worker] = replace(stats, **more)
        for one in self._of(task).all():
            if one.state.status in OPEN:
                since = one.info.created_at if one.state.status in WAITING else one.state.updated_at
                oldest[one.state.status.value] = min(since, oldest.get(one.state.status.value, since))
            if one.state.status is SubtaskStatus.LEASED:
                for worker in one.state.assignees:
                    stats = workers.get(worker, WorkerStats())
                    workers[worker] = replace(stats, leased=stats.leased + 1)
        return TaskStats(workers, oldest)

    # -- followed

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[TaskFeedItem]]:
        return self._watchers.watch()

    def _show(self, item: TaskFeedItem) -> None:
        self._watchers.show(item)

    def break_feeds(self) -> None:
        """For tests: every watcher gets a `Resync`, as after an outage that the store can't bridge."""
        self._show(Resync())
