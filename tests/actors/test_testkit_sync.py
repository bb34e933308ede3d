"""The synchronous testkit, each of its methods used as a test of an actor would."""

from __future__ import annotations

import pytest

from goatherd.actors import (
    ActorFailed,
    Behavior,
    ChildFailed,
    Context,
    DeathPact,
    PostStop,
    PreRestart,
    Ref,
    Refused,
    Signal,
    Terminated,
    empty,
    message,
    on,
    receive,
    receive_signal,
    restart,
    resume,
    setup,
    stopped,
    supervise,
    unhandled,
)
from goatherd.actors._signals import CancelRequested
from goatherd.actors.testkit import (
    BehaviorTestKit,
    Piped,
    Spawned,
    TestInbox,
    TimerStarted,
    Watched,
)
from tests.actors.shop import (
    Command,
    CountStock,
    Open,
    Opening,
    Order,
    Pack,
    Packer,
    Paid,
    Pay,
    Price,
    open_shop,
)


@pytest.fixture
def bank() -> TestInbox[Pay]:
    return TestInbox("bank")


# -- running messages, asking


def test_run_has_one_message_handled(bank: TestInbox[Pay]) -> None:
    kit = open_shop(bank)
    kit.run(CountStock())
    assert kit.expect_behavior(Open).counted == 1
    kit.expect_no_effects()


def test_ask_gives_the_answer(bank: TestInbox[Pay]) -> None:
    reply = open_shop(bank).ask(Price("bell"))
    assert reply.answer == 7
    with pytest.raises(AssertionError, match=r"was expected to fail, but was answered 7"):
        _ = reply.error


def test_ask_gives_the_error_that_it_was_refused_with(bank: TestInbox[Pay]) -> None:
    reply = open_shop(bank).ask(Order("goat"))
    assert reply.error.message == "There is no goat."
    with pytest.raises(Refused, match="no goat"):
        _ = reply.answer


def test_an_ask_that_fails_the_actor_says_why(bank: TestInbox[Pay]) -> None:
    kit = open_shop(bank)
    reply = kit.ask(Price("goat"))
    assert isinstance(reply.error, ActorFailed)
    assert not kit.is_alive
    with pytest.raises(ActorFailed) as failed:
        _ = reply.answer
    assert isinstance(failed.value.__cause__, KeyError)


def test_an_ask_is_open_until_it_is_answered(bank: TestInbox[Pay]) -> None:
    kit = open_shop(bank)
    reply = kit.ask(Order("bell"))
    assert reply.is_open
    with pytest.raises(AssertionError, match="has not been answered yet"):
        _ = reply.answer
    kit.run(Paid("bell", True))
    assert reply.answer == "on its way"


def test_ask_takes_a_function_that_makes_the_message() -> None:
    def answer(ctx: Context[Ref[str]], message: Ref[str]) -> Behavior[Ref[str]] | None:
        message.tell("here")
        return None

    assert BehaviorTestKit(receive(answer)).ask(lambda to: to).answer == "here"


def test_what_is_not_caught_is_raised_and_has_stopped_the_actor(bank: TestInbox[Pay]) -> None:
    kit = open_shop(bank)
    with pytest.raises(KeyError):
        kit.run(Price("goat"))
    assert not kit.is_alive
    kit.run(CountStock())
    assert [letter.message for letter in kit.dead_letters] == [CountStock()]


def test_what_fails_at_its_start_is_raised_where_the_kit_is_made() -> None:
    def fail(ctx: Context[str]) -> Behavior[str]:
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        BehaviorTestKit(setup(fail))


def test_a_rule_takes_what_is_raised_as_it_would_in_a_system(bank: TestInbox[Pay]) -> None:
    shop = supervise(Open(bank.ref, TestInbox[Pack]().ref, {}), on(KeyError, resume))
    kit: BehaviorTestKit[Command] = BehaviorTestKit(shop)
    kit.run(CountStock())
    kit.run(Price("goat"))
    assert kit.expect_behavior(Open).counted == 1
    assert isinstance(kit.log_entries[-1].error, KeyError)


