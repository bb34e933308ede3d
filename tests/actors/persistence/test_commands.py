"""Commands, their one effect, and what waits while events are written."""

from __future__ import annotations

import asyncio

import pytest

from goatherd.actors import (
    ActorFailed,
    ActorStopped,
    Context,
    DeadLetter,
    LocalSystem,
    Refused,
    StashFull,
    Unhandled,
    on,
    resume,
)
from goatherd.actors import persistence as p
from goatherd.actors.persistence import EventsRejected, PersistRejected
from tests.actors.persistence.account import (
    Account,
    Bad,
    Balance,
    Break,
    Close,
    Command,
    Deposit,
    Event,
    Faulty,
    Lock,
    Money,
    Odd,
    Unlock,
    notes,
)


def written(*amounts: int) -> list[dict[str, int]]:
    return [{"amount": amount} for amount in amounts]


@pytest.fixture(params=["journal", "history"])
def kept_in(request: pytest.FixtureRequest, journal: Faulty) -> Faulty | None:
    return journal if request.param == "journal" else None


async def test_event_makes_the_state(owner: str, kept_in: Faulty | None) -> None:
    async with LocalSystem(journal=kept_in) as system:
        account = system.spawn(Account(owner), "it")
        assert await system.ask(account, Deposit(3)) == 3
        assert await system.ask(account, Deposit(4)) == 7
        assert await system.ask(account, Balance()) == 7
    assert notes(owner, tuple) == [("deposited", 3), ("deposited", 7)]


