"""Tells the callback of a task how it ended."""

from __future__ import annotations

from typing import Any

from activities.task import TaskActivities
from goatherd.actors import Context, activity, message
from goatherd.contracts.queues import Pool, task_queue
from goatherd.contracts.task import TaskEventType, TaskSummary
from goatherd.contracts.task_messages import CallbackTold, StartTask, TellCallback
from workflows.task_log import moment


@message
class Told:
    told: CallbackTold


@message
class NotTold:
    """The callback was given up."""

    why: str


def not_told(error: BaseException) -> NotTold:
    return NotTold(str(error))


def tell(
    ctx: Context[Any], start: StartTask, kind: TaskEventType, *, task: str, summary: TaskSummary
) -> None:
    """Begins to; `Told` or `NotTold` follows, after hours if nobody answers there."""
    assert start.callback is not None
    order = TellCallback(
        id=f"{task}-{summary.version}",
        url=str(start.callback.url),
        task=task,
        owner=start.owner,
        type=kind.value,
        ts=moment(ctx.now()),
        data={
            "id": task,
            "title": start.title,
            "labels": start.labels,
            **summary.model_dump(mode="json"),
        },
    )
    told = activity(
        TaskActivities.tell_callback,
        order,
        queue=task_queue(Pool.STORE, start.task_queue_prefix),
        timeout="30s",
        attempts=20,
        backoff="1s",
        max_backoff="30m",
        summary=kind.value,
    )
    ctx.pipe_to_self(told, Told, not_told)
