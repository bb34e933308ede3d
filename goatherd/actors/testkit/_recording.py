"""A context that does what any other does, and writes it down. Only children are not what was spawned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from goatherd.actors._behavior import Behavior
from goatherd.actors._context import Context, Timers
from goatherd.actors._duration import Duration, seconds
from goatherd.actors._environment import Work
from goatherd.actors._message import Request
from goatherd.actors._ref import Ref
from goatherd.actors._supervision import Rule, Supervised
from goatherd.actors._supervision import supervise as with_rules
from goatherd.actors.testkit._bench import Bench, HandWork
from goatherd.actors.testkit._effects import (
    Adapted,
    Asked,
    Piped,
    Spawned,
    Started,
    Stashed,
    Stopped,
    TimerCancelled,
    TimerStarted,
    Unstashed,
    Unwatched,
    Watched,
    WatchedWith,
)
from goatherd.actors.testkit._inbox import TestInbox
from goatherd.actors.testkit._mail import Mail, Recorder

M = TypeVar("M")
Child = TypeVar("Child")
Answer = TypeVar("Answer")
Value = TypeVar("Value")


class RecordingContext(Context[M]):
    """See the module. An effect is written down after it was had, so that what raises is none."""

    __slots__ = ("_bench",)

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.cell)
        self._bench = bench
        self.timers = RecordingTimers(bench)

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
        mail: Mail[Child] = Mail("")
        ref: Ref[Child] = super().spawn(Recorder(mail), name, mailbox=mailbox, stash=stash)
        mail.owner = ref.name
        self._bench.inboxes[ref.name] = TestInbox(mail=mail, ref=ref)
        supervised = with_rules(behavior, *supervise)
        self._bench.effects.append(Spawned(ref.name, supervised.behavior, ref, supervised.rules))
        return ref

    def stop(self, child: Ref[Any]) -> None:
        alive = self._cell.runtime.cell(child) is not None
        super().stop(child)
        if alive:
            self._bench.effects.append(Stopped(child.name))

    def start(self, kind: Any, child_id: str, start: Any = None) -> Ref[Any]:
        ref = super().start(kind, child_id, start)
        self._bench.effects.append(Started(kind, child_id, start))
        return ref

    # -- watching

    def watch(self, ref: Ref[Any]) -> None:
        before = len(self._cell.watching)
        super().watch(ref)
        if len(self._cell.watching) > before:
            self._bench.effects.append(Watched(ref))

    def watch_with(self, ref: Ref[Any], message: M) -> None:
        before = len(self._cell.watching)
        super().watch_with(ref, message)
        if len(self._cell.watching) > before:
            self._bench.effects.append(WatchedWith(ref, message))

    def unwatch(self, ref: Ref[Any]) -> None:
        before = len(self._cell.watching)
        super().unwatch(ref)
        if len(self._cell.watching) < before:
            self._bench.effects.append(Unwatched(ref))

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
        sent: list[Any] = [request]

        def made(reply_to: Ref[Answer]) -> Any:
            assert not isinstance(request, Request)
            sent[0] = request(reply_to)
            return sent[0]

        super().ask(ref, request if isinstance(request, Request) else made, ok, err, timeout=timeout)
        runtime = self._bench.runtime
        address = runtime.newest_promise

        def by_hand(value: Any, error: Any) -> None:
            promise = runtime.promises.get(address)
            if promise is None:
                raise AssertionError(f"The ask {sent[0]!r} has its answer already, or was too late.")
            self._bench.first(lambda: promise.tell(value) if error is None else promise.fail(error))

        self._bench.effects.append(Asked(ref, sent[0], seconds(timeout), by_hand))

    def pipe_to_self(
        self,
        work: Awaitable[Value],
        ok: Callable[[Value], M],
        err: Callable[[BaseException], M] | None = None,
        *,
        key: str | None = None,
    ) -> Work:
        under_way = super().pipe_to_self(work, ok, err, key=key)
        assert isinstance(under_way, HandWork)

        def by_hand(value: Any, error: BaseException | None) -> None:
            self._bench.first(lambda: under_way.end(value, error))

        self._bench.effects.append(Piped(under_way.name, work, by_hand))
        return under_way

    def adapter(self, adapt: Callable[[Value], M]) -> Ref[Value]:
        ref = super().adapter(adapt)
        self._bench.effects.append(Adapted(adapt, ref))
        return ref

    # -- stash

    def stash(self) -> None:
        super().stash()
        self._bench.effects.append(Stashed(self._cell.current))

    def unstash_all(self) -> None:
        count = self.stashed
        super().unstash_all()
        if count:
            self._bench.effects.append(Unstashed(count))


class RecordingTimers(Timers[M]):
    """As `RecordingContext`, for timers."""

    __slots__ = ("_bench",)

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.cell)
        self._bench = bench

    def cancel(self, key: str) -> None:
        active = self.is_active(key)
        super().cancel(key)
        if active:
            self._bench.effects.append(TimerCancelled(key))

    def cancel_all(self) -> None:
        active = list(self._cell.timers)
        super().cancel_all()
        self._bench.effects.extend(TimerCancelled(key) for key in active)

    def _start(
        self, key: str, message: M, delay_s: float, interval_s: float | None, *, fixed_rate: bool
    ) -> None:
        super()._start(key, message, delay_s, interval_s, fixed_rate=fixed_rate)
        self._bench.effects.append(TimerStarted(key, message, delay_s, interval_s, fixed_rate))
