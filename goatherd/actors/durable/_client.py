"""Durable actors from outside: ask and tell by id. What is asked of one actor at once travels together."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, Self, TypeVar
from uuid import uuid4

from temporalio.client import Client, WithStartWorkflowOperation, WorkflowUpdateFailedError
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from goatherd.actors._errors import ActorStopped
from goatherd.actors._message import Request, answer_type
from goatherd.actors._wire import adapter
from goatherd.actors.durable import _protocol as protocol
from goatherd.actors.durable._definition import DurableActor
from goatherd.coalesce import Coalescer
from goatherd.contracts.model import Contract
from goatherd.errors import GoatherdError, TooManyRequests, from_code
from goatherd.temporal import ActorGone, execute, translate

Start = TypeVar("Start", bound=Contract)
Answer = TypeVar("Answer")

MOST_TOGETHER = 500
"""Messages of one delivery: the actor has to handle them within Temporal's two seconds."""
MOST_WAITING = 10_000
"""Messages that may wait for one actor in this process; more of them are refused at once."""
TASK_TIMEOUT = timedelta(seconds=5)
"""A worker that dies with an actor's task in hand holds the actor up for so long."""


class Busy(TooManyRequests):
    """So many messages wait for the actor here already that another would wait for too long."""

    code = "actor-busy"


@dataclass(frozen=True, slots=True)
class _Sent:
    message: Any
    id: str
    timeout_s: float


class ActorSystem:
    """The durable actors of a Temporal namespace. One a process: it is what groups messages.

    `task_queue` is where actors that are started from here run.
    """

    def __init__(self, client: Client, *, task_queue: str = "goatherd-actors") -> None:
        self.client = client
        self.task_queue = task_queue
        self._lanes: dict[str, _Lane] = {}
        self._name = uuid4().hex
        self._numbers = itertools.count(1)

    @classmethod
    async def connect(
        cls,
        address: str = "127.0.0.1:7233",
        *,
        namespace: str = "default",
        task_queue: str = "goatherd-actors",
    ) -> Self:
        """Connects to a Temporal server.

        Raises:
            RuntimeError: nobody answers there.
        """
        client = await Client.connect(address, namespace=namespace, data_converter=pydantic_data_converter)
        return cls(client, task_queue=task_queue)

    def entity(self, kind: type[DurableActor[Start]], entity_id: str) -> Entity[Start]:
        """The actor of a type that has this id. Nothing is sent: it may not exist."""
        return Entity(self, kind, entity_id)

    def new_id(self) -> str:
        """Of a message: never used before, by any process."""
        return f"{self._name}-{next(self._numbers)}"

    def lane(self, entity_id: str) -> _Lane:
        """What waits for one actor."""
        lane = self._lanes.get(entity_id)
        if lane is None:
            lane = self._lanes[entity_id] = _Lane(self, entity_id)
        return lane

    def forget(self, entity_id: str) -> None:
        """Nothing waits for the actor any more."""
        self._lanes.pop(entity_id, None)


