"""The way to tasks' actors: who may ask, what is asked, and what becomes of the answer.

Each request takes along what has been written to the store since the last; each answer brings events, which
are written behind, and shown at once to those who wait here for work.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any, Protocol, TypeVar

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError

from activities.task_ports import TaskStore
from api.task_writer import TaskWriter
from goatherd.actors import ActorStopped
from goatherd.contracts.request import Request
from goatherd.contracts.task import Task as TaskDocument
from goatherd.contracts.task import TaskEvent, TaskStatus
from goatherd.contracts.task_messages import Asked, Changed, StartTask, TaskOutcome
from goatherd.errors import GoatherdError, NotFound, TaskClosed, Unavailable
from goatherd.security.access import Principal, require
from goatherd.telemetry import get_logger, metrics
from goatherd.temporal import OWNER, STATUS, is_gone, translate
from workflows.task import Task

_REMEMBERED = 50_000
_GONE_RETRIES = 5
_RPC_TIMEOUT = timedelta(seconds=5)
_REASONS = {
    WorkflowExecutionStatus.TERMINATED: "terminated",
    WorkflowExecutionStatus.CANCELED: "cancelled",
    WorkflowExecutionStatus.FAILED: "failed",
    WorkflowExecutionStatus.TIMED_OUT: "timed-out",
}

Answer = TypeVar("Answer", bound=Changed)
OnEvents = Callable[[str, Sequence[TaskEvent]], None]

log = get_logger(__name__)


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
        self._facts: OrderedDict[str, Facts] = OrderedDict()

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
        facts = self._facts[task.id] = Facts(task.owner, task.priority, task.overlap)
        if len(self._facts) > _REMEMBERED:
            self._facts.popitem(last=False)
        return facts

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
        name = type(order).__name__
        for _ in range(_GONE_RETRIES):
            acks = self.writer.acks(task)
            told = order.model_copy(update={"flusher": True, "acks": acks})
            outcome, started = "ok", perf_counter()
            try:
                answer: Answer = await self._actors.entity(Task, task).ask(
                    told, id=ask_id, timeout_s=self._timeout_s
                )
            except ActorStopped:
                outcome = "stopped"
                await self._check_gone(task)
            except BaseException as error:
                # Told twice is well. What is refused at the door is not even read.
                self.writer.put_back(task, acks)
                outcome = error.code if isinstance(error, GoatherdError) else "cancelled"
                raise
            else:
                self.writer.add(task, answer.events, answer.task)
                self._on_events(task, answer.events)
                return answer
            finally:
                metrics.ASKS.labels(name, outcome).inc()
                metrics.ASK_SECONDS.labels(name).observe(perf_counter() - started)
        raise Unavailable(f"Task {task!r} can't be reached right now. Try again.")

    async def _check_gone(self, task: str) -> None:
        """Returns if the actor was just between two runs. Raises `TaskClosed` if it has ended."""
        document = await self.store.task(task)
        if document is None:
            raise NotFound(f"There is no task {task!r}.")
        if document.closed_at is None:
            ended = await end_of(self._client, task)
            if ended is None:
                return
            status, reason = ended
            log.warning("task closed from outside", task=task, reason=reason)
            await self.store.close_task(task, status, reason, datetime.now(UTC))
            document = await self.store.task(task) or document
        raise TaskClosed(f"The task is closed: {document.status.value}. Make a new one.")


async def end_of(client: Client, task: str) -> tuple[str, str] | None:
    """Status and reason of a task whose workflow has ended; None: it runs.

    Raises `Unavailable` if Temporal can't say.
    """
    handle = client.get_workflow_handle(task, result_type=TaskOutcome)
    try:
        description = await handle.describe(rpc_timeout=_RPC_TIMEOUT)
        if description.status is WorkflowExecutionStatus.COMPLETED:
            outcome: TaskOutcome = await handle.result()
            return outcome.status, outcome.reason or "closed"
    except RPCError as error:
        if is_gone(error):
            return TaskStatus.CANCELLED, "lost"
        raise translate(error) from error
    if description.status in (
        WorkflowExecutionStatus.RUNNING,
        WorkflowExecutionStatus.CONTINUED_AS_NEW,
        None,
    ):
        return None
    return TaskStatus.CANCELLED, _REASONS.get(description.status, "closed")
