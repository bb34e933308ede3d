"""The kit on Temporal: the same test as with `ActorTestKit`, of actors inside of a workflow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self, TypeVar
from uuid import uuid4

from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkflowRunner

from goatherd.actors._behavior import Behavior
from goatherd.actors._duration import Duration, seconds
from goatherd.actors._errors import AskTimeout
from goatherd.actors._fields import AnySupervised
from goatherd.actors._message import Request
from goatherd.actors._ref import Ref, resolving
from goatherd.actors._supervision import Rule, Supervised
from goatherd.actors._wire import adapter, read, write, write_error
from goatherd.actors.durable import _protocol as protocol
from goatherd.actors.durable._client import ActorSystem, Entity
from goatherd.actors.testkit import _durable_host as host
from goatherd.actors.testkit._mail import Mail, shown
from goatherd.actors.testkit._receiving import Receiving
from goatherd.contracts.model import Contract
from goatherd.errors import DeadlineExceeded, GoatherdError

M = TypeVar("M")
Kind = TypeVar("Kind")
Answer = TypeVar("Answer")


class DurableTestKit:
    """A durable actor whose children a test spawns, with a worker of its own. `async with` ends both.

    Each of its methods is an update of one workflow, so that what it sends is in order. As on any durable
    host, behaviors have to be registered, messages classes of a module, and refs of its actors can't be told
    by hand: use `tell`. The clock is the server's: `advance` waits, or has a time-skipping server skip.

    Args:
        environment: the Temporal server, as `temporalio.testing` starts it. Its client needs the pydantic
            converter.
        actors: the `DurableActor` types that `start` and `Context.start` need; activities likewise.
        patience: after which an expectation that is not met fails.
        asks_per_run: after so many calls of the kit the workflow continues as new. Few of them prove that
            the actors under test live on.
        workflow_runner: None: without Temporal's sandbox.
    """

    def __init__(
        self,
        environment: WorkflowEnvironment,
        *,
        actors: Sequence[type[Any]] = (),
        activities: Sequence[Callable[..., Any]] = (),
        patience: Duration = "5s",
        asks_per_run: int = 1_000,
        workflow_runner: WorkflowRunner | None = None,
    ) -> None:
        self._environment = environment
        self._patience_s = seconds(patience)
        self._asks_per_run = asks_per_run
        self._system = ActorSystem(environment.client, task_queue=f"testkit-{uuid4()}")
        self._worker = Worker(
            environment.client,
            task_queue=self._system.task_queue,
            workflows=[host.TestHost, *actors],
            activities=activities,
            workflow_runner=workflow_runner or UnsandboxedWorkflowRunner(),
        )
        self._host = self._system.entity(host.TestHost, self._system.task_queue)
        self._started: dict[str, Entity[Any]] = {}
        self._probes = 0
        self._later: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._worker.__aenter__()
        await self._host.start(host.Test(asks_per_run=self._asks_per_run))
        return self

    async def __aexit__(self, *exc: Any) -> None:
        with suppress(Exception):  # The test has failed by what it says already, if it has.
            await self._in_order()
        for actor_id in (self._host.id, *self._started):
            with suppress(RPCError):
                await self._system.client.get_workflow_handle(actor_id).terminate("the test is over")
        await self._worker.__aexit__(*exc)

    async def spawn(
        self,
        behavior: Behavior[M] | Supervised[M],
        name: str,
        *,
        supervise: Sequence[Rule] = (),
        mailbox: int | None = None,
        stash: int | None = None,
    ) -> Ref[M]:
        """A child of the host, which has started when this returns. See `Context.spawn`.

        Raises:
            NotDurable: the behavior can't be written down.
        """
        one = behavior if isinstance(behavior, Supervised) else Supervised(behavior, ())
        one = Supervised(one.behavior, (*one.rules, *supervise))
        written = adapter(AnySupervised).dump_python(one, mode="json")
        module = type(one.behavior).__module__
        return _HostRef(await self._call(host.Spawn(name, module, written, mailbox, stash)))

    async def start(self, kind: Any, actor_id: str, start: Contract | None = None) -> Ref[Any]:
        """A durable actor of its own: a workflow of a type in `actors`."""
        await self._in_order()
        entity = self._started[actor_id] = self._system.entity(kind, actor_id)
        await entity.start(start)
        return _HostRef(actor_id)

    def probe(self, name: str | None = None) -> DurableProbe[Any]:
        """An actor for the test to look into. None: a name of the kit's choice."""
        self._probes += 1
        name = name or f"probe-{self._probes}"
        probe: DurableProbe[Any] = DurableProbe(self, name, f"{self._host.id}/{name}#probe{self._probes}")
        self._then(host.SpawnProbe(name, probe.ref.address))
        return probe

    async def tell(self, ref: Ref[M], message: M) -> None:
        """Sends a message; the actor has handled what it could when this returns."""
        entity = self._started.get(ref.address)
        if entity is None:
            await self._call(host.Tell(ref.address, write(message)))
        else:
            await self._in_order()
            await entity.tell(message)

    async def ask(
        self,
        ref: Ref[Any],
        request: Request[Answer] | Callable[[Ref[Answer]], Any],
        *,
        timeout: Duration = 5.0,
    ) -> Answer:
        """The answer to a request. `timeout` goes by the server's clock. See `LocalSystem.ask`."""
        entity, timeout_s = self._started.get(ref.address), seconds(timeout)
        if timeout_s <= 0:
            raise ValueError("An ask needs a positive timeout.")
        answer: Answer
        if entity is not None and isinstance(request, Request):
            await self._in_order()
            try:
                answer = await entity.ask(request, timeout_s=timeout_s)
            except DeadlineExceeded as error:
                raise AskTimeout(error.message) from error
            return answer
        made = request if isinstance(request, Request) else request(_HostRef(host.ANSWER))
        written = await self._call(host.Ask(ref.address, write(made), timeout_s), timeout_s)
        answer = self._read(written)
        return answer

    async def advance(self, duration: Duration) -> None:
        """Has so much time pass, as the actors see it; what was due is done. In other workflows it may still
        be under way."""
        passing = self._call(host.Pass(seconds(duration)), seconds(duration))
        if self._environment.supports_time_skipping:
            await asyncio.gather(passing, self._environment.sleep(seconds(duration)))
        else:
            await passing

    async def settle(self) -> None:
        """Until no actor of the host has anything to do by itself."""
        await self.advance(0.0)

    async def stop(self, ref: Ref[Any]) -> None:
        """Stops an actor that was spawned or started here, and waits until it has stopped."""
        if ref.address not in self._started:
            await self._call(host.Stop(ref.address))
            return
        await self._in_order()
        handle = self._system.client.get_workflow_handle(ref.address)
        with suppress(RPCError, WorkflowFailureError):
            await handle.signal(protocol.STOP)
            await handle.result()

    # -- for its probes

    def _then(self, call: Request[Any]) -> None:
        """Before anything else that is sent from now on."""
        before = self._later

        async def send() -> None:
            if before is not None:
                await before
            await self._host.ask(call, timeout_s=self._patience_s)

        self._later = asyncio.ensure_future(send())

    async def _in_order(self) -> None:
        while (later := self._later) is not None:
            await asyncio.shield(later)
            if self._later is later:
                self._later = None

    async def _call(self, call: Request[Answer], longer_s: float = 0.0) -> Answer:
        await self._in_order()
        try:
            return await self._host.ask(call, timeout_s=self._patience_s + longer_s)
        except DeadlineExceeded as error:
            raise AssertionError(f"The host did not answer {call!r}: does its workflow fail?") from error

    def _read(self, written: Any) -> Any:
        with resolving(_HostRef):
            return read(written)


