"""Timers: keyed, one for each key, and gone with the behavior that started them."""

from __future__ import annotations

from typing import Any

import pytest

from goatherd.actors import Context, Ref, Signal, on, receive, restart

from .herd import Log, does, puppet, raises, stops
from .manual import START, World


def _it(log: Log, world: World) -> Ref[Any]:
    ref = world.spawn(puppet(log, "it"), supervise=[on(ValueError, restart())])
    log.clear()
    return ref


def test_a_timer_rings_once_at_its_time() -> None:
    world, log = World(), Log()
    ref = _it(log, world)
    world.tell(ref, does(lambda ctx: ctx.timers.once("key", "rang", "5s")))

    world.advance("4.9s")
    assert log == []
    world.advance("0.1s")
    assert log == [("it", "rang")]
    world.advance("1h")
    assert log == [("it", "rang")]


def test_a_new_timer_of_a_key_takes_the_place_of_the_old() -> None:
    world, log = World(), Log()
    ref = _it(log, world)

    def start(ctx: Context[Any]) -> None:
        ctx.timers.once("key", "old", "1s")
        ctx.timers.once("key", "new", "2s")

    world.tell(ref, does(start))
    world.advance("1h")

    assert log == [("it", "new")]


def test_the_message_of_a_replaced_timer_is_dropped_even_if_it_is_queued_already() -> None:
    world, log = World(), Log()
    ref = _it(log, world)
    world.tell(ref, does(lambda ctx: ctx.timers.once("key", "old", "1s")))
    ref.tell(does(lambda ctx: ctx.timers.once("key", "new", "1s")))
    world.environment.clock += 1
    world.ring()
    assert len(world.cell(ref).mailbox) == 2

    world.settle()
    assert log == []
    world.advance("1s")

    assert log == [("it", "new")]


def test_the_message_of_a_cancelled_timer_is_dropped_even_if_it_is_queued_already() -> None:
    world, log = World(), Log()
    ref = _it(log, world)
    world.tell(ref, does(lambda ctx: ctx.timers.once("key", "old", "1s")))
    ref.tell(does(lambda ctx: ctx.timers.cancel("key")))
    world.oversleep("1s")

    assert log == []


def test_timers_of_different_keys_and_actors_do_not_meet() -> None:
    world, log = World(), Log()
    one, other = world.spawn(puppet(log, "one"), "one"), world.spawn(puppet(log, "other"), "other")
    log.clear()
    world.tell(one, does(lambda ctx: ctx.timers.once("key", "a", "1s")))
    world.tell(one, does(lambda ctx: ctx.timers.once("other key", "b", "1s")))
    world.tell(other, does(lambda ctx: ctx.timers.once("key", "c", "1s")))

    world.advance("1s")

    assert log == [("one", "a"), ("one", "b"), ("other", "c")]


def test_timers_of_the_same_time_ring_in_the_order_of_their_start() -> None:
    world, log = World(), Log()
    ref = _it(log, world)

    def start(ctx: Context[Any]) -> None:
        for number in range(20):
            ctx.timers.once(f"{19 - number}", number, "1s")

    world.tell(ref, does(start))
    world.advance("1s")

    assert log == [("it", number) for number in range(20)]


def test_a_periodic_timer_rings_until_it_is_cancelled() -> None:
    world, log = World(), Log()
    ref = _it(log, world)
    world.tell(ref, does(lambda ctx: ctx.timers.every("key", "tick", "2s")))

    world.advance("6.5s")
    assert len(log) == 3
    world.tell(ref, does(lambda ctx: ctx.timers.cancel("key")))
    world.advance("1h")

    assert len(log) == 3


def test_a_periodic_timer_may_come_first_at_another_time() -> None:
    world, log = World(), Log()
    ref = _it(log, world)
    world.tell(ref, does(lambda ctx: ctx.timers.every("key", "tick", "10s", initial=0)))

    world.advance(0)
    assert len(log) == 1
    world.advance("10s")
    assert len(log) == 2


def test_with_a_fixed_delay_what_was_missed_is_not_made_up_for() -> None:
    world, log = World(), Log()
    ref = _it(log, world)
    world.tell(ref, does(lambda ctx: ctx.timers.every("key", "tick", "1s")))

    world.oversleep("5.5s")
    assert len(log) == 1
    world.advance("0.9s")
    assert len(log) == 1
    world.advance("0.1s")

    assert len(log) == 2


