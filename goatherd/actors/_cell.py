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
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from goatherd.actors._behavior import Behavior, Setup, empty, name_of, same, stopped, unhandled
from goatherd.actors._context import Context
from goatherd.actors._environment import Work
from goatherd.actors._errors import ActorFailed, DeathPact, MailboxFull, Unhandled
from goatherd.actors._message import Request, display
from goatherd.actors._ref import Ref
from goatherd.actors._signals import POST_STOP, PRE_RESTART, ChildFailed, Signal, Terminated
from goatherd.actors._supervision import Record, Restart, Resume, Rule, decide
from goatherd.actors._timers import Timer
from goatherd.errors import GoatherdError

if TYPE_CHECKING:
    from goatherd.actors._runtime import Runtime

UNBOUNDED = sys.maxsize
STASH = 1_000
_SHUT = -1
"""The mailbox limit of who takes no more messages."""


class State(IntEnum):
    STARTING = 0
    RUNNING = 1
    RESTARTING = 2
    WAITING = 3
    STOPPING = 4
    DEAD = 5


class Op(Enum):
    """What the system has a cell do before its next message."""

    START = "start"
    STOP = "stop"
    CHECK = "check"


class Rang:
    """In a mailbox: a timer's message. Counts only if the timer is still the one of its key."""

    __slots__ = ("timer",)

    def __init__(self, timer: Timer) -> None:
        self.timer = timer


class Adapted:
    """In a mailbox: something that becomes a message by `adapt`, in the actor's own turn."""

    __slots__ = ("adapt", "value")

    def __init__(self, adapt: Callable[[Any], Any] | None, value: Any) -> None:
        self.adapt = adapt
        self.value = value


class Stopped:
    """In a mailbox: a watched actor has stopped. Counts only if it is still watched."""

    __slots__ = ("cause", "ref")

    def __init__(self, ref: Ref[Any], cause: BaseException | None) -> None:
        self.ref = ref
        self.cause = cause


_INTERNAL = frozenset({Rang, Adapted, Stopped})
_DROPPED = object()

Envelope = tuple[Any, Ref[Any] | None]


