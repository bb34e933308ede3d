"""A system of actors in plain asyncio: nothing is kept when the process ends."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from goatherd.actors._behavior import Behavior
from goatherd.actors._cell import Cell
from goatherd.actors._duration import Duration, seconds
from goatherd.actors._environment import DeadLetter, Work
from goatherd.actors._errors import NotDurable
from goatherd.actors._message import Request, display
from goatherd.actors._receptionist import ReceptionistMessage
from goatherd.actors._ref import Ref
from goatherd.actors._runtime import Runtime
from goatherd.actors._supervision import Rule, Supervised
from goatherd.errors import GoatherdError

if TYPE_CHECKING:
    from goatherd.actors.persistence._journal import Journal

M = TypeVar("M")
Answer = TypeVar("Answer")

_BURST = 10_000
"""Messages handled before the event loop's other work has its turn."""

_YIELD_EVERY = 32

_log = logging.getLogger("goatherd.actors")


class LocalSystem:
    """Actors of this process, on the running event loop. `async with` stops them all at the end.

    `now` and `luck` are for tests that want a clock or a random generator of their own. `journal` is where
    event-sourced actors keep their events; without one, these live as long as the actor.
    """

    def __init__(
        self,
        name: str = "local",
        *,
        now: Callable[[], float] = time.time,
        luck: random.Random | None = None,
        on_dead_letter: Callable[[DeadLetter], None] | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._environment = _Asyncio(now, luck or random.Random(), on_dead_letter, journal)
        self.runtime = Runtime(name, self._environment)
        self._environment.runtime = self.runtime
        self.runtime.on_top_stopped = self._top_stopped
        self._asked = 0
        self._ends: dict[str, asyncio.Future[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def spawn(
        self,
        behavior: Behavior[M] | Supervised[M],
        name: str,
        *,
        supervise: Sequence[Rule] = (),
        mailbox: int | None = None,
        stash: int | None = None,
    ) -> Ref[M]:
        """A top-level actor. See `Context.spawn`."""
        return self.runtime.spawn(behavior, name, rules=supervise, mailbox=mailbox, stash=stash)

    @property
    def receptionist(self) -> Ref[ReceptionistMessage]:
        """Whom to ask who offers a service: see `Register`, `Find` and `Subscribe`."""
        return self.runtime.receptionist

    async def ask(
        self,
        ref: Ref[Any],
        request: Request[Answer] | Callable[[Ref[Answer]], Any],
        *,
        timeout: Duration = 5.0,
    ) -> Answer:
        """The answer to a request. Instead of one, a function may make a message of the answer's address.

        Raises:
            AskTimeout, ActorStopped, ActorFailed, MailboxFull, Unhandled: there is no answer.
            GoatherdError: the error that it was refused with.
            ValueError: the timeout is not positive.
        """
        timeout_s = seconds(timeout)
        if timeout_s <= 0:
            raise ValueError("An ask needs a positive timeout.")
        self._check(ref, request)
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def done(answer: Any, error: GoatherdError | None) -> None:
            if answered.done():
                return
            if error is None:
                answered.set_result(answer)
            else:
                answered.set_exception(error)

        promise = self.runtime.promise(done, self._environment.now() + timeout_s)
        ref.send(request if isinstance(request, Request) else request(promise), promise)
        # Most are answered at once: two turns of the event loop would take longer than all the rest. It still
        # has its turn now and then, so that one who asks without end does not keep it from others.
        self.runtime.drain(_BURST)
        self._asked += 1
        if self._asked % _YIELD_EVERY == 0:
            await asyncio.sleep(0)
        try:
            return await answered
        finally:
            promise.drop()

    def _check(self, ref: Ref[Any], request: Any) -> None:
        cell = self.runtime.cell(ref)
        if cell is not None and isinstance(request, Request):
            cell.behavior.check(request)

    async def stop(self, ref: Ref[Any]) -> None:
        """Stops a top-level actor, and waits until it has stopped."""
        cell = self.runtime.cell(ref)
        if cell is not None:
            cell.order_stop()
            await self.stopped(ref)

    async def stopped(self, ref: Ref[Any]) -> None:
        """Until a top-level actor has stopped."""
        if self.runtime.cell(ref) is None:
            return
        end = self._ends.get(ref.address)
        if end is None:
            end = self._ends[ref.address] = asyncio.get_running_loop().create_future()
        await asyncio.shield(end)

    async def close(self) -> None:
        """Stops all actors, and waits until they have stopped."""
        await asyncio.gather(*(self.stop(cell.ref) for cell in list(self.runtime.top.values())))
        self._environment.close()

    def _top_stopped(self, cell: Cell) -> None:
        end = self._ends.pop(cell.address, None)
        if end is not None and not end.done():
            end.set_result(None)


class _Asyncio:
    """`Environment` on the running event loop."""

    def __init__(
        self,
        now: Callable[[], float],
        luck: random.Random,
        on_dead_letter: Callable[[DeadLetter], None] | None,
        journal: Journal | None,
    ) -> None:
        self.runtime: Runtime
        self.journal = journal
        self.logger = _log
        self.random = luck
        self._now = now
        self._on_dead_letter = on_dead_letter
        self._awake = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._due: float | None = None

    def now(self) -> float:
        return self._now()

    def wake(self) -> None:
        if not self._awake:
            self._awake = True
            asyncio.get_running_loop().call_soon(self._drain)

    def _drain(self) -> None:
        self._awake = False
        self.runtime.drain(_BURST)
        if not self.runtime.is_idle:
            self.wake()

    def alarm(self, when: float | None) -> None:
        """One that would ring too early is left, and set anew when it does: each ask has a deadline, and most
        are answered long before."""
        self._due = when
        if when is not None and (self._alarm is None or when < self._alarm_at):
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm_at = when
            delay_s = max(0.0, when - self._now())
            self._alarm = asyncio.get_running_loop().call_later(delay_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        due, self._due = self._due, None
        if due is None:
            return
        if due > self._now():
            self.alarm(due)
        else:
            self.runtime.ring()

    def run(self, work: Awaitable[Any], done: Callable[[Any, BaseException | None], None]) -> Work:
        future = asyncio.ensure_future(work)

        def finished(future: asyncio.Future[Any]) -> None:
            if future.cancelled():
                done(None, asyncio.CancelledError())
            elif (error := future.exception()) is not None:
                done(None, error)
            else:
                done(future.result(), None)

        future.add_done_callback(finished)
        return future

    def dead_letter(self, letter: DeadLetter) -> None:
        _log.debug("dead letter %s to %s: %s", display(letter.message), letter.recipient, letter.reason)
        if self._on_dead_letter is not None:
            self._on_dead_letter(letter)

    def remote(self, address: str) -> Ref[Any] | None:
        return None

    def start_child(self, kind: Any, child_id: str, start: Any) -> Ref[Any]:
        raise NotDurable(f"{child_id!r} can't be started: a durable actor needs a durable parent.")

    def watch(self, watched: Ref[Any], watcher: str) -> None:
        """There are no others."""

    def unwatch(self, watched: Ref[Any], watcher: str) -> None:
        """There are no others."""

    def tell_terminated(self, watched: str, watcher: str) -> None:
        """There are no others."""

    def close(self) -> None:
        self._due = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
