"""Durable actors from outside: ask and tell by id. What is asked of one actor at once travels together."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Generic, Self, TypeVar, overload
from uuid import uuid4

from temporalio.client import (
    Client,
    RPCTimeoutOrCancelledError,
    WithStartWorkflowOperation,
    WorkflowExecutionStatus,
    WorkflowUpdateFailedError,
)
from temporalio.common import TypedSearchAttributes, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from goatherd.actors._address import check_id
from goatherd.actors._errors import ActorStopped, MessageTooLarge
from goatherd.actors._message import Request, answer_type
from goatherd.actors._wire import adapter
from goatherd.actors.durable import _protocol as protocol
from goatherd.actors.durable._definition import DurableActor
from goatherd.actors.durable._lane import Lane, Sent, gone, late
from goatherd.actors.durable._sharded import ShardedEntity
from goatherd.contracts.model import Contract
from goatherd.errors import GoatherdError
from goatherd.payloads import PayloadStore, carries_large, data_converter
from goatherd.temporal import ActorGone, translate

Start = TypeVar("Start", bound=Contract)
Answer = TypeVar("Answer")

TASK_TIMEOUT = timedelta(seconds=5)
"""A worker that dies with an actor's task in hand holds the actor up for so long."""
MOST_BYTES = 1_500_000
"""Of a message, without a store for large ones. Temporal takes 2 MB. What is a bit more would hold up the
actor: its worker is told, and not the asker."""


class ActorSystem:
    """The durable actors of a Temporal namespace. One a process: it is what groups messages.

    `task_queue` is where actors that are started from here run; `ask_timeout_s`, how long an ask that does
    not say waits for its answer.
    """

    def __init__(
        self, client: Client, *, task_queue: str = "goatherd-actors", ask_timeout_s: float = 10.0
    ) -> None:
        self.client = client
        self.task_queue = task_queue
        self.ask_timeout_s = ask_timeout_s
        self._lanes: dict[str, Lane] = {}
        self._name = uuid4().hex
        self._numbers = itertools.count(1)

    @classmethod
    async def connect(
        cls,
        address: str = "127.0.0.1:7233",
        *,
        namespace: str = "default",
        task_queue: str = "goatherd-actors",
        payloads: PayloadStore | None = None,
    ) -> Self:
        """Connects to a Temporal server. `payloads`: where messages, answers and states are kept that are too
        large for it; the workers' clients need the same.

        Raises:
            RuntimeError: nobody answers there.
        """
        client = await Client.connect(address, namespace=namespace, data_converter=data_converter(payloads))
        return cls(client, task_queue=task_queue)

    @overload
    def entity(self, kind: type[DurableActor[Start]], entity_id: str) -> Entity[Start]: ...

    @overload
    def entity(self, kind: type[ShardedEntity], entity_id: str) -> Resident: ...

    def entity(
        self, kind: type[DurableActor[Any]] | type[ShardedEntity], entity_id: str
    ) -> Entity[Any] | Resident:
        """The actor of a type that has this id. Nothing is sent: it may not exist.

        Raises:
            Invalid: this can't be an id. A sharded entity's may have any characters, a durable actor's not
                those that are signs of an address.
        """
        if issubclass(kind, ShardedEntity):
            return Resident(self, kind, entity_id)
        return Entity(self, kind, check_id(entity_id))

    def check_size(self, message: Any) -> None:
        """Raises `MessageTooLarge`."""
        if carries_large(self.client.data_converter.payload_converter):
            return
        size = len(adapter(type(message)).dump_json(message))
        if size > MOST_BYTES:
            raise MessageTooLarge(
                f"{type(message).__name__} has {size} bytes, and Temporal takes 2 MB: connect with a store "
                "for large payloads (`payloads=` of `ActorSystem.connect`), as the actor's workers have to."
            )

    def new_id(self) -> str:
        """Of a message: never used before, by any process."""
        return f"{self._name}-{next(self._numbers)}"

    async def submit(
        self,
        entity_id: str,
        sent: Sent,
        *,
        together: int,
        start: Callable[[], Awaitable[None]] | None = None,
    ) -> Any:
        """Asks an actor together with what else is asked of it, `together` at once. `start`: see `Lane`."""
        lane = self._lanes.get(entity_id)
        if lane is None:
            lane = self._lanes[entity_id] = Lane(
                self.client,
                entity_id,
                self._name,
                task_queue=self.task_queue,
                together=together,
                start=start,
            )
        try:
            return await lane.submit(sent)
        finally:
            if not lane.waiting:
                self._lanes.pop(entity_id, None)