class DurableProbe(Receiving[M]):
    """`Probe`, on a durable host: an actor there that keeps what comes."""

    def __init__(self, kit: DurableTestKit, name: str, address: str) -> None:
        self._kit = kit
        super().__init__(Mail(name))
        self.ref: Ref[M] = _HostRef(address)

    async def expect_nothing(self, during: Duration = 0.1) -> None:
        """Nothing waits, and nothing comes `during` so much time."""
        await self._kit.advance(during)
        await self._fetch(0.0)
        self._mail.take_none()

    async def expect_terminated(self, ref: Ref[Any]) -> None:
        """Watches an actor, and waits until it has stopped; one that has already will do."""
        terminated = self._mail.terminated
        if ref not in terminated:
            await self._kit._call(host.Watch(self.ref.address, ref.address))
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._kit._patience_s
        while ref not in terminated:
            left_s = give_up - loop.time()
            if left_s <= 0:
                raise AssertionError(
                    f"{self._mail.owner} expected that {ref!r} stops, but only {shown(terminated)} did."
                )
            await self._fetch(left_s)

    async def _arrival(self) -> None:
        # If nothing comes, what is taken next says so. An actor may have stopped instead.
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._kit._patience_s
        while not self._mail.has_messages and (left_s := give_up - loop.time()) > 0:
            await self._fetch(left_s)

    async def _fetch(self, patience_s: float) -> None:
        address = self.ref.address
        found = await self._kit._call(host.Fetch(address, patience_s), patience_s)
        for letter in found["letters"]:
            asker = _Asker(self._kit, address, letter["number"]) if letter["is_asked"] else None
            self._mail.put(self._kit._read(letter["message"]), asker)
        for one in found["terminated"]:
            self._mail.put_terminated(_HostRef(one))


class _HostRef(Ref[Any]):
    """The address of an actor of the host, in the test."""

    __slots__ = ()

    def tell(self, message: Any) -> None:
        raise TypeError(f"{self.address} is not in this process: use the kit's `tell`.")

    def send(self, message: Any, reply_to: Ref[Any] | None) -> None:
        self.tell(message)

    def fail(self, error: GoatherdError) -> None:
        self.tell(error)


class _Asker(Ref[Any]):
    """Who waits for a probe's answer."""

    __slots__ = ("_kit", "_number")

    def __init__(self, kit: DurableTestKit, probe: str, number: int) -> None:
        super().__init__(probe)
        self._kit = kit
        self._number = number

    def tell(self, message: Any) -> None:
        self._kit._then(host.Answer(self.address, self._number, write(message)))

    def fail(self, error: GoatherdError) -> None:
        self._kit._then(host.Answer(self.address, self._number, None, write_error(error)))
