"""One actor: its mailbox, its children, its life from start to stop.

```
STARTING ──▶ RUNNING ──────────▶ STOPPING ──▶ DEAD
   ▲            │ raised, and is     ▲ its children have stopped: PostStop, then Terminated to watchers
   │            ▼ to be restarted    │
   └─ WAITING ◀─ RESTARTING ─────────┘
      (backoff)  (children stop)
```
"""

from __future__ import annotations

import copy
from asyncio import CancelledError
from collections import deque
from typing import TYPE_CHECKING, Any

from goatherd.actors._behavior import Behavior, Setup, empty, name_of, same, stopped, unhandled
from goatherd.actors._context import Context
from goatherd.actors._errors import ActorFailed, DeathPact, MailboxFull, Unhandled
from goatherd.actors._local_ref import LocalRef
from goatherd.actors._mail import INTERNAL, Adapted, Envelope, Notice, Rang, Stopped
from goatherd.actors._message import display
from goatherd.actors._ref import Ref
from goatherd.actors._signals import POST_STOP, PRE_RESTART, ChildFailed, Signal, Terminated
from goatherd.actors._states import RUNNING, SHUT, UNBOUNDED, Op, State
from goatherd.actors._supervision import Record, Restart, Resume, Rule, decide
from goatherd.actors._timers import Timer
from goatherd.actors._watching import Watching
from goatherd.errors import GoatherdError

if TYPE_CHECKING:
    from goatherd.actors._runtime import Runtime

STASH = 1_000


_DROPPED = object()
_FAILURES = (Exception, CancelledError)
"""What a behavior may raise and be supervised for. Work that was cancelled raises the latter."""


