"""What an actor can do: the first argument of everything that it is called with."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from goatherd.actors._address import check_address, check_id
from goatherd.actors._behavior import Behavior
from goatherd.actors._duration import Duration, seconds
from goatherd.actors._environment import Work
from goatherd.actors._errors import NotAChild, StashFull
from goatherd.actors._message import Request
from goatherd.actors._ref import Ref, nobody
from goatherd.actors._supervision import Rule, Supervised
from goatherd.actors._timers import Timer
from goatherd.errors import GoatherdError

if TYPE_CHECKING:
    from goatherd.actors._cell import Cell
    from goatherd.actors._receptionist import ReceptionistMessage
    from goatherd.actors.persistence._calls import Calls
    from goatherd.actors.persistence._journal import Journal

M = TypeVar("M")
Child = TypeVar("Child")
Answer = TypeVar("Answer")
Value = TypeVar("Value")


class Context(Generic[M]):
    """Belongs to one actor, and is to be used in its own turn only: never in what it has run elsewhere."""

    __slots__ = ("_cell", "timers")

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self.timers: Timers[M] = Timers(cell)

    @property
    def self(self) -> Ref[M]:
        """The actor's own address."""
        return self._cell.ref

    @property
    def name(self) -> str:
        return self._cell.name

    @property
    def log(self) -> logging.Logger | logging.LoggerAdapter[Any]:
        return self._cell.runtime.environment.logger

    @property
    def random(self) -> Random:
        """Luck that a replay has again."""
        return self._cell.runtime.environment.random

    def now(self) -> float:
        """Seconds since 1970, as a replay sees them again."""
        return self._cell.runtime.environment.now()

    @property
    def receptionist(self) -> Ref[ReceptionistMessage]:
        """Whom to ask who offers a service: see `Register`, `Find` and `Subscribe`."""
        return self._cell.runtime.receptionist

    @property
    def journal(self) -> Journal | Calls | None:
        """Where event-sourced actors keep their events. None: the history of this run is the journal."""
        # Optional, so that an environment without one need not say so.
        journal: Journal | Calls | None = getattr(self._cell.runtime.environment, "journal", None)
        return journal

    # -- children

    def spawn(
        self,
        behavior: Behavior[Child] | Supervised[Child],
        name: str | None = None,
        *,
        supervise: Sequence[Rule] = (),
        mailbox: int | None = None,
        stash: int | None = None,
    ) -> Ref[Child]:
        """A child, which stops when this actor does.

        Args:
            name: unique among its living siblings; None: one of the system's choice.
            supervise: what becomes of it when it raises, the first rule that fits; without one it stops.
            mailbox: how many messages may wait; more of them are dead letters, and asks fail with
                `MailboxFull`. None: as many as come.
            stash: how many messages it may stash; None: 1,000.

        Raises:
            NameTaken: a living child has the name.
            ActorStopped: this actor is stopping.
            ValueError: the name can't be part of an address.
        """
        if name is None:
            name = self._cell.child_name()
        elif not name or any(sign in name for sign in "/#~$") or name != name.strip():
            raise ValueError(f"{name!r} can't be an actor's name: no /, #, ~, $ or spaces around it.")
        cell = self._cell.runtime.make(
            self._cell, behavior, name, rules=supervise, mailbox=mailbox, stash=stash
        )
        return cell.ref

    @property
    def children(self) -> list[Ref[Any]]:
        """Those that have not stopped yet, the oldest first."""
        return [child.ref for child in self._cell.children.values()]

    def child(self, name: str) -> Ref[Any] | None:
        cell = self._cell.children.get(name)
        return None if cell is None else cell.ref

    def stop(self, child: Ref[Any]) -> None:
        """Stops a child after the message it handles now; one that has stopped already stays so.

        Raises:
            NotAChild: it is another actor's, or this one itself, which returns `stopped` instead.
        """
        cell = self._cell.runtime.cell(child)
        if cell is None:
            return
        if cell.parent is not self._cell:
            raise NotAChild(f"{self._cell.address} can't stop {child.address}: only its parent can.")
        cell.order_stop()

    def ref(self, address: str) -> Ref[Any]:
        """The actor of an address: of a durable actor, its id. It may not exist.

        Raises:
            Invalid: nobody can have this address.
        """
        return self._cell.runtime.resolve(check_address(address))

    def start(self, kind: Any, child_id: str, start: Any = None) -> Ref[Any]:
        """A durable child: an actor of its own, of a `DurableActor` type, which is stopped when the root of
        this one's tree has stopped.

        What is sent to it waits until it has started. If its id is taken it counts as stopped: watch it. Of a
        child of this tree that lives, it gives the address, and starts nothing.

        Raises:
            Invalid: this can't be an id: it has a sign of an address in it.
            NotDurable: this system is not on Temporal.
        """
        return self._cell.runtime.environment.start_child(kind, check_id(child_id), start)

    # -- watching

    def watch(self, ref: Ref[Any]) -> None:
        """`Terminated` comes when `ref` has stopped, also if it has already; `ChildFailed` if it is a child
        that failed. Not handled, this actor stops too.

        Raises:
            ValueError: it is watched with a message already.
        """
        self._cell.watch(ref, None)

    def watch_with(self, ref: Ref[Any], message: M) -> None:
        """`message` comes when `ref` has stopped, instead of a signal."""
        self._cell.watch(ref, message)

    def unwatch(self, ref: Ref[Any]) -> None:
        """Nothing comes any more, also if it is on its way already."""
        self._cell.unwatch(ref)

    # -- answering

    def reply(self, request: Request[Answer], answer: Answer) -> None:
        """Answers the request that is being handled. One that was told, not asked, has nobody to answer."""
        self.reply_to(request).tell(answer)

    def refuse(self, request: Request[Any], error: GoatherdError) -> None:
        """Answers the request that is being handled with an error, which is raised at the asker."""
        self.reply_to(request).fail(error)

    def reply_to(self, request: Request[Answer]) -> Ref[Answer]:
        """Where the answer goes: to be kept, and used later.

        Raises:
            ValueError: it is not the message that is being handled.
        """
        if request is not self._cell.current:
            raise ValueError("Only the message that is being handled has an asker: keep its `reply_to` then.")
        return self._cell.reply_to or nobody

    def forward(self, ref: Ref[Child], message: Child) -> None:
        """Sends on the message that is being handled, or another in its place: the answer goes to whoever
        asked this actor."""
        ref.send(message, self._cell.reply_to)

    # -- what takes time

    def ask(
        self,
        ref: Ref[Any],
        request: Request[Answer] | Callable[[Ref[Answer]], Any],
        ok: Callable[[Answer], M],
        err: Callable[[Exception], M],
        *,
        timeout: Duration,
    ) -> None:
        """Asks another actor; its answer comes back as the message that `ok` makes of it. Instead of a
        request, a function may make a message of the answer's address.

        `err` makes one of `AskTimeout`, `ActorStopped` (at once if it is so already), `ActorFailed`, or the
        error that it was refused with. What `ok` or `err` raises counts as raised by this actor. To go
        through continue-as-new while the answer is awaited, both have to be classes or functions of a module.

        Raises:
            ValueError: the timeout is not positive.
        """
        timeout_s = seconds(timeout)
        if timeout_s <= 0:
            raise ValueError("An ask needs a positive timeout.")
        self._cell.ask(ref, request, ok, err, timeout_s)

    def pipe_to_self(
        self,
        work: Awaitable[Value],
        ok: Callable[[Value], M],
        err: Callable[[BaseException], M] | None = None,
        *,
        key: str | None = None,
    ) -> Work:
        """Has `work` run; its result comes back as the message that `ok` makes of it.

        What it raises, or its cancellation, comes as `err` makes it; without `err`, the actor fails with it.
        It is cancelled when the actor stops, not when it restarts, and by `cancel_work(key)`, or by the
        result's `cancel()`. Of an `activity`, `ok` and `err` must be classes or functions of a module: it may
        have to wait for a workflow's next run.
        """
        return self._cell.pipe(work, ok, err, key=key)

    def cancel_work(self, key: str) -> None:
        """Cancels what runs under a key. Without such, nothing."""
        self._cell.cancel_work(key)

    def adapter(self, adapt: Callable[[Value], M]) -> Ref[Value]:
        """An address to give to others: what comes there comes to this actor as `adapt` makes it.

        There is one for each `adapt`, until the actor stops. To go through continue-as-new, it has to be a
        class or a function of a module.
        """
        return self._cell.adapter(adapt)

    # -- stash

    def stash(self) -> None:
        """Puts the message that is being handled aside, with its asker.

        Raises:
            StashFull: there is no room.
            ValueError: no message is being handled, but a signal or the start.
        """
        cell = self._cell
        if cell.current is None:
            raise ValueError("Only a message can be stashed, while it is being handled.")
        if len(cell.stash) >= cell.stash_capacity:
            raise StashFull(f"The stash of {cell.address} holds {cell.stash_capacity} messages already.")
        cell.stash.append((cell.current, cell.reply_to))
        cell.reply_to = None  # It is not this turn's any more to answer.

    def unstash_all(self) -> None:
        """What was put aside comes next, in its order, before what is in the mailbox."""
        self._cell.unstash_all()

    @property
    def stashed(self) -> int:
        return len(self._cell.stash)


