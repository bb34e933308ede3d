"""A task's actor by hand: no server, the clock moved by the test."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter

from goatherd.actors.testkit import BehaviorTestKit, Piped
from goatherd.contracts.ids import new_id, subtask_id
from goatherd.contracts.task import TaskEvent
from goatherd.contracts.task_messages import (
    Added,
    AddSubtasks,
    Asked,
    FlushTask,
    Leased,
    ReportStatus,
    StartTask,
    Taken,
    TakeSubtasks,
    TaskFlushed,
)
from workflows.task_behavior import TaskBehavior
from workflows.task_flush import TaskFlushing
from workflows.task_items import Items
from workflows.task_log import TaskLog

TASK = new_id("task")
EVENTS = TypeAdapter(list[TaskEvent])


class Bench:
    """A task, and short words for what is done with it."""

    def __init__(self, **start: Any) -> None:
        begun = StartTask.model_validate({"stored": True, "backoff": {"initial_s": 0}, **start})
        behavior = TaskBehavior(
            start=begun, log=TaskLog(TASK), items=Items(), flushing=TaskFlushing(stored=begun.stored)
        )
        self.kit: BehaviorTestKit[Any] = BehaviorTestKit(behavior, name="task")
        self.flushes: list[FlushTask] = []

    @property
    def task(self) -> TaskBehavior:
        return self.kit.expect_behavior(TaskBehavior)

    def ask(self, order: Asked) -> Any:
        self.kit.behavior.check(order)
        request: Any = order.model_copy(update={"flusher": True})
        answer: Any = self.kit.ask(request).answer
        return type(answer).model_validate_json(answer.model_dump_json())  # As it travels.

    def add(self, *subtasks: Any, **more: Any) -> Added:
        answer: Added = self.ask(AddSubtasks.model_validate({"subtasks": subtasks, **more}))
        return answer

    def take(self, worker: str = "ada", **more: Any) -> list[Leased]:
        taken: Taken = self.ask(TakeSubtasks.model_validate({"worker": worker, **more}))
        return taken.assignments

    def report(self, lease: Leased, status: str = "completed", **more: Any) -> Any:
        given = {"subtask": lease.subtask, "lease_token": lease.lease_token, "status": status}
        return self.ask(ReportStatus.model_validate({**given, **more}))

    def late(self, clock: float) -> None:
        """It is this time, and no timer has rung yet."""
        self.kit._bench.environment.clock = clock

    def works(self) -> list[Piped]:
        """The activities that were begun since one last looked."""
        return [effect for effect in self.kit.effects() if isinstance(effect, Piped)]

    def flushed(self) -> FlushTask:
        """What the actor has begun to write; the write ends well."""
        (piped,) = self.works()
        order: FlushTask = piped.awaitable.argument
        piped.succeed(TaskFlushed())
        return order

    def settle(self) -> list[int]:
        """Until all is written that the actor wants to write; gives the numbers of the events."""
        written: list[int] = []
        while works := self.works():
            written += [event.seq for event in works[0].awaitable.argument.events]
            works[0].succeed(TaskFlushed())
        return written

    def status(self) -> str:
        return self.task.status.value

    def closed(self) -> bool:
        return self.task.closed

    def is_alive(self) -> bool:
        return self.kit.is_alive

    def events(self) -> list[TaskEvent]:
        """All that the store may lack."""
        return EVENTS.validate_python(self.task.log.since(0)[0])

    def statuses(self) -> list[str]:
        return [item.status for item in self.task.items]


def sub(number: int) -> str:
    return subtask_id(TASK, number)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
