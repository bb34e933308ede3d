"""What the store may lack of a task, and when the actor writes it itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from activities.task import TaskActivities
from goatherd.actors import Context, activity, message
from goatherd.contracts.task import Task, TaskSummary
from goatherd.contracts.task_messages import FlushTask, Range, TaskFlushed, ranges
from workflows.task_log import TaskLog

QUIET_S = 5.0
"""How long an event that its caller has promised to write may wait, when no such caller is heard any more,
before the actor writes it."""
LATE_S = 20.0
"""The same, while others who write are heard: whoever has promised this one may be gone."""
_MOST = 500
_MOST_BYTES = 512 * 1024
_TIMER = "write what nobody has"


@message
class Written:
    flushed: TaskFlushed


@message
class Quiet:
    """Some event may have been waiting for its writer too long."""


@dataclass
class TaskFlushing:
    """`stored`: the task's document is in the store. `upto`: events up to this number are to be written at
    once, since nobody else does. `heard_at`: when somebody asked last who writes what he is answered.
    `writing`: the events that are being written; None: none are."""

    stored: bool = False
    upto: int = 0
    heard_at: float = 0.0
    writing: list[Range] | None = None

    def go_on(
        self,
        ctx: Context[Any],
        log: TaskLog,
        *,
        document: Callable[[], Task],
        summary: Callable[[], TaskSummary],
    ) -> None:
        """Begins what is to be done now."""
        if self.writing is not None:
            return
        now = ctx.now()
        is_quiet = now >= self.heard_at + QUIET_S
        before = now if log.has_up_to(self.upto) else now - (QUIET_S if is_quiet else LATE_S)
        events = log.oldest(_MOST, _MOST_BYTES, before)
        if events or not self.stored:
            self.writing = ranges(event["seq"] for event in events)
            order = FlushTask(
                task=None if self.stored else document(), id=log.task, events=events, summary=summary()
            )
            ctx.pipe_to_self(activity(TaskActivities.flush, order, timeout="20s"), Written)
        elif (first := log.first_at) is not None and not ctx.timers.is_active(_TIMER):
            due = min(max(first, self.heard_at) + QUIET_S, first + LATE_S)
            ctx.timers.once(_TIMER, Quiet(), max(due - now, 0.01))

    def is_done(self, log: TaskLog) -> bool:
        """Whether the store has all."""
        return self.stored and self.writing is None and not len(log)

    def done(self, log: TaskLog) -> None:
        """The write that was under way has ended well."""
        log.confirm(self.writing or [])
        self.stored, self.writing = True, None