class Entity(Generic[Start]):
    """One durable actor, seen from outside. Cheap to make, equal to any other of its id."""

    __slots__ = ("_system", "id", "kind")

    def __init__(self, system: ActorSystem, kind: type[DurableActor[Start]], entity_id: str) -> None:
        self._system = system
        self.kind = kind
        self.id = entity_id

    async def start(self, start: Start | None = None) -> bool:
        """Starts the actor. False if it runs already.

        Raises:
            ActorStopped: it has been, and has stopped: ids are not used again.
        """
        try:
            handle = await self._system.client.start_workflow(
                self.kind.actor_type,
                start,
                id=self.id,
                task_queue=self._system.task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                task_timeout=TASK_TIMEOUT,
            )
        except WorkflowAlreadyStartedError as error:
            raise ActorStopped(f"{self.id!r} has stopped.") from error
        except RPCError as error:
            raise translate(error) from error
        return handle.first_execution_run_id is not None

    async def ask(
        self,
        request: Request[Answer],
        *,
        id: str | None = None,
        timeout_s: float = 10.0,
        start: Start | None = None,
    ) -> Answer:
        """The actor's answer. Repeated with the same `id`, the request counts once, and is answered the same.

        With `start`, an actor that does not exist is started with it, and asked.

        Raises:
            ActorStopped: it has stopped or does not exist: at once.
            Busy: too much waits for it already.
            DeadlineExceeded: no answer in time; the request may be applied all the same.
            Unavailable: Temporal can't be reached.
            GoatherdError: the error that it was refused with.
            TypeError: the actor's type has no such request.
        """
        self._check(request)
        sent = _Sent(request, id or self._system.new_id(), timeout_s)
        if start is not None:
            answer = await self._ask_or_start(sent, start)
        else:
            answer = await self._system.lane(self.id).submit(sent)
        return answer  # type: ignore[no-any-return]

    async def tell(self, message: Any, *, id: str | None = None) -> None:
        """Sends a message; returned when Temporal has it, and so it will not be lost.

        Raises:
            ActorStopped: the actor has stopped or does not exist.
            Unavailable: Temporal can't be reached.
            TypeError: the actor's type has no such message.
        """
        self._check(message)
        handle = self._system.client.get_workflow_handle(self.id)
        try:
            await handle.signal(type(message).__name__, args=[message, protocol.Meta(id=id or str(uuid4()))])
        except RPCError as error:
            raise _gone(translate(error), self.id) from error

    async def view(self) -> protocol.View:
        """The tree as it is, for people and tests. A query: it costs no history."""
        handle = self._system.client.get_workflow_handle(self.id)
        try:
            view: protocol.View = await handle.query(protocol.VIEW, result_type=protocol.View)
        except RPCError as error:
            raise _gone(translate(error), self.id) from error
        return view

    def _check(self, message: Any) -> None:
        if self.kind.messages.get(type(message).__name__) is not type(message):
            raise TypeError(f"{self.kind.actor_type} has no message {type(message).__name__}.")

    async def _ask_or_start(self, sent: _Sent, start: Start) -> Any:
        operation: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            self.kind.actor_type,
            start,
            id=self.id,
            task_queue=self._system.task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            task_timeout=TASK_TIMEOUT,
        )
        try:
            return await self._system.client.execute_update_with_start_workflow(
                type(sent.message).__name__,
                sent.message,
                start_workflow_operation=operation,
                id=sent.id,
                result_type=answer_type(type(sent.message)),
                rpc_timeout=timedelta(seconds=sent.timeout_s),
            )
        except WorkflowAlreadyStartedError as error:
            raise ActorStopped(f"{self.id!r} has stopped.") from error
        except (WorkflowUpdateFailedError, RPCError):
            # It is there now, or something is in the way: the usual path tells, and counts it once.
            return await self._system.lane(self.id).submit(sent)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entity) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<{self.kind.actor_type} {self.id}>"


class _Lane:
    """What this process asks of one actor: one call at a time, with all that waits."""

    def __init__(self, system: ActorSystem, entity_id: str) -> None:
        self._system = system
        self._id = entity_id
        self._waiting = 0
        self._calls: Coalescer[_Sent, Any] = Coalescer(self._send, max_batch=MOST_TOGETHER)

    async def submit(self, sent: _Sent) -> Any:
        if self._waiting >= MOST_WAITING:
            raise Busy(f"{MOST_WAITING} messages wait for {self._id!r} already. Try again in a moment.")
        self._waiting += 1
        try:
            answer = await self._calls.submit(sent)
            if isinstance(answer, _Slow):
                answer = await self._single(sent)
            return answer
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._system.forget(self._id)

    async def _send(self, batch: Sequence[_Sent]) -> Sequence[Any]:
        if len(batch) == 1:
            return [await self._single(batch[0])]
        items = [
            protocol.Item(
                name=type(sent.message).__name__,
                value=adapter(type(sent.message)).dump_python(sent.message, mode="json"),
                id=sent.id,
            )
            for sent in batch
        ]
        outcomes: protocol.Outcomes = await self._execute(
            protocol.DELIVER,
            protocol.Delivery(items=items),
            protocol.Outcomes,
            str(uuid4()),
            max(sent.timeout_s for sent in batch),
        )
        return [_result(sent, outcome) for sent, outcome in zip(batch, outcomes.items, strict=True)]

    async def _single(self, sent: _Sent) -> Any:
        kind = type(sent.message)
        return await self._execute(kind.__name__, sent.message, answer_type(kind), sent.id, sent.timeout_s)

    async def _execute(self, name: str, value: Any, answer: Any, ask_id: str, timeout_s: float) -> Any:
        """Asks until it is answered or the time is over: an actor that went on to its next run, again."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            left_s = max(deadline - loop.time(), 0.001)
            try:
                return await execute(
                    self._system.client, self._id, name, value, answer, timeout_s=left_s, ask_id=ask_id
                )
            except GoatherdError as error:
                if error.code != protocol.MOVED:
                    raise _gone(error, self._id) from error


class _Slow:
    """The actor has taken the request, and will answer later."""


def _result(sent: _Sent, outcome: protocol.Outcome) -> Any:
    if outcome.code is not None:
        return from_code(outcome.code, outcome.message or "")
    if outcome.slow:
        return _Slow()
    return adapter(answer_type(type(sent.message))).validate_python(outcome.value)


def _gone(error: GoatherdError, entity_id: str) -> GoatherdError:
    if isinstance(error, ActorGone):
        return ActorStopped(f"{entity_id!r} has stopped, or does not exist.")
    return error
