"""Where one actor is run by hand: the real runtime and cell, where nothing moves by itself."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from goatherd.actors._activity import Activity
from goatherd.actors._behavior import Behavior
from goatherd.actors._cell import Cell
from goatherd.actors._environment import DeadLetter, Work
from goatherd.actors._ref import Ref
from goatherd.actors._runtime import Runtime
from goatherd.actors._states import State
from goatherd.actors._supervision import Rule, Supervised
from goatherd.actors.testkit._effects import Effect
from goatherd.actors.testkit._inbox import TestInbox
from goatherd.actors.testkit._log import LogKeeper

if TYPE_CHECKING:
    from goatherd.actors.persistence._journal import Journal

Done = Callable[[Any, BaseException | None], None]


class HandWork:
    """Piped work that is not run. A test ends it, or the actor cancels it."""

    def __init__(self, name: str, done: Done) -> None:
        self.name = name
        self._done: Done | None = done

    def cancel(self) -> None:
        if self._done is not None:
            self.end(None, asyncio.CancelledError())

    def end(self, value: Any, error: BaseException | None) -> None:
        done, self._done = self._done, None
        if done is None:
            raise AssertionError(f"The work {self.name} is over already, or was cancelled.")
        done(value, error)


class HandEnvironment:
    """`Environment` where time stands still, work does not run, and what is lost is kept."""

    def __init__(self, name: str, seed: int, journal: Journal | None) -> None:
        self.log = LogKeeper(name)
        self.logger: logging.Logger = self.log.logger
        self.random = Random(seed)
        self.clock = 0.0
        self.journal = journal
        self.dead_letters: list[DeadLetter] = []
        self.outside: dict[str, TestInbox[Any]] = {}

    def now(self) -> float:
        return self.clock

    def wake(self) -> None:
        """The bench drains."""

    def alarm(self, when: float | None) -> None:
        """The bench rings."""

    def run(self, work: Awaitable[Any], done: Done) -> Work:
        called = work.function if isinstance(work, Activity) else work
        name = getattr(called, "__name__", type(work).__name__)
        if inspect.iscoroutine(work):
            work.close()  # Else Python warns that it was never awaited.
        return HandWork(name, done)

    def dead_letter(self, letter: DeadLetter) -> None:
        self.dead_letters.append(letter)

    def inbox(self, address: str) -> TestInbox[Any]:
        """Of an actor that is not of this runtime: whoever is named exists."""
        inbox = self.outside.get(address)
        if inbox is None:
            inbox = self.outside[address] = TestInbox(address, address=address)
        return inbox

    def remote(self, address: str) -> Ref[Any] | None:
        return self.inbox(address).ref

    def start_child(self, kind: Any, child_id: str, start: Any) -> Ref[Any]:
        return self.inbox(child_id).ref

    def watch(self, watched: Ref[Any], watcher: str) -> None:
        """An inbox does not stop, unless a test says so."""

    def unwatch(self, watched: Ref[Any], watcher: str) -> None:
        """See `watch`."""

    def tell_terminated(self, watched: str, watcher: str) -> None:
        """Nobody outside watches."""


class HandRuntime(Runtime):
    """Gives its first actor no turn: the bench does. The others, children above all, have theirs as ever."""

    def __init__(self, host: str, environment: HandEnvironment) -> None:
        super().__init__(host, environment)
        self.newest_promise = ""
        self._subject: Cell | None = None

    def schedule(self, cell: Cell) -> None:
        if self._subject is None:
            self._subject = cell
        if cell is self._subject:
            cell.scheduled = True
        else:
            super().schedule(cell)

    def promise_address(self) -> str:
        self.newest_promise = super().promise_address()
        return self.newest_promise


class Bench:
    """One actor, its effects, and the inboxes of its children by their names."""

    def __init__(
        self,
        behavior: Behavior[Any] | Supervised[Any],
        name: str,
        *,
        rules: Sequence[Rule],
        mailbox: int | None,
        stash: int | None,
        seed: int,
        journal: Journal | None,
    ) -> None:
        self.environment = HandEnvironment(name, seed, journal)
        self.runtime = HandRuntime("test", self.environment)
        self.effects: deque[Effect] = deque()
        self.inboxes: dict[str, TestInbox[Any]] = {}
        self.cell = self.runtime.make(None, behavior, name, rules=rules, mailbox=mailbox, stash=stash)
        self._raised = False

    def settle(self, *, raising: bool = True) -> None:
        """What the system has to do is done; no message of the actor is handled.

        Raises:
            Exception: what the actor has stopped with, once.
        """
        while self.cell.system or not self.runtime.is_idle:
            self.cell.run(0)
            self.runtime.drain()
        failure = self.cell.failure
        if failure is not None and not self._raised:
            self._raised = True
            if raising:
                raise failure

    def turn(self, *, raising: bool = True) -> None:
        """The actor handles its next message."""
        self.cell.run(1)
        self.settle(raising=raising)

    def first(self, arrive: Callable[[], None], *, raising: bool = True) -> None:
        """What `arrive` brings into the mailbox is handled now, before all that waits there."""
        mailbox = self.cell.mailbox
        before = len(mailbox)
        arrive()
        self.settle(raising=raising)
        if len(mailbox) > before and self.cell.state is State.RUNNING:
            envelope = mailbox[before]
            del mailbox[before]
            mailbox.appendleft(envelope)
            self.turn(raising=raising)
