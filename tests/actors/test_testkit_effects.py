"""The synchronous testkit, effect by effect."""

from __future__ import annotations

import asyncio
import logging

import pytest

from goatherd.actors import (
    ActorStopped,
    AskTimeout,
    Behavior,
    Context,
    empty,
    message,
    on,
    receive,
    restart_with_backoff,
    resume,
    setup,
)
from goatherd.actors._activity import activity
from goatherd.actors.testkit import (
    Adapted,
    Asked,
    BehaviorTestKit,
    Piped,
    Spawned,
    Started,
    Stashed,
    Stopped,
    TestInbox,
    TimerCancelled,
    TimerStarted,
    Unstashed,
    Unwatched,
    WatchedWith,
)
from tests.actors.shop import (
    Close,
    Command,
    CountStock,
    Open,
    Opening,
    Order,
    Pack,
    Packer,
    PackerGone,
    Pay,
    Price,
    open_shop,
    read_prices,
)


@pytest.fixture
def bank() -> TestInbox[Pay]:
    return TestInbox("bank")


def test_effects_are_taken_in_their_order(bank: TestInbox[Pay]) -> None:
    kit: BehaviorTestKit[Command] = BehaviorTestKit(Opening(bank.ref))
    kit.expect(Piped).succeed({"bell": 7})
    spawned = kit.expect(Spawned("packer"))
    assert isinstance(spawned.behavior, Packer)
    assert spawned.supervise == (on(OSError, resume),)
    kit.expect(WatchedWith(spawned.ref, PackerGone()))
    kit.expect(TimerStarted("stock", CountStock(), delay_s=3_600, interval_s=3_600))
    kit.expect_no_effects()
    kit.run(Close())
    assert kit.effects() == [TimerCancelled("stock"), Unwatched(spawned.ref), Stopped("packer")]
    assert kit.effects() == []


def test_an_effect_that_was_not_expected_stays_and_is_shown(bank: TestInbox[Pay]) -> None:
    kit: BehaviorTestKit[Command] = BehaviorTestKit(Opening(bank.ref), name="shop")
    with pytest.raises(AssertionError) as wrong:
        kit.expect(Spawned("packer"))
    assert "shop was expected to have Spawned(name='packer'" in str(wrong.value)
    assert "but had Piped(work='read_prices')" in str(wrong.value)
    with pytest.raises(AssertionError, match="expected to have no effects, but had Piped"):
        kit.expect_no_effects()
    kit.expect(Piped)
    with pytest.raises(AssertionError, match="expected to have a Asked, but had no effects"):
        kit.expect(Asked)


def test_what_has_no_effect_is_none() -> None:
    def nothing(ctx: Context[str], message: str) -> Behavior[str] | None:
        ctx.timers.cancel("none")
        ctx.unwatch(ctx.self)
        ctx.watch(ctx.self)
        ctx.unstash_all()
        return None

    kit = BehaviorTestKit(receive(nothing))
    kit.run("")
    kit.expect_no_effects()


def test_the_stash_is_the_real_one(bank: TestInbox[Pay]) -> None:
    kit: BehaviorTestKit[Command] = BehaviorTestKit(Opening(bank.ref))
    piped = kit.expect(Piped)
    reply = kit.ask(Price("bell"))
    kit.expect(Stashed(Price("bell")))
    assert kit.stashed == 1
    piped.succeed({"bell": 7})
    assert kit.stashed == 0
    assert Unstashed(1) in kit.effects()
    kit.run_one()
    assert reply.answer == 7


def test_an_adapter_is_an_effect_and_works() -> None:
    got: list[str] = []

    def make(ctx: Context[str]) -> Behavior[str]:
        ctx.adapter(hex)

        def take(ctx: Context[str], message: str) -> Behavior[str] | None:
            got.append(message)
            return None

        return receive(take)

    kit = BehaviorTestKit(setup(make))
    kit.expect(Adapted(hex)).ref.tell(255)
    kit.run_one()
    assert got == ["0xff"]


# -- work and asks, by hand


def test_piped_work_fails_by_hand(bank: TestInbox[Pay]) -> None:
    kit: BehaviorTestKit[Command] = BehaviorTestKit(Opening(bank.ref))
    piped = kit.expect(Piped("read_prices"))
    piped.fail(OSError("no net"))
    assert not kit.is_alive
    entry = kit.log_entries[-1]
    assert (entry.level, entry.message, entry.error) == (logging.ERROR, "no prices: no net", None)
    with pytest.raises(AssertionError, match="read_prices is over already"):
        piped.succeed({})


def test_piped_work_can_be_cancelled_by_the_actor() -> None:
    seen: list[BaseException] = []

    def failed(error: BaseException) -> str:
        seen.append(error)
        return "failed"

    def make(ctx: Context[str]) -> Behavior[str]:
        work = ctx.pipe_to_self(read_prices("Bern"), str, failed)

        def cancel(ctx: Context[str], message: str) -> Behavior[str] | None:
            work.cancel()
            return None

        return receive(cancel)

    kit = BehaviorTestKit(setup(make))
    kit.run("cancel")
    kit.run_one()
    assert isinstance(seen[0], asyncio.CancelledError)