class Entity(Generic[Start]):
    """One durable actor, seen from outside. Cheap to make, equal to any other of its id."""

    __slots__ = ("_system", "id", "kind")

    def __init__(self, system: ActorSystem, kind: type[DurableActor[Start]], entity_id: str) -> None:
        self._system = system
        self.kind = kind
        self.id = entity_id

    async def start(
        self,
        start: Start | None = None,
        *,
        summary: str | None = None,
        search_attributes: TypedSearchAttributes | None = None,
    ) -> bool:
        """Starts the actor. False if it runs already. `summary` is shown with it in the Temporal UI.

        Raises:
            ActorStopped: it has been, and has stopped: ids are not used again.
            Unavailable: Temporal can't be reached.
        """
        handle = self._system.client.get_workflow_handle(self.id)
        try:
            try:
                await self._system.client.start_workflow(
                    self.kind.actor_type,
                    start,
                    id=self.id,
                    task_queue=self._system.task_queue,
                    id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                    task_timeout=TASK_TIMEOUT,
                    static_summary=summary,
                    search_attributes=search_attributes,
                )
            except WorkflowAlreadyStartedError:
                if (await handle.describe()).status is not WorkflowExecutionStatus.RUNNING:
                    raise ActorStopped(f"{self.id!r} has stopped.") from None
                return False
        except RPCError as error:
            raise translate(error) from error
        return True

    async def ask(
        self,
        request: Request[Answer],
        *,
        id: str | None = None,
        timeout_s: float | None = None,
        start: Start | None = None,
    ) -> Answer:
        """The actor's answer. Repeated with the same `id`, the request counts once, and is answered the same.

        With `start`, an actor that does not exist is started with it, and asked.

        Raises:
            ActorStopped: it has stopped or does not exist: at once.
            Busy: too much waits for it already.
            MessageTooLarge: it can't be sent.
            DeadlineExceeded: no answer in time; the request may be applied all the same.
            Unavailable: Temporal can't be reached.
            GoatherdError: the error that it was refused with.
            TypeError: the actor's type has no such request.
        """
        self._check(request)
        sent = Sent(request, id or self._system.new_id(), timeout_s or self._system.ask_timeout_s)
        if start is not None:
            answer = await self._ask_or_start(sent, start)
        else:
            answer = await self._system.submit(self.id, sent, together=self.kind.most_together)
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
            raise _translated(error, self.id) from error

    async def view(self) -> protocol.View:
        """The tree as it is, for people and tests. A query: it costs no history."""
        handle = self._system.client.get_workflow_handle(self.id)
        try:
            view: protocol.View = await handle.query(protocol.VIEW, result_type=protocol.View)
        except RPCError as error:
            raise _translated(error, self.id) from error
        return view

    def _check(self, message: Any) -> None:
        if self.kind.messages.get(type(message).__name__) is not type(message):
            raise TypeError(f"{self.kind.actor_type} has no message {type(message).__name__}.")
        self._system.check_size(message)

    async def _ask_or_start(self, sent: Sent, start: Start) -> Any:
        operation: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            self.kind.actor_type,
            start,
            id=self.id,
            task_queue=self._system.task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            task_timeout=TASK_TIMEOUT,
        )
        # A task of its own: the client makes a timeout of what cancels it, also if its asker was cancelled.
        asking = asyncio.ensure_future(
            self._system.client.execute_update_with_start_workflow(
                type(sent.message).__name__,
                sent.message,
                start_workflow_operation=operation,
                id=sent.id,
                result_type=answer_type(type(sent.message)),
                rpc_timeout=timedelta(seconds=sent.timeout_s),
            )
        )
        # What the start comes to is told twice, by the call and here.
        started = asyncio.ensure_future(operation.workflow_handle())
        for task in (asking, started):
            task.add_done_callback(_retrieved)
        asking.add_done_callback(lambda _: started.cancel())
        deadline = asyncio.get_running_loop().time() + sent.timeout_s
        try:
            await asyncio.wait((asking,), timeout=sent.timeout_s)
            if asking.done():
                return asking.result()
        except WorkflowAlreadyStartedError as error:
            raise ActorStopped(f"{self.id!r} has stopped.") from error
        except RPCTimeoutOrCancelledError:
            pass
        except (WorkflowUpdateFailedError, RPCError):
            # It is there now, or something is in the way: the usual path tells, and counts it once.
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s > 0:
                sent = replace(sent, timeout_s=left_s)
                return await self._system.submit(self.id, sent, together=self.kind.most_together)
        finally:
            asking.cancel()
        raise late(self.id, sent.timeout_s, self._system.task_queue)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entity) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<{self.kind.actor_type} {self.id}>"