class Timers(Generic[M]):
    """An actor's timers. Each has a key; a new one takes the place of the old, whose message never comes,
    even if it is in the mailbox already. All end when the actor stops or restarts."""

    __slots__ = ("_cell",)

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    def once(self, key: str, message: M, delay: Duration) -> None:
        """`message` comes once, after `delay`."""
        self._start(key, message, seconds(delay), None, fixed_rate=False)

    def every(
        self,
        key: str,
        message: M,
        interval: Duration,
        *,
        initial: Duration | None = None,
        fixed_rate: bool = False,
    ) -> None:
        """`message` comes again and again, `interval` after it last came.

        `fixed_rate`: at multiples of `interval` instead, so that after a pause those missed come at once.

        Raises:
            ValueError: the interval is not positive.
        """
        interval_s = seconds(interval)
        if interval_s <= 0:
            raise ValueError("An interval must be positive.")
        first = interval_s if initial is None else seconds(initial)
        self._start(key, message, first, interval_s, fixed_rate=fixed_rate)

    def cancel(self, key: str) -> None:
        """Its message never comes. Without such a timer, nothing."""
        self._cell.cancel_timer(key)

    def cancel_all(self) -> None:
        self._cell.cancel_timers()

    def is_active(self, key: str) -> bool:
        """Whether its message is still to come."""
        return key in self._cell.timers

    def _start(
        self, key: str, message: M, delay_s: float, interval_s: float | None, *, fixed_rate: bool
    ) -> None:
        when = self._cell.runtime.environment.now() + delay_s
        cell = self._cell
        cell.start_timer(Timer(key, message, when, cell.rang, interval_s=interval_s, fixed_rate=fixed_rate))
