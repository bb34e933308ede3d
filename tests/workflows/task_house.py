"""Tasks' actors on a real Temporal server, with a store in memory."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.worker import Worker

from activities.backends.memory_tasks import MemoryTaskStore
from activities.task import TaskActivities, Webhook, WebhookAnswer
from activities.task_ports import Subtask
from goatherd.actors.durable import ActorSystem
from goatherd.contracts.ids import new_id
from goatherd.contracts.queues import Pool, task_queue
from goatherd.contracts.task_messages import (
    AddSubtasks,
    Asked,
    Leased,
    ReportStatus,
    StartTask,
    Taken,
    TakeSubtasks,
)
from tests.temporal import eventually
from workers.sandbox import workflow_runner
from workflows.task import Task


@dataclass
class Mailbox:
    """A webhook sender that keeps what it is given."""

    sent: list[Webhook] = field(default_factory=list)

    async def send(self, webhook: Webhook) -> WebhookAnswer:
        self.sent.append(webhook)
        return WebhookAnswer(204)


@dataclass
class TaskHouse:
    """One of everything, and short words for what tests do with it."""

    client: Client
    store: MemoryTaskStore = field(default_factory=MemoryTaskStore)
    prefix: str = field(default_factory=lambda: new_id("req"))
    mailbox: Mailbox = field(default_factory=Mailbox)

    def __post_init__(self) -> None:
        self.system = ActorSystem(self.client, task_queue=task_queue(Pool.ACTORS, self.prefix))

    def workers(self, *, cached: int = 1_000) -> list[AbstractAsyncContextManager[Worker]]:
        """`cached` 0: every workflow task replays the whole history."""
        activities = TaskActivities(self.store, self.mailbox)
        return [
            Worker(
                self.client,
                task_queue=task_queue(Pool.ACTORS, self.prefix),
                workflows=[Task],
                activities=[activities.flush],
                workflow_runner=workflow_runner(sandboxed=True),
                max_cached_workflows=cached,
                sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
            ),
            Worker(
                self.client,
                task_queue=task_queue(Pool.STORE, self.prefix),
                activities=[activities.tell_callback],
            ),
        ]

    async def begin(self, task: str | None = None, **start: Any) -> str:
        task = task or new_id("task")
        begun = StartTask.model_validate({"task_queue_prefix": self.prefix, **start})
        await self.system.entity(Task, task).start(begun)
        return task

    async def ask(self, task: str, order: Asked, *, flusher: bool = False) -> Any:
        request: Any = order.model_copy(update={"flusher": flusher})
        return await self.system.entity(Task, task).ask(request, timeout_s=20)

    async def add(self, task: str, *subtasks: Any, **more: Any) -> Any:
        return await self.ask(task, AddSubtasks.model_validate({"subtasks": subtasks, **more}))

    async def take(self, task: str, worker: str = "ada", **more: Any) -> list[Leased]:
        taken: Taken = await self.ask(task, TakeSubtasks.model_validate({"worker": worker, **more}))
        return taken.assignments

    async def report(self, task: str, lease: Leased, status: str = "completed", **more: Any) -> Any:
        given = {"subtask": lease.subtask, "lease_token": lease.lease_token, "status": status}
        return await self.ask(task, ReportStatus.model_validate({**given, **more}))

    async def stored(self, task: str, subtask: str, status: str) -> Subtask:
        """The subtask, once the store has it with this status."""
        found: Subtask | None = None

        async def check() -> bool:
            nonlocal found
            found = await self.store.subtask(task, subtask)
            return found is not None and found.state.status == status

        await eventually(check, within_s=20)
        assert found is not None
        return found

    async def ended(self, task: str, status: str) -> None:
        """Returns when the workflow has ended, and the store has the task with this status."""
        await self.client.get_workflow_handle(task).result()
        stored = await self.store.task(task)
        assert stored is not None
        assert stored.status == status
        assert stored.closed_at is not None
