"""Corners of the rules that no other test would miss: found by mutation of the runtime."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from goatherd.actors import (
    Behavior,
    CancelRequested,
    Context,
    Signal,
    behavior,
    message,
    on,
    restart,
    restart_with_backoff,
    resume,
    stop,
    supervise,
    unhandled,
)
from goatherd.actors._activity import PutOff, activity
from goatherd.actors._mail import Notice
from goatherd.actors._signals import CANCEL_REQUESTED
from goatherd.actors._snapshot import dump

from .herd import Counter, Fail, Log, Total, asks, does, puppet, raises
from .manual import World

# -- supervision


def test_the_rules_of_a_behavior_come_before_those_of_its_spawn() -> None:
    world = World()
    inner = supervise(puppet(Log(), "it"), on(ValueError, resume))
    ref = world.spawn(inner, supervise=[on(Exception, stop)])

    world.tell(ref, raises(ValueError()))
    assert world.is_alive(ref)
    world.tell(ref, raises(KeyError()))

    assert not world.is_alive(ref)


def test_each_rule_counts_its_own_restarts() -> None:
    world = World()
    rules = [on(ValueError, restart(limit=1, within="1h")), on(KeyError, restart(limit=2, within="1h"))]
    ref = world.spawn(puppet(Log(), "it"), supervise=rules)

    for error in (KeyError(), KeyError(), ValueError()):
        world.tell(ref, raises(error))
        assert world.is_alive(ref)
    world.tell(ref, raises(ValueError()))
    assert not world.is_alive(ref)

    other = world.spawn(puppet(Log(), "other"), "other", supervise=rules)
    world.tell(other, raises(KeyError()), raises(KeyError()))
    assert world.is_alive(other)
    world.tell(other, raises(KeyError()))
    assert not world.is_alive(other)


def test_the_end_of_a_window_belongs_to_it() -> None:
    world = World()
    ref = world.spawn(puppet(Log(), "it"), supervise=[on(ValueError, restart(limit=1, within="10s"))])

    world.tell(ref, raises(ValueError()))
    world.advance("10s")
    world.tell(ref, raises(ValueError()))

    assert not world.is_alive(ref)


def test_a_window_that_is_over_forgets_its_restarts() -> None:
    world = World()
    ref = world.spawn(puppet(Log(), "it"), supervise=[on(ValueError, restart(limit=2, within="10s"))])

    for _ in range(3):
        world.tell(ref, raises(ValueError()), raises(ValueError()))
        assert world.is_alive(ref)
        world.advance("11s")


def test_a_timer_of_a_start_that_failed_does_not_ring() -> None:
    world, log = World(), Log()
    starts: list[None] = []

    def start(ctx: Context[Any]) -> None:
        starts.append(None)
        if len(starts) == 1:
            ctx.timers.once("first", "rang", "2s")
            raise ValueError

    world.spawn(puppet(log, "it", start), supervise=[on(ValueError, restart_with_backoff("1s", "1s"))])
    world.advance("5s")

    assert log == [("it", "start"), ("it", "start")]


def test_restarts_leave_no_watch_of_children_that_are_gone() -> None:
    world, log = World(), Log()

    def start(ctx: Context[Any]) -> None:
        ctx.watch(ctx.spawn(puppet(log, "child"), "child"))

    ref = world.spawn(puppet(log, "it", start), supervise=[on(ValueError, restart())])
    for _ in range(5):
        world.tell(ref, raises(ValueError()))

    assert len(world.cell(ref).watching) == 1


def test_one_that_is_stopped_in_its_backoff_leaves_no_timer() -> None:
    world = World()
    ref = world.spawn(puppet(Log(), "it"), supervise=[on(ValueError, restart_with_backoff("1h", "1h"))])
    world.tell(ref, raises(ValueError()))

    world.stop(ref)
    world.settle()

    assert not world.is_alive(ref)
    assert world.runtime.deadlines.earliest is None


# -- stash


def test_who_asked_what_was_stashed_is_not_told_of_a_failure_in_that_turn() -> None:
    world = World()
    ref = world.spawn(puppet(Log(), "it"), supervise=[on(ValueError, resume)])
    once: list[None] = []

    def stash_and_fail(ctx: Context[Any], request: Any) -> None:
        if not once:
            once.append(None)
            ctx.stash()
            raise ValueError
        ctx.reply(request, "late")

    outcome = world.ask(ref, asks(stash_and_fail))
    assert outcome.is_open
    world.tell(ref, does(lambda ctx: ctx.unstash_all()))

    assert outcome.value == "late"


# -- snapshots


@message
class Tick:
    pass


@behavior("tests.corners.ticker")
class Ticker(Behavior[Any]):
    """Counts ticks, one by one or at a rate; asked to cancel, it counts that too."""

    fixed_rate: bool = False
    once: bool = False
    ticks: int = 0
    cancels: int = 0

    def on_start(self, ctx: Context[Any]) -> None:
        if self.once:
            ctx.timers.once("tick", Tick(), "1s")
        else:
            ctx.timers.every("tick", Tick(), "1s", fixed_rate=self.fixed_rate)

    def receive(self, ctx: Context[Any], message: Any) -> Behavior[Any] | None:
        match message:
            case Tick():
                self.ticks += 1
            case Total():
                ctx.reply(message, self.ticks)
            case _:
                raise ValueError(message)
        return None

    def on_signal(self, ctx: Context[Any], signal: Signal) -> Behavior[Any] | None:
        if isinstance(signal, CancelRequested):
            self.cancels += 1
            return None
        return unhandled


def test_a_timer_whose_message_waits_in_a_snapshot_does_not_ring_again() -> None:
    world = World()
    ref = world.spawn(Ticker(once=True))
    world.environment.clock += 1
    world.ring()  # Its message is in the mailbox.

    world = world.reborn()
    world.settle()
    world.advance("5s")

    assert world.ask(world.runtime.resolve(ref.address), Total()).value == 1
    assert world.runtime.deadlines.earliest is None


@pytest.mark.parametrize(("fixed_rate", "ticks"), [(True, 5), (False, 1)])
def test_a_fixed_rate_is_kept_in_a_snapshot(fixed_rate: bool, ticks: int) -> None:
    world = World()
    ref = world.spawn(Ticker(fixed_rate=fixed_rate))

    world = world.reborn()
    world.oversleep("5s")

    assert world.ask(world.runtime.resolve(ref.address), Total()).value == ticks


def test_a_cancellation_that_waits_for_a_backoff_goes_along() -> None:
    world = World()
    rules = [on(ValueError, restart_with_backoff("2s", "2s"))]
    ref = world.spawn(Ticker(once=True), supervise=rules)
    world.tell(ref, Fail())
    world.cell(ref).deliver(Notice(CANCEL_REQUESTED))

    world = world.reborn()
    world.advance("2s")

    restarted = world.cell(world.runtime.resolve(ref.address)).behavior
    assert isinstance(restarted, Ticker)
    assert restarted.cancels == 1


def test_an_adapter_that_an_actor_never_had_is_nobody() -> None:
    world = World()
    ref = world.spawn(Counter())

    for number in ("7", "²"):
        world.runtime.resolve(f"{ref.address}~{number}").tell("lost")

    assert world.is_alive(ref)
    assert [letter for letter, _ in world.letters] == ["lost", "lost"]


# -- work that was put off


async def fetch(number: int) -> int:
    raise AssertionError("It was put off.")


class Moving(World):
    """No activity is begun: the run is about to end."""

    def __init__(self) -> None:
        super().__init__()

        def run(work: Awaitable[Any], done: Callable[[Any, BaseException | None], None]) -> Any:
            return PutOff(work)  # type: ignore[arg-type]

        self.environment.run = run  # type: ignore[method-assign]


@pytest.mark.parametrize("by", ["key", "handle"])
def test_work_that_was_put_off_can_be_cancelled(by: str) -> None:
    world, log = Moving(), Log()
    ref = world.spawn(puppet(log, "it"))

    def begin(ctx: Context[Any]) -> None:
        handle = ctx.pipe_to_self(activity(fetch, 1), str, type, key="work")
        if by == "key":
            ctx.cancel_work("work")
        else:
            handle.cancel()
            handle.cancel()

    world.tell(ref, does(begin))

    assert log[1:] == [("it", CancelledError)]
    assert world.cell(ref).work == {}  # Nor does the next run begin it.


def test_work_that_was_put_off_ends_with_its_actor() -> None:
    world, log = Moving(), Log()
    ref = world.spawn(puppet(log, "it"))
    world.tell(ref, does(lambda ctx: ctx.pipe_to_self(activity(fetch, 1), str, type)))

    world.stop(ref)
    world.settle()

    assert log == [("it", "start"), ("it", "PostStop")]
    assert dump(world.runtime)["cells"] == []