def test_an_ask_is_answered_by_hand(bank: TestInbox[Pay]) -> None:
    kit = open_shop(bank)
    reply = kit.ask(Order("bell"))
    asked = kit.expect(Asked(bank.ref, Pay(7)))
    assert asked.timeout_s == 5
    asked.answer(True)
    assert reply.answer == "on its way"
    kit.child_inbox("packer").expect(Pack("bell"))
    with pytest.raises(AssertionError, match="has its answer already"):
        asked.answer(True)


def test_an_ask_fails_by_hand(bank: TestInbox[Pay]) -> None:
    kit = open_shop(bank)
    reply = kit.ask(Order("bell"))
    kit.expect(Asked).fail(ActorStopped("The bank is closed."))
    assert reply.answer == "not paid"


def test_an_ask_can_be_answered_by_the_inbox_that_was_asked(bank: TestInbox[Pay]) -> None:
    kit = open_shop(bank)
    reply = kit.ask(Order("bell"))
    bank.expect(Pay(7))
    bank.reply(True)
    kit.run_one()
    assert reply.answer == "on its way"


def test_an_ask_without_an_answer_times_out_when_the_clock_is_moved(bank: TestInbox[Pay]) -> None:
    kit = open_shop(bank)
    reply = kit.ask(Order("bell"))
    kit.advance("4999ms")
    assert reply.is_open
    kit.advance("1ms")
    assert reply.answer == "not paid"


def test_an_effect_that_a_test_wrote_down_ends_nothing(bank: TestInbox[Pay]) -> None:
    with pytest.raises(AssertionError, match="use the one that `expect` returns"):
        Asked(bank.ref, Pay(7)).fail(AskTimeout("late"))


# -- timers


def test_ring_has_a_timer_ring_before_its_time(bank: TestInbox[Pay]) -> None:
    kit = open_shop(bank)
    kit.ring("stock")
    kit.ring("stock")
    assert kit.expect_behavior(Open).counted == 2


def test_a_timer_that_rings_once_is_over() -> None:
    kit = BehaviorTestKit(setup(start_timer))
    kit.ring("late")
    with pytest.raises(AssertionError, match="no timer 'late'"):
        kit.ring("late")


def start_timer(ctx: Context[str]) -> Behavior[str]:
    ctx.timers.once("late", "late", "1s")
    return receive(lambda ctx, message: None)


def test_advance_rings_what_is_due_at_its_own_time() -> None:
    times: list[tuple[str, float]] = []

    def make(ctx: Context[str]) -> Behavior[str]:
        ctx.timers.once("b", "b", "3s")
        ctx.timers.every("a", "a", "2s")

        def note(ctx: Context[str], message: str) -> Behavior[str] | None:
            times.append((message, ctx.now()))
            return None

        return receive(note)

    kit = BehaviorTestKit(setup(make))
    kit.advance("5s")
    assert times == [("a", 2.0), ("b", 3.0), ("a", 4.0)]


def test_a_restart_waits_for_its_backoff_and_keeps_what_comes() -> None:
    shop = Open(TestInbox[Pay]().ref, TestInbox[Pack]().ref, {})
    kit: BehaviorTestKit[Command] = BehaviorTestKit(
        shop, supervise=[on(KeyError, restart_with_backoff("1s", "8s"))]
    )
    kit.run(CountStock())
    kit.run(Price("goat"))
    kit.run(CountStock())
    assert kit.has_messages is False  # It waits, but can't be handled yet.
    kit.advance("1s")
    assert kit.expect_behavior(Open).counted == 1


# -- what is outside


@message
class Clerk:
    """Stands for a durable actor's type: nothing here runs it."""


def test_a_durable_child_is_an_effect_and_has_an_inbox() -> None:
    def make(ctx: Context[str]) -> Behavior[str]:
        ctx.start(Clerk, "clerk-1", "begin").tell("good morning")
        ctx.ref("bank-1").tell("open?")
        return empty

    kit = BehaviorTestKit(setup(make))
    kit.expect(Started(Clerk, "clerk-1", "begin"))
    kit.inbox("clerk-1").expect("good morning")
    kit.inbox("bank-1").expect("open?")


async def look_up(item: str) -> int:
    raise AssertionError("The kit runs no work.")


def test_a_piped_activity_says_what_it_calls() -> None:
    def make(ctx: Context[int]) -> Behavior[int]:
        ctx.pipe_to_self(activity(look_up, "bell"), int)
        return empty

    piped = BehaviorTestKit(setup(make)).expect(Piped("look_up"))
    assert piped.awaitable.argument == "bell"
