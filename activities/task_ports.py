"""What activities and the API need of the store of tasks, as a protocol.

The truth about who may have which subtask is with a task's actor; here is what is read, and the truth about
inputs and results. Everything is written by idempotent calls in any order: the same events may come twice,
from several processes at once, cut into other batches.

Every backend passes tests/activities/contract_task_store.py; so does the fake.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from activities.ports import Page, Resync
from goatherd.contracts.task import (
    Answer,
    SubtaskInfo,
    SubtaskSpec,
    SubtaskState,
    Task,
    TaskEvent,
    TaskSummary,
)


@dataclass(frozen=True, slots=True)
class TaskChange:
    """What a task's actor has done: some of its events, not always next to each other, and how the task
    stood when it answered."""

    task: str
    events: Sequence[TaskEvent]
    summary: TaskSummary


@dataclass(frozen=True, slots=True)
class Subtask:
    """A subtask as it is read: what is said of it, and how it stands."""

    info: SubtaskInfo
    state: SubtaskState


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What one worker holds and has reported."""

    leased: int = 0
    completed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class TaskStats:
    """Of a task: its workers, and since when the oldest subtask of each unfinished status is there.

    `oldest`: by status (`blocked`, `pending`: when it was made; `leased`: when it last changed).
    """

    workers: Mapping[str, WorkerStats] = field(default_factory=dict)
    oldest: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskNews:
    """Events of one task that somebody has written: by `seq`, not always next to each other, and perhaps
    not for the first time."""

    task: str
    events: Sequence[TaskEvent]


TaskFeedItem = TaskNews | Resync


class TaskStore(Protocol):
    """The read side of tasks, and the inputs and results of their subtasks."""

    async def prepare(self) -> None:
        """Makes collections and indexes. Idempotent."""

    async def ping(self) -> None:
        """Returns if the store answers; raises `Unavailable` if not."""

    # -- written by idempotent calls only

    async def put_task(self, task: Task) -> None:
        """Keeps a task unless it is there already (also if it has gone on since)."""

    async def put_subtasks(self, subtasks: Sequence[Subtask]) -> None:
        """Keeps subtasks unless they are there already; what is known to be newer of each stays."""

    async def put_batch(self, batch: str, task: str, specs: Sequence[SubtaskSpec]) -> None:
        """Keeps subtasks that are about to be asked for by this id, which `subtasks.created` will name.

        A `priority` that is not given counts as the usual one: fill in the task's. `depends_on` names ids, or
        keys of the same batch. Kept until it is deleted, for a week at most. The same id again changes
        nothing.
        """

    async def delete_batch(self, batch: str) -> None:
        """For one whose subtasks are all put (`apply` deletes what it has applied), or that was refused."""

    async def put_answers(self, answers: Sequence[Answer]) -> None:
        """Keeps answers, the first of each id."""

    async def put_secret(self, task: str, secret: str) -> None:
        """Keeps the secret that the task's callback is signed with, unless it has one."""

    async def apply(self, changes: Sequence[TaskChange]) -> None:
        """Keeps events, and brings the documents of tasks, subtasks and answers up to them.

        Idempotent, and independent of how calls are ordered, cut, repeated, or run side by side: what they
        leave depends on all of their events only. All is durable on return, and whoever sees an event finds
        the documents at least as new.

        `subtasks.created` makes subtasks, of `data.subtasks` (each a `SubtaskInfo` with its `status`, blocked
        or pending, and `priority`), or of the batch `data.batch`: of this those begin as blocked who depend
        on others, unless their numbers are in `data.ready`.
        """

    async def close_task(self, task: str, status: str, reason: str, at: datetime) -> None:
        """Closes a task whose workflow is gone: what is unfinished of it becomes cancelled for this reason,
        and an event closes its sequence; later ones don't count any more. Does nothing to one that is closed
        or not there."""

    # -- read

    async def task(self, task: str) -> Task | None: ...

    async def tasks(
        self, owner: str, page: Page, *, status: str | None = None, label: str | None = None
    ) -> list[Task]:
        """The owner's tasks by id (that is, by when they were made)."""

    async def open_tasks(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that the store has and has not as closed."""

    async def subtask(self, task: str, subtask: str) -> Subtask | None: ...

    async def subtasks(
        self, task: str, page: Page, *, status: str | None = None, assignee: str | None = None
    ) -> list[Subtask]:
        """By number; the page's positions are numbers. `assignee`: who has it now."""

    async def infos(self, ids: Sequence[str]) -> dict[str, SubtaskInfo]:
        """What is said of these subtasks, of whatever task, by id; what is not there is left out. Calls at
        the same time are one query."""

    async def answers(self, task: str, subtasks: Sequence[str]) -> list[Answer]:
        """All answers to these subtasks, by id (that is, by when the lease began)."""

    async def secret(self, task: str) -> str | None: ...

    async def events(self, task: str, *, after: int, limit: int) -> list[TaskEvent]:
        """Events with `seq` > `after`, in order, each once. Where a number is missing, its event is not
        written yet: the caller decides whether to wait for it."""

    async def last_seq(self, task: str) -> int:
        """The newest event's number, 0 if there is none."""

    async def stats(self, task: str) -> TaskStats: ...

    # -- followed

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[TaskFeedItem]]:
        """The events written from the time that the context is entered, by any process, in the order written.

        The iterator resumes after a lost connection by itself where the store allows it; where it does not,
        it yields `Resync` and goes on: what came in between has to be read again by `seq`.
        """
