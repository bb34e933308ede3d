"""Tells the callback of a task how it ended, again and again while nobody answers there.

Each try is an activity of its own, and between two of them is a timer: an activity that Temporal tried again
for hours would keep the actor from its next run for as long, and then from its work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from activities.task import TaskActivities
from goatherd.actors import Context, activity, message
from goatherd.contracts.queues import Pool, task_queue
from goatherd.contracts.task import TaskEventType, TaskSummary
from goatherd.contracts.task_messages import CallbackTold, StartTask, TellCallback
from workflows.task_log import moment

TRIES = 20
"""Of each; with the waits between them, five hours."""
_FIRST_S, _MOST_S = 1.0, 1_800.0
_TIMER = "tell the callback again"


@message
class Told:
    told: CallbackTold


@message
class NotTold:
    """It could not even be tried, or nobody answered."""

    why: str


@message
class TellAgain:
    """It may be time for the next try."""


def not_told(error: BaseException) -> NotTold:
    return NotTold(str(error))


@dataclass
class Call:
    """What is to be told, after how many tries, and when next (seconds since 1970)."""

    order: TellCallback
    tries: int = 0
    due: float = 0.0


@dataclass
class TaskCallbacks:
    """What the callback has not heard: one after the other, in the order in which it happened. `trying`: a
    try of the first is under way."""

    calls: list[Call] = field(default_factory=list)
    trying: bool = False

    def add(
        self, start: StartTask, kind: TaskEventType, *, task: str, summary: TaskSummary, now: float
    ) -> None:
        assert start.callback is not None
        order = TellCallback(
            id=f"{task}-{summary.version}",
            url=str(start.callback.url),
            task=task,
            owner=start.owner,
            type=kind.value,
            ts=moment(now),
            data={
                "id": task,
                "title": start.title,
                "labels": start.labels,
                **summary.model_dump(mode="json"),
            },
        )
        self.calls.append(Call(order))

    def go_on(self, ctx: Context[Any], start: StartTask) -> None:
        """Begins what is to be done now; `Told`, `NotTold` or `TellAgain` follows."""
        if self.trying or not self.calls:
            return
        call = self.calls[0]
        if call.due > ctx.now():
            if not ctx.timers.is_active(_TIMER):
                ctx.timers.once(_TIMER, TellAgain(), call.due - ctx.now())
            return
        self.trying = True
        told = activity(
            TaskActivities.tell_callback,
            call.order,
            queue=task_queue(Pool.STORE, start.task_queue_prefix),
            timeout="30s",
            attempts=1,
            summary=call.order.type,
        )
        ctx.pipe_to_self(told, Told, not_told)

    def tried(self, ctx: Context[Any], outcome: Told | NotTold) -> None:
        """What became of a try."""
        self.trying = False
        call = self.calls[0]
        call.tries += 1
        if isinstance(outcome, Told) and not outcome.told.again:
            why = outcome.told.error
        elif call.tries < TRIES:
            wait = min(_FIRST_S * 2 ** (call.tries - 1), _MOST_S)
            if isinstance(outcome, Told) and outcome.told.retry_after_s is not None:
                wait = max(wait, outcome.told.retry_after_s)
            call.due = ctx.now() + wait
            return
        else:
            why = outcome.told.error if isinstance(outcome, Told) else outcome.why
        if why is not None:
            ctx.log.warning("the callback of the task was given up: %s", why)
        del self.calls[0]