class Cell:
    """See the module. Everything is called from the runtime's thread only."""

    __slots__ = (
        "_works",
        "adapters",
        "address",
        "behavior",
        "capacity",
        "children",
        "context",
        "current",
        "failure",
        "initial",
        "limit",
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
        "runtime",
        "scheduled",
        "stash",
        "stash_capacity",
        "state",
        "system",
        "timers",
        "watchers",
        "watching",
        "work",
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
        self.runtime = runtime
        self.parent = parent
        self.name = name
        self.path = path
        self.address = address
        # None only until a snapshot has been read.
        self.initial: Behavior[Any] = behavior or empty
        self.rules = rules
        self.behavior: Behavior[Any] = self.initial
        self.state = State.STARTING
        self.capacity = UNBOUNDED if mailbox is None else mailbox
        self.limit = self.capacity
        self.stash_capacity = STASH if stash is None else stash
        self.mailbox: deque[Envelope] = deque()
        self.stash: deque[Envelope] = deque()
        self.system: deque[Op] = deque()
        self.scheduled = False
        self.children: dict[str, Cell] = {}
        self.timers: dict[str, Timer] = {}
        self.watching: dict[str, tuple[Ref[Any], Any]] = {}
        self.watchers: dict[str, Ref[Any]] = {}
        self.adapters: list[Callable[[Any], Any]] = []
        self._works = 0
        self.work: dict[int, Work] = {}
        self.record = Record()
        self.failure: BaseException | None = None
        self.resume_at: float | None = None
        self.current: Any = None
        self.reply_to: Ref[Any] | None = None
        self.next_name = 0
        self.ref: LocalRef = LocalRef(self)
        self.context: Context[Any] = Context(self)

    # -- its turn

    @property
    def has_work(self) -> bool:
        return bool(self.system) or (self.state is State.RUNNING and bool(self.mailbox))

    def run(self, budget: int) -> int:
        """Handles up to `budget` messages; returns how many."""
        handled = 0
        mailbox, system = self.mailbox, self.system
        while True:
            while system:
                self._obey(system.popleft())
            if handled >= budget or not mailbox or self.state is not State.RUNNING:
                return handled
            handled += 1
            message, reply_to = mailbox.popleft()
            try:
                if type(message) in _INTERNAL:
                    message = self._unwrap(message)
                    if message is _DROPPED:
                        continue
                self.current, self.reply_to = message, reply_to
                following = self.behavior.receive(self.context, message)
                if following is not None and following is not same:
                    self._become(following)
            except Exception as error:
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
            if internal.adapt is not None:
                return internal.adapt(internal.value)
            raise internal.value
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
            self.behavior = self._unfolded(following)
            if self.behavior is stopped:
                self._begin_stop()

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
        except Exception as error:
            self._fail(error)
            return
        self.state = State.RUNNING
        if self.behavior is stopped:
            self.behavior = empty
            self._begin_stop()

    # -- failing

    def _fail(self, error: Exception) -> None:
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
        self.unstash_all()
        if strategy.stop_children:
            for child in list(self.children.values()):
                self.watching.pop(child.address, None)
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

    def wait(self) -> None:
        """Until the backoff is over."""
        assert self.resume_at is not None
        self.runtime.after(self.resume_at - self.runtime.environment.now(), self.end_wait)

    def end_wait(self) -> None:
        """The backoff is over."""
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
        self.limit = _SHUT
        if not had_begun:
            self.behavior = empty  # It never was, or has had its PreRestart: no PostStop.
        self.cancel_timers()
        for ref, _ in list(self.watching.values()):
            self.unwatch(ref)
        for work in list(self.work.values()):
            work.cancel()
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
            if type(message) not in _INTERNAL:
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
        for address, watcher in self.watchers.items():
            cell = self.runtime.cell(watcher)
            if cell is not None:
                cell.watched_stopped(self.ref, self.failure if cell is self.parent else None)
            else:
                self.runtime.environment.tell_terminated(self.address, address)
        parent = self.parent
        if parent is not None and parent.state in (State.STOPPING, State.RESTARTING):
            parent._order(Op.CHECK)
        elif parent is None:
            self.runtime.top_stopped(self)

    def _signal(self, signal: Signal) -> None:
        """One that the behavior can't answer."""
        self.current, self.reply_to = None, None
        try:
            self.behavior.on_signal(self.context, signal)
        except Exception as error:
            self.runtime.environment.logger.error(
                "%s raised %s at %s", self.address, type(error).__name__, display(signal), exc_info=error
            )

    # -- messages from others

    def deliver(self, internal: Rang | Adapted | Stopped) -> None:
        """Puts something internal in the mailbox, which has always room for it."""
        if self.limit == _SHUT:
            return
        self.mailbox.append((internal, None))
        if not self.scheduled and self.state is State.RUNNING:
            self.runtime.schedule(self)

    def overflow(self, message: Any, reply_to: Ref[Any] | None) -> None:
        """There is no room for a message."""
        if self.limit == _SHUT:
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

    # -- watching

    def watch(self, ref: Ref[Any], message: Any) -> None:
        if ref.address == self.address:
            return
        known = self.watching.get(ref.address)
        if known is not None:
            if known[1] != message:
                raise ValueError(f"{ref.address} is watched otherwise already: unwatch it first.")
            return
        self.watching[ref.address] = (ref, message)
        cell = self.runtime.cell(ref)
        if cell is not None:
            cell.watchers[self.address] = self.ref
        elif self.runtime.is_local(ref):
            self.deliver(Stopped(ref, None))
        else:
            self.runtime.environment.watch(ref, self.address)

    def unwatch(self, ref: Ref[Any]) -> None:
        if self.watching.pop(ref.address, None) is None:
            return
        cell = self.runtime.cell(ref)
        if cell is not None:
            cell.watchers.pop(self.address, None)
        elif not self.runtime.is_local(ref):
            self.runtime.environment.unwatch(ref, self.address)

    def watched_stopped(self, ref: Ref[Any], cause: BaseException | None) -> None:
        if ref.address in self.watching:
            self.deliver(Stopped(ref, cause))

    # -- timers and work

    def start_timer(self, timer: Timer) -> None:
        self.cancel_timer(timer.key)
        self.timers[timer.key] = timer
        self.runtime.deadlines.add(timer)

    def cancel_timer(self, key: str) -> None:
        timer = self.timers.pop(key, None)
        if timer is not None:
            self.runtime.deadlines.cancel(timer)

    def cancel_timers(self) -> None:
        for key in list(self.timers):
            self.cancel_timer(key)

    def rang(self, timer: Timer) -> None:
        self.deliver(Rang(timer))

    def pipe(
        self,
        work: Awaitable[Any],
        ok: Callable[[Any], Any],
        err: Callable[[BaseException], Any] | None,
    ) -> Work:
        self._works += 1
        number = self._works

        def done(value: Any, error: BaseException | None) -> None:
            if self.work.pop(number, None) is None and self.limit == _SHUT:
                return
            self.deliver(Adapted(ok, value) if error is None else Adapted(err, error))

        under_way = self.runtime.environment.run(work, done)
        self.work[number] = under_way
        return under_way

    def ask(
        self,
        ref: Ref[Any],
        request: Any,
        ok: Callable[[Any], Any],
        err: Callable[[Any], Any],
        timeout_s: float,
    ) -> None:
        deadline = self.runtime.environment.now() + timeout_s
        promise = self.await_answer(self.runtime.promise_address(), ok, err, deadline)
        if isinstance(request, Request):
            ref.send(request, promise)
        else:
            ref.tell(request(promise))

    def await_answer(
        self, address: str, ok: Callable[[Any], Any], err: Callable[[Any], Any], deadline: float
    ) -> Ref[Any]:
        """The address of an answer that comes to this actor."""

        def done(answer: Any, error: GoatherdError | None) -> None:
            self.deliver(Adapted(ok, answer) if error is None else Adapted(err, error))

        return self.runtime.promise(done, deadline, address=address, owner=Asked(self, ok, err))

    def adapter(self, adapt: Callable[[Any], Any]) -> Ref[Any]:
        for number, known in enumerate(self.adapters):
            if known is adapt:
                return Adapter(self, number, adapt)
        self.adapters.append(adapt)
        return Adapter(self, len(self.adapters) - 1, adapt)

    def adapter_at(self, number: int) -> Ref[Any]:
        return Adapter(self, number, self.adapters[number])

    def child_name(self) -> str:
        self.next_name += 1
        return f"${self.next_name}"


class LocalRef(Ref[Any]):
    """The ref of a cell of this runtime."""

    __slots__ = ("_cell",)

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell.address)
        self._cell = cell

    def tell(self, message: Any) -> None:
        cell = self._cell
        mailbox = cell.mailbox
        if len(mailbox) >= cell.limit:
            cell.overflow(message, None)
            return
        mailbox.append((message, None))
        if not cell.scheduled and cell.state is State.RUNNING:
            cell.runtime.schedule(cell)

    def send(self, message: Any, reply_to: Ref[Any] | None) -> None:
        cell = self._cell
        if len(cell.mailbox) >= cell.limit:
            cell.overflow(message, reply_to)
            return
        cell.mailbox.append((message, reply_to))
        if not cell.scheduled and cell.state is State.RUNNING:
            cell.runtime.schedule(cell)

    def fail(self, error: GoatherdError) -> None:
        self._cell.runtime.dead(error, self.address, "not-an-ask", None)


