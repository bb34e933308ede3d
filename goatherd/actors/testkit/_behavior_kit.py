"""The synchronous kit: one behavior, one message at a time, and what it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from goatherd.actors._behavior import Behavior, same, unhandled
from goatherd.actors._duration import Duration, seconds
from goatherd.actors._environment import DeadLetter
from goatherd.actors._mail import Notice, Rang
from goatherd.actors._message import Request
from goatherd.actors._ref import Ref
from goatherd.actors._signals import CancelRequested, ChildFailed, PostStop, Signal, Terminated
from goatherd.actors._states import State
from goatherd.actors._supervision import Rule, Supervised
from goatherd.actors.testkit._bench import Bench
from goatherd.actors.testkit._effects import Effect
from goatherd.actors.testkit._inbox import TestInbox
from goatherd.actors.testkit._log import LogEntry
from goatherd.actors.testkit._mail import shown
from goatherd.actors.testkit._recording import RecordingContext
from goatherd.errors import GoatherdError

if TYPE_CHECKING:
    from goatherd.actors.persistence._journal import Journal

M = TypeVar("M")
Answer = TypeVar("Answer")
E = TypeVar("E", bound=Effect)
B = TypeVar("B", bound=Behavior[Any])


class BehaviorTestKit(Generic[M]):
    """Runs a behavior in a real actor without a dispatcher: nothing happens but what the test has happen.

    Its children are inert: they have an inbox in place of a behavior, and stop when they are told to. Work
    and asks end by hand, timers ring by hand, the clock stands at 0 until it is moved. Messages that come to
    the actor otherwise (from itself, out of its stash, of watched actors) wait for `run_one`.

    What it raises is raised here, by whatever made it run, if it stopped the actor; what a rule of
    `supervise` takes is in `log_entries`. An event-sourced behavior needs no `journal`; with one, its calls
    are `Piped` effects.
    """

    def __init__(
        self,
        behavior: Behavior[M] | Supervised[M],
        *,
        name: str = "subject",
        supervise: Sequence[Rule] = (),
        mailbox: int | None = None,
        stash: int | None = None,
        seed: int = 0,
        journal: Journal | None = None,
    ) -> None:
        self._bench = Bench(
            behavior, name, rules=supervise, mailbox=mailbox, stash=stash, seed=seed, journal=journal
        )
        self._cell = self._bench.cell
        self._cell.context = RecordingContext[M](self._bench)
        self._bench.settle()

    # -- running it

    @property
    def ref(self) -> Ref[M]:
        """Its address. What is told there waits for `run_one`."""
        return self._cell.ref

    def run(self, message: M) -> None:
        """Handles this message now, before those that wait."""
        self._bench.first(lambda: self.ref.tell(message))

    def run_one(self) -> None:
        """Handles the first message that waits."""
        if not self.has_messages:
            raise AssertionError(f"{self._cell.name} has nothing to handle.")
        self._bench.turn()

    def run_all(self) -> None:
        """Handles what waits, and what comes of that, until nothing waits."""
        while self._cell.has_work:
            self._bench.turn()

    def ask(self, request: Request[Answer] | Callable[[Ref[Answer]], M]) -> Reply[Answer]:
        """Handles this request now. Its failure is the asker's, so it is not raised: see `Reply.error`.

        Instead of a request, a function may make a message of the answer's address.
        """
        reply: Reply[Answer] = Reply(repr(request), self._failure)
        promise = self._bench.runtime.promise(reply.settle)

        def arrive() -> None:
            if isinstance(request, Request):
                self.ref.send(request, promise)
            else:
                self.ref.tell(request(promise))

        self._bench.first(arrive, raising=False)
        return reply

    def signal(self, signal: Signal) -> None:
        """What the signal tells of happens, as far as it can.

        `Terminated`, `ChildFailed`: the watched actor has stopped, and no longer is a child. `PostStop`: this
        one stops. `CancelRequested`: it does, unless it handles that. Others only come to `on_signal`.

        Raises:
            AssertionError: it tells of an actor that is not watched, so that it would never come.
        """
        if isinstance(signal, Terminated):
            if signal.ref.address not in self._cell.watching:
                raise AssertionError(f"{self._cell.name} does not watch {signal.ref!r}: nothing would come.")
            self._bench.first(lambda: self._stop_watched(signal))
        elif isinstance(signal, PostStop):
            self._cell.order_stop()
            self._bench.settle()
        elif isinstance(signal, CancelRequested):
            self._bench.first(lambda: self._cell.deliver(Notice(signal)))
        else:
            following = self._cell.behavior.on_signal(self._cell.context, signal)
            if following is not None and following is not same and following is not unhandled:
                self._cell._become(following)
            self._bench.settle()

    def stop(self) -> None:
        """Its parent stops it: its children stop, then it has its `PostStop`."""
        self.signal(PostStop())

    def ring(self, key: str) -> None:
        """A timer rings now, before its time, and its message is handled. The clock stands still."""
        timer = self._cell.timers.get(key)
        if timer is None:
            raise AssertionError(f"There is no timer {key!r}. There is {shown(self._cell.timers)}.")
        if timer.interval_s is None:
            self._bench.runtime.deadlines.cancel(timer)
        self._bench.first(lambda: self._cell.deliver(Rang(timer)))

    def advance(self, duration: Duration) -> None:
        """Moves the clock. What is due by then comes in its order and is handled: timers, timeouts, backoffs
        that end."""
        environment, deadlines = self._bench.environment, self._bench.runtime.deadlines
        until = environment.clock + seconds(duration)
        while (due := deadlines.earliest) is not None and due <= until:
            environment.clock = max(environment.clock, due)
            self._bench.runtime.ring()
            self._bench.settle()
            self.run_all()
        environment.clock = until

    # -- looking at it

    @property
    def behavior(self) -> Behavior[M]:
        """What it is now; the fields of a registered behavior are its state."""
        return self._cell.behavior

    def expect_behavior(self, kind: type[B]) -> B:
        """What it is now, which must be of `kind`."""
        now = self._cell.behavior
        if not isinstance(now, kind):
            raise AssertionError(f"{self._cell.name} was expected to be a {kind.__name__}, but is {now!r}.")
        return now

    @property
    def is_alive(self) -> bool:
        """Whether it has not stopped, and is not about to."""
        return self._cell.state not in (State.STOPPING, State.DEAD)

    @property
    def has_messages(self) -> bool:
        """Whether something waits that `run_one` can have handled."""
        return self._cell.has_work

    @property
    def stashed(self) -> int:
        return len(self._cell.stash)

    @property
    def log_entries(self) -> list[LogEntry]:
        """All that it has logged, and the system about it."""
        return self._bench.environment.log.entries

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """All messages that nobody got."""
        return self._bench.environment.dead_letters

    def child_inbox(self, name: str) -> TestInbox[Any]:
        """What its child has got; of a name that several had, the last one's."""
        inbox = self._bench.inboxes.get(name)
        if inbox is None:
            raise AssertionError(
                f"{self._cell.name} has had no child {name!r}. It has had {shown(self._bench.inboxes)}."
            )
        return inbox

    def inbox(self, address: str) -> TestInbox[Any]:
        """What an actor outside has got: one of `Context.ref(address)`, or the durable child of an id."""
        return self._bench.environment.inbox(address)

    # -- effects

    def effects(self) -> list[Effect]:
        """Takes all effects that were not taken yet, in the order they were had."""
        taken = list(self._bench.effects)
        self._bench.effects.clear()
        return taken

    @overload
    def expect(self, effect: type[E]) -> E: ...

    @overload
    def expect(self, effect: E) -> E: ...

    def expect(self, effect: Any) -> Any:
        """Takes the next effect, which must be equal to this, or of this type. What does not fit stays."""
        effects = self._bench.effects
        expected = f"a {effect.__name__}" if isinstance(effect, type) else repr(effect)
        if not effects:
            raise AssertionError(f"{self._cell.name} was expected to have {expected}, but had no effects.")
        fits = isinstance(effects[0], effect) if isinstance(effect, type) else effects[0] == effect
        if not fits:
            raise AssertionError(
                f"{self._cell.name} was expected to have {expected}, but had {shown(effects)}."
            )
        return effects.popleft()

    def expect_no_effects(self) -> None:
        if self._bench.effects:
            raise AssertionError(
                f"{self._cell.name} was expected to have no effects, but had {shown(self._bench.effects)}."
            )

    def _stop_watched(self, signal: Terminated) -> None:
        cause = signal.cause if isinstance(signal, ChildFailed) else None
        child = self._bench.runtime.cell(signal.ref)
        if child is None:
            self._cell.watched_stopped(signal.ref, cause)
        else:
            child.failure = cause
            child.order_stop()

    def _failure(self) -> BaseException | None:
        return self._cell.failure