class Resident:
    """One entity of a sharded type, seen from outside. It always exists: there is nothing to start."""

    __slots__ = ("_system", "id", "kind", "shard")

    def __init__(self, system: ActorSystem, kind: type[ShardedEntity], entity_id: str) -> None:
        """Raises `Invalid` if the id can't be one."""
        self._system = system
        self.kind = kind
        self.id = entity_id
        self.shard = kind.address(entity_id).partition("/")[0]

    async def ask(
        self, request: Request[Answer], *, id: str | None = None, timeout_s: float | None = None
    ) -> Answer:
        """The entity's answer; see `Entity.ask`. An `id` is one of this entity: another's may be the same.

        Raises:
            ActorStopped: it stopped before it answered.
            Busy: too much waits for its shard already.
            MessageTooLarge: it can't be sent.
            DeadlineExceeded: no answer in time; the request may be applied all the same.
            Unavailable: Temporal can't be reached.
            GoatherdError: the error that it was refused with.
            TypeError: its type has no such request.
        """
        self._check(request)
        within = timeout_s or self._system.ask_timeout_s
        sent = Sent(request, self._id(id) or self._system.new_id(), within, self.id)
        answer: Answer = await self._system.submit(
            self.shard, sent, together=self.kind.most_together, start=self._start
        )
        return answer

    async def tell(self, message: Any, *, id: str | None = None) -> None:
        """Sends a message; returned when Temporal has it, and so it will not be lost.

        Raises:
            Unavailable: Temporal can't be reached.
            TypeError: its type has no such message.
        """
        self._check(message)
        name = type(message).__name__
        inputs = [message, protocol.Meta(id=self._id(id) or str(uuid4()), entity=self.id)]
        try:
            await self._system.client.get_workflow_handle(self.shard).signal(name, args=inputs)
        except RPCError as error:
            translated = translate(error)
            if not isinstance(translated, ActorGone):
                raise translated from error
            await self._start(name, inputs)

    async def view(self) -> protocol.View:
        """The entity and those below it, as they are in memory; nobody, if it is not there."""
        handle = self._system.client.get_workflow_handle(self.shard)
        own = self.kind.address(self.id)
        try:
            shard: protocol.View = await handle.query(protocol.VIEW, result_type=protocol.View)
        except RPCError as error:
            raise _translated(error, self.shard) from error
        actors = [
            one for one in shard.actors if one["address"] == own or one["address"].startswith(f"{own}/")
        ]
        return shard.model_copy(update={"actors": actors})

    async def _start(self, signal: str | None = None, inputs: Sequence[Any] = ()) -> None:
        """Of its shard, with a first signal, if it does not run."""
        try:
            await self._system.client.start_workflow(
                self.kind.actor_type,
                id=self.shard,
                task_queue=self._system.task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                task_timeout=TASK_TIMEOUT,
                start_signal=signal,
                start_signal_args=inputs,
            )
        except RPCError as error:
            raise translate(error) from error

    def _id(self, message_id: str | None) -> str | None:
        """Of a message, among all that its shard gets."""
        return None if message_id is None else f"{self.id}/{message_id}"

    def _check(self, message: Any) -> None:
        if self.kind.messages.get(type(message).__name__) is not type(message):
            raise TypeError(f"{self.kind.entity_type} has no message {type(message).__name__}.")
        self._system.check_size(message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Resident) and (other.kind, other.id) == (self.kind, self.id)

    def __hash__(self) -> int:
        return hash((self.shard, self.id))

    def __repr__(self) -> str:
        return f"<{self.kind.entity_type} {self.id}>"


def _retrieved(task: asyncio.Future[Any]) -> None:
    """Nobody else may ask for what it failed with."""
    if not task.cancelled():
        task.exception()


def _translated(error: RPCError, entity_id: str) -> GoatherdError:
    translated = translate(error)
    return gone(entity_id) if isinstance(translated, ActorGone) else translated
