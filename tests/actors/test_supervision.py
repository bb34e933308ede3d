"""Supervision: what becomes of an actor that raised, and of its messages, timers and children."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from goatherd.actors import (
    Behavior,
    Context,
    Ref,
    Signal,
    behavior,
    on,
    receive,
    restart,
    restart_with_backoff,
    resume,
    same,
    stop,
    stopped,
    supervise,
)
from goatherd.actors._supervision import Backoff, Rule

from .herd import Add, Counter, Do, Fail, Log, Total, does, puppet, raises
from .manual import START, World

BOOM = raises(ValueError("boom"))


def _starts(log: Log) -> int:
    return log.count(("it", "start"))


def test_resume_drops_the_message_and_keeps_the_state() -> None:
    world = World()
    ref = world.spawn(Counter(), supervise=[on(ValueError, resume)])

    world.tell(ref, Add(1), Fail(), Add(2))

    assert world.ask(ref, Total()).value == 3


def test_restart_begins_with_the_state_that_it_was_spawned_with() -> None:
    world = World()
    ref = world.spawn(Counter(total=10), supervise=[on(ValueError, restart())])

    world.tell(ref, Add(1), Fail(), Add(2))

    assert world.ask(ref, Total()).value == 12


def test_restart_sends_pre_restart_and_never_post_stop() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"), supervise=[on(ValueError, restart())])

    world.tell(ref, BOOM, "next")

    assert log == [("it", "start"), ("it", "PreRestart"), ("it", "start"), ("it", "next")]


def test_stop_is_what_a_rule_may_say_too() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"), supervise=[on(ValueError, stop), on(Exception, resume)])

    world.tell(ref, raises(KeyError("x")), "alive", BOOM)

    assert log[1:] == [("it", "alive"), ("it", "PostStop")]


def test_a_rule_counts_for_its_class_and_those_below() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"), supervise=[on(LookupError, resume)])

    world.tell(ref, raises(KeyError("below")))
    assert world.is_alive(ref)
    world.tell(ref, BOOM)

    assert not world.is_alive(ref)


def test_nested_rules_are_asked_from_the_inside() -> None:
    world, log = World(), Log()
    inner = supervise(puppet(log, "it"), on(KeyError, resume))
    ref = world.spawn(supervise(inner, on(LookupError, stop), on(Exception, restart())))

    world.tell(ref, raises(KeyError("x")))
    assert _starts(log) == 1
    world.tell(ref, BOOM)
    assert _starts(log) == 2
    world.tell(ref, raises(IndexError("x")))

    assert not world.is_alive(ref)


def test_each_nested_rule_counts_its_own_restarts() -> None:
    world, log = World(), Log()
    rules = [on(KeyError, restart(limit=1)), on(ValueError, restart(limit=1))]
    ref = world.spawn(puppet(log, "it"), supervise=rules)

    world.tell(ref, BOOM, raises(KeyError("x")))
    assert _starts(log) == 3
    world.tell(ref, BOOM)

    assert not world.is_alive(ref)


def _family(log: Log, world: World, *rules: Rule) -> Ref[Any]:
    return world.spawn(
        puppet(log, "it", lambda ctx: ctx.spawn(puppet(log, "child"), "child")), supervise=rules
    )


def test_children_are_stopped_and_awaited_before_setup_runs_again() -> None:
    world, log = World(), Log()
    ref = _family(log, world, on(ValueError, restart()))
    log.clear()

    world.tell(ref, BOOM)

    assert log == [("it", "PreRestart"), ("child", "PostStop"), ("it", "start"), ("child", "start")]


def test_children_stay_if_told_so() -> None:
    world, log = World(), Log()

    def start(ctx: Context[Any]) -> None:
        if ctx.child("child") is None:
            ctx.spawn(puppet(log, "child"), "child")

    ref = world.spawn(puppet(log, "it", start), supervise=[on(ValueError, restart(stop_children=False))])
    child = world.cell(ref).children["child"].ref
    log.clear()

    world.tell(ref, BOOM)

    assert log == [("it", "PreRestart"), ("it", "start")]
    assert world.is_alive(child)


def test_the_end_of_children_at_a_restart_is_no_news_even_if_they_were_watched() -> None:
    world, log = World(), Log()

    def start(ctx: Context[Any]) -> None:
        ctx.watch(ctx.spawn(puppet(log, "child"), "child"))

    ref = world.spawn(puppet(log, "it", start), supervise=[on(ValueError, restart())])
    world.tell(ref, BOOM)

    assert not [what for who, what in log if who == "it" and "child" in what]
    assert world.is_alive(ref)


def test_messages_that_come_while_it_restarts_are_kept() -> None:
    world, log = World(), Log()
    refs: list[Ref[Any]] = []

    def last_words(ctx: Context[Any], signal: Signal) -> Behavior[Any]:
        refs[0].tell("from the child's end")
        return same

    def start(ctx: Context[Any]) -> None:
        ctx.spawn(receive(lambda c, m: None, last_words), "child")

    refs.append(world.spawn(puppet(log, "it", start), supervise=[on(ValueError, restart())]))
    world.tell(refs[0], BOOM, "queued")

    assert log[-2:] == [("it", "queued"), ("it", "from the child's end")]


def _backing_off(log: Log, world: World, **options: Any) -> Ref[Any]:
    rule = on(ValueError, restart_with_backoff("1s", "8s", **options))
    return world.spawn(puppet(log, "it"), supervise=[rule])


def test_messages_that_come_while_it_waits_are_kept_up_to_a_bound() -> None:
    world, log = World(), Log()
    ref = _backing_off(log, world, keep=2)
    world.tell(ref, BOOM)

    world.tell(ref, 1, 2, 3)
    outcome = world.ask(ref, Total())
    assert _starts(log) == 1
    world.advance("1s")

    assert log[-2:] == [("it", 1), ("it", 2)]
    assert world.letters[0] == (3, "mailbox-full")
    assert outcome.error.code == "mailbox-full"


def test_after_the_wait_the_mailbox_is_as_large_as_before() -> None:
    world, log = World(), Log()
    ref = _backing_off(log, world, keep=1)
    world.tell(ref, BOOM)
    world.advance("1s")

    world.tell(ref, 1, 2, 3)

    assert log[-3:] == [("it", 1), ("it", 2), ("it", 3)]


def test_messages_that_were_kept_survive_a_second_failure() -> None:
    world, log = World(), Log()
    fail_at_start = [False, True, True, False]

    def start(ctx: Context[Any]) -> None:
        if fail_at_start.pop(0):
            raise ValueError("at the start")

    rule = on(ValueError, restart_with_backoff("1s", "8s"))
    ref = world.spawn(puppet(log, "it", start), supervise=[rule])
    world.tell(ref, BOOM, 1)
    world.tell(ref, 2)
    world.advance("1s")
    world.tell(ref, 3)
    world.advance("10s")

    assert _starts(log) == 4
    assert log[-3:] == [("it", 1), ("it", 2), ("it", 3)]
    assert world.letters == []


def test_a_failure_at_the_start_is_retried_without_pre_restart() -> None:
    world, log = World(), Log()
    fail_at_start = [True, True, False]

    def start(ctx: Context[Any]) -> None:
        if fail_at_start.pop(0):
            raise ValueError("at the start")

    world.spawn(puppet(log, "it", start), supervise=[on(ValueError, restart())])

    assert log == [("it", "start")] * 3


def test_a_failure_at_the_start_stops_the_children_of_that_start() -> None:
    world, log = World(), Log()
    fail_at_start = [True, False]

    def start(ctx: Context[Any]) -> None:
        ctx.spawn(puppet(log, "child"), "child")
        if fail_at_start.pop(0):
            raise ValueError("at the start")

    ref = world.spawn(puppet(log, "it", start), supervise=[on(ValueError, restart())])

    assert world.is_alive(ref)
    assert log.count(("child", "PostStop")) == 1


def test_resume_can_not_help_at_the_start() -> None:
    world, log = World(), Log()

    def start(ctx: Context[Any]) -> None:
        raise ValueError("at the start")

    ref = world.spawn(puppet(log, "it", start), supervise=[on(ValueError, resume)])

    assert not world.is_alive(ref)


def test_the_limit_of_restarts_holds_at_the_start_too() -> None:
    world, log = World(), Log()

    def start(ctx: Context[Any]) -> None:
        raise ValueError("at the start")

    ref = world.spawn(puppet(log, "it", start), supervise=[on(ValueError, restart(limit=3))])

    assert _starts(log) == 4
    assert not world.is_alive(ref)


def test_the_window_of_a_limit_is_fixed_from_the_first_failure() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"), supervise=[on(ValueError, restart(limit=2, within="10s"))])

    world.tell(ref, BOOM)  # at 0: the window is from 0 to 10
    world.advance("9s")
    world.tell(ref, BOOM)
    world.advance("2s")
    world.tell(ref, BOOM)  # at 11: another window, though there was a failure 2 s ago
    world.tell(ref, BOOM)
    assert _starts(log) == 5
    world.advance("5s")
    world.tell(ref, BOOM)

    assert not world.is_alive(ref)


def test_one_failure_more_than_the_limit_in_a_window_stops() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"), supervise=[on(ValueError, restart(limit=2, within="10s"))])

    world.tell(ref, BOOM, BOOM)
    assert world.is_alive(ref)
    world.tell(ref, BOOM)

    assert log[-1] == ("it", "PostStop")


def test_a_limit_of_zero_never_restarts() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"), supervise=[on(ValueError, restart(limit=0))])

    world.tell(ref, BOOM)

    assert log == [("it", "start"), ("it", "PostStop")]


def _waits(world: World, log: Log, ref: Ref[Any], failures: int) -> list[float]:
    waits = []
    for _ in range(failures):
        world.tell(ref, BOOM)
        due = world.environment.due
        assert due is not None
        waits.append(due - world.now)
        world.advance(due - world.now)
    return waits


def test_backoff_doubles_up_to_the_maximum() -> None:
    world, log = World(), Log()
    ref = _backing_off(log, world)

    assert _waits(world, log, ref, 6) == [1, 2, 4, 8, 8, 8]


def test_backoff_adds_luck_in_proportion() -> None:
    world, log = World(seed=7), Log()
    ref = _backing_off(log, world, jitter=0.5)
    same_luck = World(seed=7).environment.random

    expected = [min(8.0, 2.0**n) * (1 + same_luck.random() * 0.5) for n in range(6)]

    assert _waits(world, log, ref, 6) == pytest.approx(expected)


def test_backoff_begins_anew_after_a_quiet_time_of_half_its_bounds() -> None:
    world, log = World(), Log()
    ref = _backing_off(log, world)
    assert _waits(world, log, ref, 3) == [1, 2, 4]

    world.advance(4.4)
    assert _waits(world, log, ref, 1) == pytest.approx([8])
    world.advance(4.5)

    assert _waits(world, log, ref, 2) == pytest.approx([1, 2])


def test_backoff_may_be_reset_after_another_time() -> None:
    world, log = World(), Log()
    ref = _backing_off(log, world, reset_after="1m")
    assert _waits(world, log, ref, 2) == [1, 2]

    world.advance("59s")
    assert _waits(world, log, ref, 1) == [4]
    world.advance("60s")

    assert _waits(world, log, ref, 1) == [1]


def test_backoff_gives_up_after_its_limit_in_a_row() -> None:
    world, log = World(), Log()
    ref = _backing_off(log, world, limit=2)
    _waits(world, log, ref, 2)

    world.tell(ref, BOOM)

    assert not world.is_alive(ref)


def test_backoff_of_a_thousand_failures_is_still_the_maximum() -> None:
    assert Backoff(1.0, 8.0).delay_s(5_000, Random(0)) == 8.0


def test_children_are_stopped_at_once_and_the_wait_goes_on() -> None:
    world, log = World(), Log()
    ref = _family(log, world, on(ValueError, restart_with_backoff("1s", "8s")))
    log.clear()

    world.tell(ref, BOOM)
    assert log == [("it", "PreRestart"), ("child", "PostStop")]
    world.advance("1s")

    assert log[2:] == [("it", "start"), ("child", "start")]
    assert world.now == START + 1


def test_who_is_stopped_while_it_waits_gets_no_post_stop_and_never_starts() -> None:
    world, log = World(), Log()
    ref = _backing_off(log, world)
    world.tell(ref, BOOM, "kept")
    log.clear()

    world.stop(ref)
    world.settle()
    world.advance("1h")

    assert log == []
    assert world.letters == [("kept", "stopped")]
    assert world.environment.due is None


def test_who_is_stopped_while_its_children_stop_for_a_restart_stops() -> None:
    world, log = World(), Log()
    refs: list[Ref[Any]] = []

    def order(ctx: Context[Any], signal: Signal) -> Behavior[Any]:
        world.stop(refs[0])
        return same

    def start(ctx: Context[Any]) -> None:
        ctx.spawn(receive(lambda c, m: stopped, order), "child")

    refs.append(world.spawn(puppet(log, "it", start), supervise=[on(ValueError, restart())]))
    world.tell(refs[0], BOOM)

    assert not world.is_alive(refs[0])
    assert _starts(log) == 1


def test_a_failure_at_a_signal_is_supervised_as_one_at_a_message() -> None:
    world = World()
    watched = world.spawn(puppet(Log(), "watched"), "watched")
    starts: list[int] = []

    def fails(ctx: Context[Any], signal: Signal) -> Behavior[Any]:
        raise ValueError("at a signal")

    def on_message(ctx: Context[Any], message: Any) -> None:
        starts.append(message)
        ctx.watch(watched)

    ref = world.spawn(receive(on_message, fails), supervise=[on(ValueError, resume)])
    world.tell(ref, 1)
    world.stop(watched)
    world.tell(ref, 2)

    assert starts == [1, 2]


def test_the_behavior_is_the_first_one_again_after_a_restart() -> None:
    world, log = World(), Log()
    ref = world.spawn(puppet(log, "it"), supervise=[on(ValueError, restart())])
    world.tell(ref, does(lambda ctx: None))
    world.tell(ref, Do(lambda ctx: puppet(log, "other")), BOOM, "hello")

    assert log[-1] == ("it", "hello")
    assert ("other", "PreRestart") in log


@behavior("tests.supervision.nested")
class Lists(Behavior[Any]):
    items: list[int]

    def receive(self, ctx: Context[Any], message: Any) -> Behavior[Any] | None:
        if message == "fail":
            raise ValueError("told to fail")
        self.items.append(message)
        return None


def test_what_a_behavior_holds_is_not_shared_with_its_next_start() -> None:
    world = World()
    items = [0]
    ref = world.spawn(Lists(items), supervise=[on(ValueError, restart())])

    world.tell(ref, 1, 2, "fail", 3)

    lists = world.cell(ref).behavior
    assert isinstance(lists, Lists)
    assert lists.items == [0, 3]
    assert items == [0]


@pytest.mark.parametrize(
    ("low", "high", "jitter"), [("0s", "1s", 0.0), ("2s", "1s", 0.0), ("1s", "2s", -0.1), ("1s", "2s", 1.1)]
)
def test_a_backoff_out_of_order_is_refused(low: str, high: str, jitter: float) -> None:
    with pytest.raises(ValueError, match="must"):
        restart_with_backoff(low, high, jitter)
