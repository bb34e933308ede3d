"""The asynchronous kit: actors that really run, with probes between them and a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from goatherd.actors._address import check_id
from goatherd.actors._behavior import Behavior
from goatherd.actors._duration import Duration, seconds
from goatherd.actors._environment import DeadLetter
from goatherd.actors._local import LocalSystem
from goatherd.actors._message import Request
from goatherd.actors._ref import Ref
from goatherd.actors._supervision import Rule, Supervised
from goatherd.actors.testkit._probe import Probe
from goatherd.actors.testkit._time import ManualTime, Time
from goatherd.contracts.model import Contract

if TYPE_CHECKING:
    from goatherd.actors.persistence._journal import Journal

M = TypeVar("M")
Answer = TypeVar("Answer")


class ActorTestKit:
    """A system of actors in plain asyncio. `async with` stops them all at the end.

    Its methods are those of `DurableTestKit`, and wait where that one does: a test that is given an `AnyKit`
    runs on both.

    Args:
        time: `ManualTime`, as it is if none is given, or `RealTime`.
        patience: real time after which waiting for something is a failure.
        seed: of the actors' luck.
        journal: of event-sourced actors, if they have one.
    """

    def __init__(
        self,
        name: str = "test",
        *,
        time: Time | None = None,
        patience: Duration = "3s",
        seed: int = 0,
        journal: Journal | None = None,
    ) -> None:
        self._time = time or ManualTime()
        self._patience_s = seconds(patience)
        self.dead_letters: list[DeadLetter] = []
        # The system's own alarm goes by the event loop's clock. What it rings is what is due by ours:
        # nothing, if that has not been moved.
        self._system = LocalSystem(
            name,
            now=self._time.now,
            luck=Random(seed),
            on_dead_letter=self.dead_letters.append,
            journal=journal,
        )
        self._time.attach(self._system.runtime, self._patience_s)
        self._probes = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._system.close()

    async def spawn(
        self,
        behavior: Behavior[M] | Supervised[M],
        name: str,
        *,
        supervise: Sequence[Rule] = (),
        mailbox: int | None = None,
        stash: int | None = None,
    ) -> Ref[M]:
        """A top-level actor, which has started when this returns. See `Context.spawn`."""
        ref = self._system.spawn(behavior, name, supervise=supervise, mailbox=mailbox, stash=stash)
        await self._time.settle()
        return ref

    async def start(self, kind: Any, actor_id: str, start: Contract | None = None) -> Ref[Any]:
        """What a `DurableActor` type starts with, at the address that it would have."""
        # Without its workflow: `behavior` is all that there is of it here.
        behavior = kind.__new__(kind).behavior(start or kind.start_type())
        ref = self._system.runtime.spawn(behavior, check_id(actor_id), address=actor_id)
        await self._time.settle()
        return ref

    def probe(self, name: str | None = None) -> Probe[Any]:
        """An actor for the test to look into. None: a name of the kit's choice."""
        self._probes += 1
        return Probe(self._system.runtime, self._time, name or f"probe-{self._probes}")

    async def tell(self, ref: Ref[M], message: M) -> None:
        """As `ref.tell`, and on a host where sending takes time, after that."""
        ref.tell(message)

    async def ask(
        self,
        ref: Ref[Any],
        request: Request[Answer] | Callable[[Ref[Answer]], Any],
        *,
        timeout: Duration = 5.0,
    ) -> Answer:
        """The answer to a request. `timeout` goes by the kit's clock. See `LocalSystem.ask`.

        Raises:
            AssertionError: there was no answer as long as the kit has patience; does the clock stand still?
        """
        try:
            async with asyncio.timeout(self._patience_s) as patience:
                return await self._system.ask(ref, request, timeout=timeout)
        except TimeoutError:
            if not patience.expired():
                raise
            raise AssertionError(f"{ref!r} did not answer {request!r} in {self._patience_s} s.") from None

    async def advance(self, duration: Duration) -> None:
        """Has so much time pass: at once if it is manual."""
        await self._time.advance(duration)

    async def settle(self) -> None:
        """Until no actor has anything to do by itself."""
        await self._time.settle()

    async def stop(self, ref: Ref[Any]) -> None:
        """Stops a top-level actor, and waits until it has stopped."""
        await self._system.stop(ref)