# -- what it sends itself


@message
class CountDown:
    left: int


def count_down(ctx: Context[CountDown], message: CountDown) -> Behavior[CountDown] | None:
    if message.left == 0:
        return empty
    ctx.self.tell(CountDown(message.left - 1))
    return None


def test_what_it_tells_itself_waits_for_run_one() -> None:
    kit = BehaviorTestKit(receive(count_down))
    kit.run(CountDown(1))
    assert kit.has_messages
    assert kit.behavior is not empty
    kit.run_one()
    assert kit.behavior is empty
    with pytest.raises(AssertionError, match="subject has nothing to handle"):
        kit.run_one()


def test_run_comes_before_what_waits() -> None:
    kit = BehaviorTestKit(receive(count_down))
    kit.ref.tell(CountDown(5))
    kit.run(CountDown(0))
    assert kit.behavior is empty
    assert kit.has_messages


def test_run_all_goes_on_until_nothing_waits() -> None:
    kit = BehaviorTestKit(receive(count_down))
    kit.run(CountDown(9))
    kit.run_all()
    assert kit.behavior is empty


def test_setup_is_run_when_the_kit_is_made() -> None:
    def make(ctx: Context[str]) -> Behavior[str]:
        ctx.timers.once("late", "late", "1s")
        return empty

    kit = BehaviorTestKit(setup(make))
    assert kit.behavior is empty
    kit.expect(TimerStarted("late", "late", 1.0))


# -- children and inboxes


def test_a_child_inbox_keeps_what_the_child_got(bank: TestInbox[Pay]) -> None:
    kit = open_shop(bank)
    packer = kit.expect_behavior(Open).packer
    packer.tell(Pack("a"))
    packer.tell(Pack("b"))
    kit.run(CountStock())
    inbox = kit.child_inbox("packer")
    assert inbox.ref == packer
    assert inbox.receive_all() == [Pack("a"), Pack("b")]
    with pytest.raises(AssertionError, match=r"no child 'baker'\. It has had 'packer'"):
        kit.child_inbox("baker")


def test_an_inbox_takes_messages_in_their_order() -> None:
    inbox: TestInbox[int | str] = TestInbox("numbers")
    for number in (1, 2, 3, 4):
        inbox.ref.tell(number)
    assert inbox.has_messages
    assert inbox.receive() == 1
    assert inbox.expect(2) == 2
    assert inbox.expect_type(int) == 3
    assert inbox.receive_all() == [4]
    inbox.expect_nothing()


def test_an_inbox_shows_what_is_there_instead() -> None:
    inbox: TestInbox[object] = TestInbox("numbers")
    with pytest.raises(AssertionError, match="numbers expected 1, but nothing has come"):
        inbox.expect(1)
    with pytest.raises(AssertionError, match="numbers expected a message, but nothing has come"):
        inbox.receive()
    inbox.ref.tell(2)
    inbox.ref.tell("three")
    with pytest.raises(AssertionError, match=r"expected 1, but 2 has come\. Behind it: 'three'"):
        inbox.expect(1)
    with pytest.raises(AssertionError, match="expected a str, but 2 has come"):
        inbox.expect_type(str)
    with pytest.raises(AssertionError, match="expected nothing, but there is 2, 'three'"):
        inbox.expect_nothing()
    assert inbox.receive_all() == [2, "three"]


def test_inboxes_of_one_name_have_different_refs() -> None:
    assert TestInbox("a").ref != TestInbox("a").ref


def test_a_forwarded_request_is_answered_by_the_inbox() -> None:
    inbox: TestInbox[Price] = TestInbox()

    def forward(ctx: Context[Price], message: Price) -> Behavior[Price] | None:
        ctx.forward(inbox.ref, message)
        return None

    kit = BehaviorTestKit(receive(forward))
    answered, refused = kit.ask(Price("bell")), kit.ask(Price("goat"))
    inbox.expect(Price("bell"))
    inbox.reply(7)
    with pytest.raises(AssertionError, match="has nobody to answer"):
        inbox.reply(8)
    inbox.expect(Price("goat"))
    inbox.refuse(Refused("none"))
    assert answered.answer == 7
    assert isinstance(refused.error, Refused)