class Adapter(Ref[Any]):
    """An actor's address for messages of another protocol."""

    __slots__ = ("_adapt", "_cell")

    def __init__(self, cell: Cell, number: int, adapt: Callable[[Any], Any]) -> None:
        super().__init__(f"{cell.address}~{number}")
        self._cell = cell
        self._adapt = adapt

    def tell(self, message: Any) -> None:
        self.send(message, None)

    def send(self, message: Any, reply_to: Ref[Any] | None) -> None:
        cell = self._cell
        if len(cell.mailbox) >= cell.limit:
            cell.overflow(message, reply_to)
            return
        cell.mailbox.append((Adapted(self._adapt, message), reply_to))
        if not cell.scheduled and cell.state is State.RUNNING:
            cell.runtime.schedule(cell)

    def fail(self, error: GoatherdError) -> None:
        self._cell.runtime.dead(error, self.address, "not-an-ask", None)


class Asked(NamedTuple):
    """Whose ask a promise belongs to, and what becomes of the answer."""

    cell: Cell
    ok: Callable[[Any], Any]
    err: Callable[[Any], Any]


def _fresh(behavior: Behavior[Any]) -> Behavior[Any]:
    """What a registered behavior changes is its own; of others, only `setup` starts from nothing."""
    return copy.deepcopy(behavior) if name_of(behavior) is not None else behavior


def _told(error: Exception, address: str, message: Any) -> GoatherdError:
    """What the asker is told: an error that is meant to be told, or only that there was one."""
    if isinstance(error, GoatherdError):
        return error
    return ActorFailed(f"{address} failed at {display(message)}: {type(error).__name__}.")
