"""The way to tasks' actors: who may ask, what is asked, and what becomes of the answer.

Each request takes along what has been written to the store since the last; each answer brings events, which
are written behind, and shown at once to those who wait here for work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes

from activities.reconcile import how_ended
from activities.task_ports import TaskStore
from activities.task_reconcile import TaskReadSide
from api.asking import ask_until_there
from api.recent import Recent
from api.task_writer import TaskWriter
from goatherd.contracts.request import Request
from goatherd.contracts.task import Task as TaskDocument
from goatherd.contracts.task import TaskEvent
from goatherd.contracts.task_messages import Asked, Changed, StartTask
from goatherd.errors import NotFound, TaskClosed
from goatherd.security.access import Principal, require
from goatherd.temporal import OWNER, STATUS
from workflows.task import Task

Answer = TypeVar("Answer", bound=Changed)
OnEvents = Callable[[str, Sequence[TaskEvent]], None]


class Entity(Protocol):
    """What is needed of `goatherd.actors.durable.Entity`."""

    async def start(
        self,
        start: StartTask,
        *,
        summary: str | None = None,
        search_attributes: TypedSearchAttributes | None = None,
    ) -> bool: ...

    async def ask(self, request: Any, *, id: str | None = None, timeout_s: float = 10.0) -> Any: ...


class Actors(Protocol):
    """What is needed of `ActorSystem`."""

    def entity(self, kind: Any, entity_id: str) -> Entity: ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What never changes of a task."""

    owner: str
    priority: int
    overlap: int


class TaskActors:
    """One a process."""

    def __init__(
        self,
        client: Client,
        actors: Actors,
        store: TaskStore,
        writer: TaskWriter,
        *,
        timeout_s: float,
        on_events: OnEvents,
    ) -> None:
        self.store = store
        self.writer = writer
        self._client = client
        self._actors = actors
        self._timeout_s = timeout_s
        self._on_events = on_events
        self._facts: Recent[Facts] = Recent()

    # -- who may

    async def authorize(self, principal: Principal, task: str) -> Facts:
        """Raises `NotFound` unless the task is the principal's."""
        facts = self._facts.get(task)
        if facts is None:
            document = require(principal, await self.store.task(task), f"task {task!r}")
            facts = self.remember(document)
        require(principal, facts, f"task {task!r}")
        return facts

    def remember(self, task: TaskDocument) -> Facts:
        return self._facts.put(task.id, Facts(task.owner, task.priority, task.overlap))

    # -- asking

    async def start(self, task: str, start: StartTask) -> bool:
        """False: it runs already. Raises `ActorStopped` if it has ended."""
        return await self._actors.entity(Task, task).start(
            start,
            summary=start.title[:200],
            search_attributes=TypedSearchAttributes(
                [SearchAttributePair(OWNER, start.owner), SearchAttributePair(STATUS, "active")]
            ),
        )

    async def ask(self, task: str, order: Request[Answer], *, ask_id: str | None = None) -> Answer:
        """The actor's answer, which is durable. Its events are on their way to the store.

        Raises:
            TaskClosed: the task takes nothing any more.
            NotFound: there is no such task, or subtask.
            GoatherdError: what it was refused with.
        """
        assert isinstance(order, Asked)
        entity = self._actors.entity(Task, task)

        async def once() -> Answer:
            acks = self.writer.acks(task)
            told = order.model_copy(update={"flusher": True, "acks": acks})
            try:
                answer: Answer = await entity.ask(told, id=ask_id, timeout_s=self._timeout_s)
            except BaseException:
                # Told twice is well. What is refused at the door is not even read.
                self.writer.put_back(task, acks)
                raise
            return answer

        answer = await ask_until_there(
            type(order).__name__, once, lambda: self._check_gone(task), actor=f"Task {task!r}"
        )
        self.writer.add(task, answer.events, answer.task)
        self._on_events(task, answer.events)
        return answer

    async def _check_gone(self, task: str) -> None:
        """Returns if the actor was just between two runs. Raises `TaskClosed` if it has ended."""
        document = await self.store.task(task)
        if document is None:
            raise NotFound(f"There is no task {task!r}.")
        if document.closed_at is None:
            ended = await how_ended(self._client, task)
            if ended is None:
                return
            await TaskReadSide(self.store).end(task, ended)
            document = await self.store.task(task) or document
        raise TaskClosed(f"The task is closed: {document.status.value}. Make a new one.")