class Reply(Generic[Answer]):
    """What became of a request: nothing yet, an answer, or an error."""

    def __init__(self, request: str, failure: Callable[[], BaseException | None]) -> None:
        self._request = request
        self._failure = failure
        self._settled: tuple[Any, GoatherdError | None] | None = None

    def settle(self, answer: Any, error: GoatherdError | None) -> None:
        """What the promise calls."""
        self._settled = (answer, error)

    @property
    def is_open(self) -> bool:
        """Whether the answer is still to come: of an actor that keeps the address, or has stashed."""
        return self._settled is None

    @property
    def answer(self) -> Answer:
        """The answer.

        Raises:
            GoatherdError: the error that came instead, because of what the actor raised if it did.
            AssertionError: nothing has come.
        """
        answer, error = self._outcome()
        if error is not None:
            failure = self._failure()
            raise error from (None if failure is error else failure)
        result: Answer = answer
        return result

    @property
    def error(self) -> GoatherdError:
        """The error. An answer in its place, or nothing, is an `AssertionError`."""
        answer, error = self._outcome()
        if error is None:
            raise AssertionError(f"{self._request} was expected to fail, but was answered {answer!r}.")
        return error

    def _outcome(self) -> tuple[Any, GoatherdError | None]:
        if self._settled is None:
            raise AssertionError(f"{self._request} has not been answered yet.")
        return self._settled
