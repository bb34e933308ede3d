"""The durable actor of a task: workflow type `Task`, one a task, its id the task's.

By hand: `temporal workflow update execute -w task_… --name TakeSubtasks --input '{"worker":"me"}'`.
"""

from __future__ import annotations

from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from goatherd.contracts.task import Task as TaskDocument
    from goatherd.contracts.task_messages import (
        AddSubtasks,
        CancelTask,
        Heartbeat,
        PauseTask,
        ReportStatus,
        RequeueSubtasks,
        ResumeTask,
        StartTask,
        TakeSubtasks,
        TaskOutcome,
        TaskView,
        UpdateSubtask,
    )
    from goatherd.temporal import STATUS

from goatherd.actors import Behavior
from goatherd.actors.durable import DurableActor, actor
from workflows.task_behavior import TaskBehavior
from workflows.task_flush import TaskFlushing
from workflows.task_items import Items
from workflows.task_log import TaskLog, moment


@actor(
    "Task",
    AddSubtasks,
    TakeSubtasks,
    ReportStatus,
    Heartbeat,
    UpdateSubtask,
    PauseTask,
    ResumeTask,
    RequeueSubtasks,
    CancelTask,
)
class Task(DurableActor[StartTask]):
    """See `workflows/task_behavior.py` for what it does; this is how Temporal sees it."""

    idempotent = True
    most_together = 200

    def behavior(self, start: StartTask) -> Behavior[Any]:
        return TaskBehavior(
            start=start,
            log=TaskLog(workflow.info().workflow_id),
            items=Items(),
            flushing=TaskFlushing(stored=start.stored),
        )

    def asks_per_run(self, start: StartTask) -> int:
        return start.asks_per_run

    def describe(self, behavior: Behavior[Any]) -> str | None:
        task = _task(behavior)
        counts = task.book.counts
        shown = " · ".join(f"{count} {status}" for status, count in counts.items() if count)
        return f"**{task.status.value}** · {shown or 'no subtasks'} · last seq {task.log.seq}"

    def show(self, behavior: Behavior[Any]) -> None:
        super().show(behavior)
        attributes = workflow.info().typed_search_attributes
        task = _task(behavior)
        if task.closed and attributes.get(STATUS) not in (None, "ended"):
            workflow.upsert_search_attributes([STATUS.value_set("ended")])

    def result(self, behavior: Behavior[Any]) -> TaskOutcome:
        task = _task(behavior)
        return TaskOutcome(status=task.status.value, reason=task.reason, counts=task.book.counts)

    @workflow.query(name="Task")
    def task(self) -> TaskView:
        task = _task(self.host.root)
        due = task.book.next_at()
        return TaskView(
            id=task.log.task,
            summary=task.summary,
            paused=task.paused,
            leases=len(task.book.leases),
            available=task.book.available,
            unflushed=len(task.log),
            next_deadline=None if due is None else moment(due),
        )

    @workflow.query(name="Document")
    def document(self) -> TaskDocument:
        """The task as the store should have it, for when whoever started it could not write it."""
        task = _task(self.host.root)
        assert task.created_at is not None
        document = task.start.document(task.log.task, now=task.created_at)
        return document.model_copy(update=task.summary.model_dump(include={"status", "counts", "version"}))


def _task(behavior: Behavior[Any]) -> TaskBehavior:
    assert isinstance(behavior, TaskBehavior)
    return behavior