# -- signals and the end


def test_a_watched_child_stops_by_signal_and_its_name_is_free(bank: TestInbox[Pay]) -> None:
    def make(ctx: Context[str]) -> Behavior[str]:
        def again(ctx: Context[str], signal: Signal) -> Behavior[str] | None:
            if isinstance(signal, ChildFailed):
                ctx.log.info("failed: %s", signal.cause)
            ctx.watch(ctx.spawn(Packer(), "packer"))
            return None

        ctx.watch(ctx.spawn(Packer(), "packer"))
        return receive_signal(again)

    kit = BehaviorTestKit(setup(make))
    first = kit.expect(Spawned).ref
    kit.expect(Watched(first))
    kit.signal(ChildFailed(first, OSError("no glue")))
    assert kit.log_entries[-1].message == "failed: no glue"
    assert kit.expect(Spawned("packer")).ref != first
    with pytest.raises(AssertionError, match="does not watch"):
        kit.signal(Terminated(first))


def test_a_signal_that_nobody_handles_is_a_death_pact() -> None:
    inbox: TestInbox[str] = TestInbox()

    def make(ctx: Context[str]) -> Behavior[str]:
        ctx.watch(inbox.ref)
        return empty

    kit = BehaviorTestKit(setup(make))
    with pytest.raises(DeathPact):
        kit.signal(Terminated(inbox.ref))
    assert not kit.is_alive


def test_a_child_that_is_told_to_stop_is_gone_and_its_watcher_is_told(bank: TestInbox[Pay]) -> None:
    kit = open_shop(bank)
    packer = kit.expect_behavior(Open).packer
    kit.signal(Terminated(packer))  # It is watched with a message, which comes instead.
    assert not kit.is_alive
    packer.tell(Pack("late"))
    assert [letter.message for letter in kit.dead_letters] == [Pack("late")]


def noting(seen: list[Signal]) -> Behavior[str]:
    def note(ctx: Context[str], signal: Signal) -> Behavior[str] | None:
        seen.append(signal)
        return None

    return receive_signal(note)


def test_stop_has_the_actor_get_its_post_stop() -> None:
    seen: list[Signal] = []
    kit = BehaviorTestKit(noting(seen))
    kit.stop()
    assert seen == [PostStop()]
    assert not kit.is_alive


def test_other_signals_only_come_to_the_behavior() -> None:
    seen: list[Signal] = []
    kit = BehaviorTestKit(noting(seen))
    kit.signal(PreRestart())
    assert seen == [PreRestart()]
    assert kit.is_alive


def test_a_signal_may_change_the_behavior() -> None:
    class Tea(Signal):
        pass

    kit = BehaviorTestKit(receive_signal(lambda ctx, signal: stopped))
    kit.signal(Tea())
    assert not kit.is_alive


def test_a_request_to_cancel_that_is_not_handled_stops_the_actor() -> None:
    kit = BehaviorTestKit(receive_signal(lambda ctx, signal: unhandled))
    kit.signal(CancelRequested())
    assert not kit.is_alive


def test_expect_behavior_says_what_there_is_instead(bank: TestInbox[Pay]) -> None:
    kit: BehaviorTestKit[Command] = BehaviorTestKit(Opening(bank.ref), name="shop")
    with pytest.raises(AssertionError, match="shop was expected to be a Open, but is Opening"):
        kit.expect_behavior(Open)


def test_a_restart_at_once_starts_anew_and_stops_the_children() -> None:
    kit: BehaviorTestKit[Command] = BehaviorTestKit(
        Opening(TestInbox[Pay]().ref), supervise=[on(KeyError, restart())]
    )
    kit.expect(Piped).succeed({})
    packer = kit.child_inbox("packer").ref
    kit.run(Price("goat"))
    kit.expect_behavior(Opening)
    packer.tell(Pack("late"))
    assert [letter.message for letter in kit.dead_letters] == [Pack("late")]