class Cell(Watching):
    """See the module. Everything is called from the runtime's thread only."""

    __slots__ = (
        "address",
        "behavior",
        "capacity",
        "children",
        "context",
        "current",
        "failure",
        "initial",
        "mailbox",
        "name",
        "next_name",
        "parent",
        "path",
        "record",
        "ref",
        "reply_to",
        "resume_at",
        "rules",
        "scheduled",
        "stash",
        "stash_capacity",
        "state",
        "system",
        "waiting",
    )

    def __init__(
        self,
        runtime: Runtime,
        parent: Cell | None,
        *,
        name: str,
        path: str,
        address: str,
        behavior: Behavior[Any] | None,
        rules: tuple[Rule, ...],
        mailbox: int | None,
        stash: int | None,
    ) -> None:
        self.capacity = UNBOUNDED if mailbox is None else mailbox
        super().__init__(runtime, self.capacity)
        self.parent = parent
        self.name = name
        self.path = path
        self.address = address
        # None only until a snapshot has been read.
        self.initial: Behavior[Any] = behavior or empty
        self.rules = rules
        self.behavior: Behavior[Any] = self.initial
        self.state = State.STARTING
        self.stash_capacity = STASH if stash is None else stash
        self.mailbox: deque[Envelope] = deque()
        self.stash: deque[Envelope] = deque()
        self.system: deque[Op] = deque()
        self.scheduled = False
        self.children: dict[str, Cell] = {}
        self.record = Record()
        self.failure: BaseException | None = None
        self.resume_at: float | None = None
        self.waiting: Timer | None = None
        self.current: Any = None
        self.reply_to: Ref[Any] | None = None
        self.next_name = 0
        self.ref: Ref[Any] = LocalRef(self)
        self.context: Context[Any] = Context(self)

    # -- its turn

    @property
    def has_work(self) -> bool:
        return bool(self.system) or (self.state is RUNNING and bool(self.mailbox))

    @property
    def has_stopped(self) -> bool:
        """Or does so now: it takes nothing more."""
        return self.limit == SHUT

    def run(self, budget: int) -> int:
        """Handles up to `budget` messages; returns how many. Less than that: it can do no more now."""
        handled = 0
        mailbox, system, context = self.mailbox, self.system, self.context
        while True:
            while system:
                self._obey(system.popleft())
            if handled == budget or not mailbox or self.state is not RUNNING:
                return handled
            handled += 1
            message, self.reply_to = mailbox.popleft()
            self.current = message
            try:
                if type(message) in INTERNAL:
                    message = self._unwrap(message)
                    if message is _DROPPED:
                        continue
                    self.current = message
                following = self.behavior.receive(context, message)
                if following is not None and following is not same:
                    self._become(following)
            except _FAILURES as error:
                self._fail(error)

    def _unwrap(self, internal: Any) -> Any:
        """The message that something internal stands for, if it still counts."""
        if isinstance(internal, Rang):
            timer = internal.timer
            if self.timers.get(timer.key) is not timer:
                return _DROPPED
            if timer.interval_s is None:
                del self.timers[timer.key]
            return timer.message
        if isinstance(internal, Adapted):
            self.current = internal.value
            if internal.adapt is not None:
                return internal.adapt(internal.value)
            raise internal.value
        self.current, self.reply_to = None, None
        if isinstance(internal, Notice):
            answer = self.behavior.on_signal(self.context, internal.signal)
            if answer is unhandled:
                self._begin_stop()
            elif answer is not None and answer is not same:
                self._become(answer)
            return _DROPPED
        watched = self.watching.pop(internal.ref.address, None)
        if watched is None:
            return _DROPPED
        if watched[1] is not None:
            return watched[1]
        self.current, self.reply_to = None, None
        ref = internal.ref
        signal = Terminated(ref) if internal.cause is None else ChildFailed(ref, internal.cause)
        following = self.behavior.on_signal(self.context, signal)
        if following is unhandled:
            raise DeathPact(
                f"{self.address} does not handle that {ref.address}, which it watches, has stopped."
            )
        if following is not None and following is not same:
            self._become(following)
        return _DROPPED

    def _become(self, following: Behavior[Any]) -> None:
        if following is unhandled:
            self._unhandled()
        elif following is stopped:
            self._begin_stop()
        else:
            made = self._unfolded(following)
            if made is stopped:
                self._begin_stop()
            else:
                self.behavior = made

    def _unhandled(self) -> None:
        self.runtime.environment.logger.debug("unhandled %s at %s", display(self.current), self.address)
        if self.reply_to is not None:
            self.reply_to.fail(Unhandled(f"{self.address} does not handle {display(self.current)} now."))

    def _unfolded(self, behavior: Behavior[Any]) -> Behavior[Any]:
        while isinstance(behavior, Setup):
            behavior = behavior.make(self.context)
        if behavior is same or behavior is unhandled:
            raise ValueError(f"{behavior!r} can't be what an actor starts with.")
        return behavior

    def _obey(self, op: Op) -> None:
        if op is Op.START:
            self._start()
        elif op is Op.STOP:
            self._begin_stop()
        else:
            self._check_children()

    def _order(self, op: Op) -> None:
        self.system.append(op)
        if not self.scheduled:
            self.runtime.schedule(self)

    # -- starting

    def begin(self) -> None:
        """Spawned: it starts at its first turn."""
        if self.can_restart:
            # What it is restarted with must not be what it changes.
            self.behavior = _fresh(self.initial)
        self._order(Op.START)

    @property
    def can_restart(self) -> bool:
        return any(isinstance(rule.strategy, Restart) for rule in self.rules)

    def _start(self) -> None:
        if self.state is not State.STARTING:
            return
        self.current, self.reply_to = None, None
        # Open for what it sends itself while it starts.
        self.limit = self.capacity
        try:
            self.behavior = self._unfolded(self.behavior)
            if self.behavior is not stopped:
                following = self.behavior.on_start(self.context)
                if following is not None and following is not same:
                    self.behavior = self._unfolded(following)
        except _FAILURES as error:
            self._fail(error)
            return
        self.state = State.RUNNING
        if self.behavior is stopped:
            self.behavior = empty
            self._begin_stop()

    # -- failing

    def _fail(self, error: BaseException) -> None:
        """The behavior raised: what its rules say."""
        if self.state in (State.STOPPING, State.DEAD):
            return
        runtime = self.runtime
        starting = self.state is State.STARTING
        if self.reply_to is not None and not starting:
            self.reply_to.fail(_told(error, self.address, self.current))
        decision = decide(
            self.rules,
            self.record,
            error,
            now=runtime.environment.now(),
            random=runtime.environment.random,
            starting=starting,
        )
        strategy = decision.strategy
        what = (
            "stops" if not isinstance(strategy, Restart | Resume) else type(strategy).__name__.lower() + "s"
        )
        runtime.environment.logger.warning(
            "%s raised %s and %s", self.address, type(error).__name__, what, exc_info=error
        )
        if isinstance(strategy, Resume):
            return
        if isinstance(strategy, Restart):
            self._begin_restart(strategy, decision.delay_s)
            return
        self.failure = error
        self._begin_stop()

    def _begin_restart(self, strategy: Restart, delay_s: float) -> None:
        self.cancel_timers()
        if self.state is State.RUNNING:
            self._signal(PRE_RESTART)
            self.cancel_timers()  # Those that it started at that.
        self.unstash_all()
        if strategy.stop_children:
            for child in list(self.children.values()):
                for address in child.addresses():
                    self.watching.pop(address, None)
                child.watchers.pop(self.address, None)
                child.order_stop()
        self.state = State.RESTARTING
        now = self.runtime.environment.now()
        self.resume_at = None
        if strategy.backoff is not None:
            self.limit = min(self.capacity, strategy.backoff.keep)
            self.resume_at = now + delay_s
        if strategy.stop_children and self.children:
            return
        self._restart_or_wait()

    def _restart_or_wait(self) -> None:
        now = self.runtime.environment.now()
        if self.resume_at is not None and self.resume_at > now:
            self.state = State.WAITING
            self.wait()
            return
        self._restart()

    def wait(self, number: int = 0) -> None:
        """Until the backoff is over. `number`: its timer's, if it has waited in another run already."""
        assert self.resume_at is not None
        self.waiting = Timer("", None, self.resume_at, lambda _: self.end_wait(), number=number)
        self.runtime.deadlines.add(self.waiting)

    def end_wait(self) -> None:
        """The backoff is over."""
        self.waiting = None
        if self.state is State.WAITING:
            self._restart()

    def _restart(self) -> None:
        self.state = State.STARTING
        self.resume_at = None
        self.record.last_began = self.runtime.environment.now()
        self.behavior = _fresh(self.initial)
        self._order(Op.START)

    # -- stopping

    def order_stop(self) -> None:
        """By its parent: after what it is doing, before its next message."""
        self._order(Op.STOP)

    def _begin_stop(self) -> None:
        if self.state in (State.STOPPING, State.DEAD):
            return
        had_begun = self.state is State.RUNNING
        self.state = State.STOPPING
        self.limit = SHUT
        if not had_begun:
            self.behavior = empty  # It never was, or has had its PreRestart: no PostStop.
        self.cancel_timers()
        if self.waiting is not None:
            self.runtime.deadlines.cancel(self.waiting)
            self.waiting = None
        for ref, _ in list(self.watching.values()):
            self.unwatch(ref)
        for work in list(self.work.values()):
            work.handle.cancel()
        self.work.clear()
        self._discard()
        if self.children:
            for child in list(self.children.values()):
                child.order_stop()
        else:
            self._finish_stop()

    def _discard(self) -> None:
        while self.mailbox or self.stash:
            message, reply_to = (self.mailbox or self.stash).popleft()
            if type(message) is Adapted and message.adapt is not None:
                message = message.value  # What was sent to an adapter has a sender, who may wait.
            if type(message) not in INTERNAL:
                self.runtime.dead(message, self.address, "stopped", reply_to)

    def _check_children(self) -> None:
        if self.children:
            return
        if self.state is State.STOPPING:
            self._finish_stop()
        elif self.state is State.RESTARTING:
            self._restart_or_wait()

    def _finish_stop(self) -> None:
        self._signal(POST_STOP)
        self.state = State.DEAD
        self._discard()
        self.runtime.forget(self)
        parent = self.parent
        self._tell_watchers(parent, self.failure)
        if parent is not None and parent.state in (State.STOPPING, State.RESTARTING):
            parent._order(Op.CHECK)
        elif parent is None:
            self.runtime.top_stopped(self)

    def _signal(self, signal: Signal) -> None:
        """One that the behavior can't answer."""
        self.current, self.reply_to = None, None
        try:
            self.behavior.on_signal(self.context, signal)
        except _FAILURES as error:
            self.runtime.environment.logger.error(
                "%s raised %s at %s", self.address, type(error).__name__, display(signal), exc_info=error
            )

    # -- messages from others

    def deliver(self, internal: Rang | Adapted | Stopped | Notice) -> None:
        """Puts something internal in the mailbox, which has always room for it."""
        if self.limit == SHUT:
            return
        self.mailbox.append((internal, None))
        if not self.scheduled and self.state is State.RUNNING:
            self.runtime.schedule(self)

    def overflow(self, message: Any, reply_to: Ref[Any] | None) -> None:
        """There is no room for a message."""
        if self.state is State.AWAY:
            self.runtime.resolve(self.address).send(message, reply_to)
            return
        if self.limit == SHUT:
            self.runtime.dead(message, self.address, "stopped", reply_to)
            return
        if reply_to is not None:
            reply_to.fail(MailboxFull(f"The mailbox of {self.address} is full: {self.limit} messages wait."))
        self.runtime.dead(message, self.address, "mailbox-full", None)

    # -- stash

    def unstash_all(self) -> None:
        """What was stashed comes next, in its order, before what is in the mailbox."""
        self.mailbox.extendleft(reversed(self.stash))
        self.stash.clear()

    # -- children

    def child_name(self) -> str:
        self.next_name += 1
        return f"${self.next_name}"


def _fresh(behavior: Behavior[Any]) -> Behavior[Any]:
    """What a registered behavior changes is its own; of others, only `setup` starts from nothing."""
    return copy.deepcopy(behavior) if name_of(behavior) is not None else behavior


def _told(error: BaseException, address: str, message: Any) -> GoatherdError:
    """What the asker is told: an error that is meant to be told, or only that there was one."""
    if isinstance(error, GoatherdError):
        return error
    return ActorFailed(f"{address} failed at {display(message)}: {type(error).__name__}.")