def test_at_a_fixed_rate_what_was_missed_comes_at_once_and_the_beat_is_kept() -> None:
    world, log = World(), Log()
    ref = _it(log, world)
    world.tell(ref, does(lambda ctx: ctx.timers.every("key", "tick", "1s", fixed_rate=True)))

    world.oversleep("5.5s")
    assert len(log) == 5
    world.advance("0.5s")

    assert len(log) == 6
    assert world.now == START + 6


def test_timers_end_with_a_restart_and_those_of_the_new_start_live() -> None:
    world, log = World(), Log()
    ref = world.spawn(
        puppet(log, "it", lambda ctx: ctx.timers.every("setup", "tick", "1s")),
        supervise=[on(ValueError, restart())],
    )
    world.tell(ref, does(lambda ctx: ctx.timers.once("key", "old", "1s")), raises(ValueError("boom")))
    log.clear()

    world.advance("2s")

    assert log == [("it", "tick"), ("it", "tick")]


def test_a_timers_message_that_is_queued_does_not_survive_a_restart() -> None:
    world, log = World(), Log()
    ref = _it(log, world)
    world.tell(ref, does(lambda ctx: ctx.timers.once("key", "old", "1s")))
    ref.tell(raises(ValueError("boom")))

    world.oversleep("1s")

    assert log == [("it", "PreRestart"), ("it", "start")]


def test_timers_end_with_the_actor() -> None:
    world, log = World(), Log()
    ref = _it(log, world)
    world.tell(ref, does(lambda ctx: ctx.timers.every("key", "tick", "1s")), stops())

    assert world.environment.due is None
    world.advance("1h")
    assert log == [("it", "PostStop")]
    assert world.letters == []


def test_cancel_all_and_is_active() -> None:
    world, log = World(), Log()
    ref = _it(log, world)
    active: list[bool] = []

    def act(ctx: Context[Any]) -> None:
        ctx.timers.once("a", "a", "1s")
        ctx.timers.every("b", "b", "1s")
        active.extend((ctx.timers.is_active("a"), ctx.timers.is_active("b"), ctx.timers.is_active("c")))
        ctx.timers.cancel_all()
        active.extend((ctx.timers.is_active("a"), ctx.timers.is_active("b")))

    world.tell(ref, does(act))
    world.advance("1h")

    assert active == [True, True, False, False, False]
    assert log == []


def test_once_rung_a_timer_is_not_active() -> None:
    world, log = World(), Log()
    ref = _it(log, world)
    active: list[bool] = []
    world.tell(ref, does(lambda ctx: ctx.timers.once("key", "rang", "1s")))
    world.advance("1s")

    world.tell(ref, does(lambda ctx: active.append(ctx.timers.is_active("key"))))

    assert active == [False]


def test_an_interval_must_be_positive() -> None:
    world, log = World(), Log()
    ref = _it(log, world)

    def act(ctx: Context[Any]) -> None:
        with pytest.raises(ValueError, match="positive"):
            ctx.timers.every("key", "tick", 0)
        with pytest.raises(ValueError, match="negative"):
            ctx.timers.once("key", "tick", -1)
        log.append(("it", "refused"))

    world.tell(ref, does(act))

    assert log == [("it", "refused")]


def test_many_cancelled_timers_do_not_fill_the_heap() -> None:
    world, log = World(), Log()
    ref = _it(log, world)

    def act(ctx: Context[Any]) -> None:
        for _ in range(10_000):
            ctx.timers.once("key", "rang", "1h")

    world.tell(ref, does(act))

    assert len(world.runtime.deadlines._heap) <= 128
    world.advance("1h")
    assert log == [("it", "rang")]


def test_a_timer_that_is_started_at_pre_restart_ends_with_it() -> None:
    world, log = World(), Log()

    def fails(ctx: Context[Any], message: Any) -> None:
        raise ValueError("boom")

    def start_one(ctx: Context[Any], signal: Signal) -> None:
        log.append(("it", type(signal).__name__))
        ctx.timers.once("key", "rang", "1s")

    ref = world.spawn(receive(fails, start_one), supervise=[on(ValueError, restart())])

    world.tell(ref, "fail")

    assert log == [("it", "PreRestart")]
    assert world.environment.due is None