async def test_side_effects_run_only_after_the_journal_has_confirmed(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it")
        journal.hold("append")
        answer = asyncio.create_task(system.ask(account, Deposit(3)))
        await journal.reached["append"].wait()
        assert notes(owner, tuple) == []
        assert not answer.done()
        journal.let_go("append")
        assert await answer == 3
        assert notes(owner, tuple) == [("deposited", 3)]


async def test_events_persisted_together_are_one_append(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it")
        assert await system.ask(account, Deposit(2, parts=3)) == 6
        assert journal.calls["append"] == 1
        assert await journal.events(f"account-{owner}") == written(2, 2, 2)


async def test_no_event_writes_nothing_and_has_its_side_effects(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it")
        assert await system.ask(account, Deposit(2, parts=0)) == 0
        assert journal.calls["append"] == 0


async def test_commands_that_come_while_persisting_are_handled_after_in_order(
    owner: str, journal: Faulty
) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it")
        await system.ask(account, Balance())
        journal.hold("append")
        first = asyncio.create_task(system.ask(account, Deposit(1)))
        await journal.reached["append"].wait()
        rest = [asyncio.create_task(system.ask(account, Deposit(1))) for _ in range(50)]
        reads = [asyncio.create_task(system.ask(account, Balance())) for _ in range(3)]
        await asyncio.sleep(0)
        journal.let_go("append")
        assert await asyncio.gather(first, *rest) == list(range(1, 52))
        assert await asyncio.gather(*reads) == [51] * 3


async def test_order_holds_while_more_keep_coming(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it")
        asks = []
        for _ in range(60):
            asks += [asyncio.create_task(system.ask(account, Deposit(1))) for _ in range(3)]
            await asyncio.sleep(0)
        assert await asyncio.gather(*asks) == list(range(1, 181))


async def test_stash_while_persisting_is_bounded(owner: str, journal: Faulty) -> None:
    dead: list[DeadLetter] = []
    async with LocalSystem(journal=journal, on_dead_letter=dead.append) as system:
        account = system.spawn(Account(owner), "it", stash=2)
        await system.ask(account, Balance())
        journal.hold("append")
        first = asyncio.create_task(system.ask(account, Deposit(1)))
        await journal.reached["append"].wait()
        asks = [asyncio.create_task(system.ask(account, Deposit(1))) for _ in range(3)]
        with pytest.raises(StashFull):
            await asks[2]
        assert [letter.reason for letter in dead] == ["stash-full"]
        journal.let_go("append")
        assert [await first, await asks[0], await asks[1]] == [1, 2, 3]


async def test_stashed_commands_wait_for_unstash_all(owner: str, kept_in: Faulty | None) -> None:
    async with LocalSystem(journal=kept_in) as system:
        account = system.spawn(Account(owner), "it")
        await system.ask(account, Lock())
        asks = [asyncio.create_task(system.ask(account, Deposit(amount))) for amount in (5, 6)]
        assert await system.ask(account, Balance()) == 0
        account.tell(Unlock())
        assert await asyncio.gather(*asks) == [5, 11]


async def test_stashed_commands_stay_stashed_while_other_events_are_written(
    owner: str, journal: Faulty
) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it")
        await system.ask(account, Lock())
        waiting = asyncio.create_task(system.ask(account, Deposit(5)))
        later = [asyncio.create_task(system.ask(account, Lock())) for _ in range(5)]
        assert await asyncio.gather(*later) == ["locked"] * 5
        assert not waiting.done()
        account.tell(Unlock())
        assert await waiting == 5


async def test_stop_after_the_reply(owner: str, kept_in: Faulty | None) -> None:
    async with LocalSystem(journal=kept_in) as system:
        account = system.spawn(Account(owner), "it")
        assert await system.ask(account, Close()) == "closed"
        with pytest.raises(ActorStopped):
            await system.ask(account, Balance())


async def test_unhandled_command_is_told_so(owner: str, kept_in: Faulty | None) -> None:
    async with LocalSystem(journal=kept_in) as system:
        account = system.spawn(Account(owner), "it")
        with pytest.raises(Unhandled):
            await system.ask(account, Odd())


async def test_event_that_the_handler_refuses_is_not_written(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it", supervise=[on(ValueError, resume)])
        with pytest.raises(ActorFailed):
            await system.ask(account, Bad("handler"))
        assert journal.calls["append"] == 0
        assert await system.ask(account, Balance()) == 0


async def test_rejected_events_leave_the_actor_as_it_was(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it")
        with pytest.raises(EventsRejected):
            await system.ask(account, Bad("journal"))
        journal.fail["append"] = EventsRejected("no")
        with pytest.raises(EventsRejected, match="no"):
            await system.ask(account, Deposit(1))
        journal.fail.clear()
        assert await system.ask(account, Deposit(2)) == 2
        assert len(notes(owner, PersistRejected)) == 2
        assert notes(owner, tuple) == [("deposited", 2)]


async def test_failing_side_effect_leaves_its_events(owner: str, kept_in: Faulty | None) -> None:
    async with LocalSystem(journal=kept_in) as system:
        account = system.spawn(Account(owner), "it", supervise=[on(KeyError, resume)])
        account.tell(Break(after=True))
        assert await system.ask(account, Deposit(1)) == 2


async def test_commands_behind_a_failing_one_keep_their_order(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it", supervise=[on(KeyError, resume)])
        asks = []
        for _ in range(5):
            asks.append(asyncio.create_task(system.ask(account, Deposit(1))))
            await asyncio.sleep(0)
            account.tell(Break())
        assert await asyncio.gather(*asks) == [1, 2, 3, 4, 5]


async def test_asker_learns_that_the_actor_was_stopped_while_it_wrote(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it")
        await system.ask(account, Balance())
        journal.hold("append")
        answer = asyncio.create_task(system.ask(account, Deposit(1)))
        await journal.reached["append"].wait()
        await system.stop(account)
        with pytest.raises(ActorStopped, match="unknown"):
            await answer


class Careless(Account):
    """Does what an event-sourced behavior must not."""

    def on_command(self, ctx: Context[Command], state: Money, command: Command) -> p.Effect[Event] | None:
        match command:
            case Lock():
                return p.refuse(command, Refused("not you"))
            case Unlock():
                ctx.stash()
                return None
        return p.reply(Balance(), 3)


async def test_careless_commands_fail(owner: str, journal: Faulty) -> None:
    careless = p.event_sourced("tests.careless")(Careless)
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(careless(owner), "it", supervise=[on(ValueError, resume)])
        with pytest.raises(Refused, match="not you"):
            await system.ask(account, Lock())
        with pytest.raises(ActorFailed):
            await system.ask(account, Balance())
        account.tell(Unlock())
        with pytest.raises(Refused):
            await system.ask(account, Lock())


def test_name_can_be_taken_once() -> None:
    with pytest.raises(ValueError, match="already"):
        p.event_sourced("tests.account")(Careless)
