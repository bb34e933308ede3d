"""What an actor is after its start, its restart, or in a new run."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from goatherd.actors import (
    ActorFailed,
    ActorStopped,
    DeathPact,
    LocalSystem,
    NotDurable,
    on,
    restart,
    restart_with_backoff,
    resume,
)
from goatherd.actors import persistence as p
from goatherd.actors._snapshot import dump, restore
from goatherd.errors import Fenced, Unavailable
from tests.actors.persistence.account import (
    Account,
    Balance,
    Break,
    Deposit,
    Deposited,
    Faulty,
    Lock,
    Money,
    Unlock,
    noted,
    notes,
)


async def fill(journal: Faulty, owner: str, *amounts: int) -> None:
    for seq, amount in enumerate(amounts, 1):
        event = {"type": "tests.actors.persistence.account:Deposited", "value": {"amount": amount}}
        await journal.append(f"account-{owner}", seq, [event], writer="before")
    journal.calls.clear()


async def test_recovery_completes_on_an_empty_journal(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        system.spawn(Account(owner), "it")
        await noted(owner, p.RecoveryCompleted)
        assert journal.calls["read"] == 0


async def test_recovery_completes_once_and_before_the_first_command(owner: str, journal: Faulty) -> None:
    for kept_in in (journal, None):
        async with LocalSystem(journal=kept_in) as system:
            account = system.spawn(Account(owner), "it")
            account.tell(Deposit(1))
            await system.ask(account, Deposit(1))
    assert [type(one).__name__ for one in notes(owner)] == [
        *("RecoveryCompleted", "tuple", "tuple", "PostStop"),
        *("RecoveryCompleted", "tuple", "tuple", "PostStop"),
    ]


async def test_recovery_has_the_state_and_no_side_effects(owner: str, journal: Faulty) -> None:
    await fill(journal, owner, 1, 2, 3)
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it")
        assert await system.ask(account, Balance()) == 6
        assert notes(owner, tuple) == []
        assert journal.calls["append"] == 0
        assert await system.ask(account, Deposit(4)) == 10
    assert await journal.highest(f"account-{owner}") == 4


async def test_long_history_is_read_in_parts(
    owner: str, journal: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("goatherd.actors.persistence._calls.CHUNK", 3)
    await fill(journal, owner, *range(1, 11))
    async with LocalSystem(journal=journal) as system:
        assert await system.ask(system.spawn(Account(owner), "it"), Balance()) == 55
    assert journal.calls["read"] == 4


async def test_commands_that_come_while_recovering_are_handled_after(owner: str, journal: Faulty) -> None:
    await fill(journal, owner, 1)
    journal.hold("read")
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it")
        await journal.reached["read"].wait()
        asks = [asyncio.create_task(system.ask(account, Deposit(1))) for _ in range(3)]
        await asyncio.sleep(0)
        journal.let_go("read")
        assert await asyncio.gather(*asks) == [2, 3, 4]


@pytest.mark.parametrize("method", ["load_snapshot", "read"])
async def test_journal_that_cannot_be_read_fails_the_actor(owner: str, journal: Faulty, method: str) -> None:
    await fill(journal, owner, 1)
    journal.fail[method] = Unavailable("away")
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it")
        with pytest.raises(ActorStopped):
            await system.ask(account, Balance())
    (failed,) = notes(owner, p.RecoveryFailed)
    assert failed.cause is journal.fail[method]
    assert notes(owner, p.RecoveryCompleted) == []


async def test_missing_or_unreadable_events_fail_the_actor(owner: str, journal: Faulty) -> None:
    await fill(journal, owner, 1, 2)
    await journal.delete_events(f"account-{owner}", 1)
    async with LocalSystem(journal=journal) as system:
        with pytest.raises(ActorStopped):
            await system.ask(system.spawn(Account(owner), "it"), Balance())
        await journal.append(f"account-{owner}-b", 1, [{"type": "gone:Event", "value": {}}], writer="before")
        with pytest.raises(ActorStopped):
            await system.ask(system.spawn(Account(f"{owner}-b"), "b"), Balance())
    assert [type(one.cause) for one in notes(owner, p.RecoveryFailed)] == [p.RecoveryError]
    assert [type(one.cause) for one in notes(f"{owner}-b", p.RecoveryFailed)] == [NotDurable]


async def test_last_events_that_are_missing_fail_the_actor(owner: str, journal: Faulty) -> None:
    await fill(journal, owner, 1, 2)
    await journal.delete_events(f"account-{owner}", 2)
    async with LocalSystem(journal=journal) as system:
        with pytest.raises(ActorStopped):
            await system.ask(system.spawn(Account(owner), "it"), Balance())
    assert [type(one.cause) for one in notes(owner, p.RecoveryFailed)] == [p.RecoveryError]


async def test_commands_put_aside_while_others_wait_keep_their_order(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it")
        locked = asyncio.create_task(system.ask(account, Lock()))
        deposits = [asyncio.create_task(system.ask(account, Deposit(amount))) for amount in (1, 10, 100)]
        await locked
        account.tell(Unlock())
        assert await asyncio.gather(*deposits) == [1, 11, 111]


async def test_failed_append_stops_the_actor_and_tells_the_asker(owner: str, journal: Faulty) -> None:
    journal.fail["append"] = Unavailable("away")
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it")
        with pytest.raises(p.JournalFailed):
            await system.ask(account, Deposit(1))
        with pytest.raises(ActorStopped):
            await system.ask(account, Balance())
    assert notes(owner, tuple) == []


async def test_failed_append_restarts_by_rule_and_recovery_tells_what_was_written(
    owner: str, journal: Faulty
) -> None:
    async with LocalSystem(journal=journal) as system:
        rule = on(p.JournalFailed, restart_with_backoff("1ms", "2ms"))
        account = system.spawn(Account(owner), "it", supervise=[rule])
        journal.after["append"] = Unavailable("the answer was lost")
        with pytest.raises(p.JournalFailed):
            await system.ask(account, Deposit(1))
        journal.after.clear()
        assert await system.ask(account, Balance()) == 1
        assert await system.ask(account, Deposit(1)) == 2
    assert len(notes(owner, p.RecoveryCompleted)) == 2
    assert notes(owner, tuple) == [("deposited", 2)]


async def test_failed_append_can_only_be_resumed_by_recovery(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it", supervise=[on(Exception, resume)])
        journal.after["append"] = Unavailable("the answer was lost")
        with pytest.raises(p.JournalFailed):
            await system.ask(account, Deposit(1))
        journal.after.clear()
        assert await system.ask(account, Deposit(1)) == 2


async def test_second_writer_is_fenced(owner: str, journal: Faulty) -> None:
    async with LocalSystem("one", journal=journal) as one, LocalSystem("two", journal=journal) as two:
        first, second = one.spawn(Account(owner), "it"), two.spawn(Account(owner), "it")
        assert await one.ask(first, Balance()) == await two.ask(second, Balance()) == 0
        assert await one.ask(first, Deposit(1)) == 1
        with pytest.raises(Fenced):
            await two.ask(second, Deposit(1))
        assert await one.ask(first, Deposit(1)) == 2


@pytest.mark.parametrize("with_journal", [True, False])
async def test_restart_keeps_the_state_and_recovers_once(
    owner: str, journal: Faulty, with_journal: bool
) -> None:
    async with LocalSystem(journal=journal if with_journal else None) as system:
        account = system.spawn(Account(owner), "it", supervise=[on(KeyError, restart())])
        for round in range(1, 4):
            assert await system.ask(account, Deposit(1)) == round
            account.tell(Break())
        assert await system.ask(account, Balance()) == 3
    assert len(notes(owner, p.RecoveryCompleted)) == 4


async def test_restart_while_persisting_waits_for_what_is_on_its_way(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it", supervise=[on(DeathPact, restart())])
        await system.ask(account, Balance())
        watched = system.spawn(Account(f"{owner}-watched"), "watched")
        cell = system.runtime.cell(account)
        assert cell is not None
        cell.watch(watched, None)
        journal.hold("append")
        answer = asyncio.create_task(system.ask(account, Deposit(1)))
        await journal.reached["append"].wait()
        await system.stop(watched)
        with pytest.raises(ActorFailed, match="unknown"):
            await answer
        balance = asyncio.create_task(system.ask(account, Balance()))
        await asyncio.sleep(0)
        journal.let_go("append")
        assert await balance == 1
        assert await system.ask(account, Deposit(1)) == 2


async def test_stashed_commands_survive_a_restart(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it", supervise=[on(KeyError, restart())])
        await system.ask(account, Lock())
        asks = [asyncio.create_task(system.ask(account, Deposit(amount))) for amount in (1, 2, 3)]
        await system.ask(account, Balance())
        account.tell(Break())
        account.tell(Unlock())
        assert await asyncio.gather(*asks) == [1, 3, 6]


async def test_commands_that_waited_keep_their_order_over_a_restart(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it", supervise=[on(KeyError, restart())])
        await system.ask(account, Balance())
        journal.hold("append")
        asks = [asyncio.create_task(system.ask(account, Deposit(1)))]
        await journal.reached["append"].wait()
        account.tell(Break())
        asks += [asyncio.create_task(system.ask(account, Deposit(1))) for _ in range(5)]
        await asyncio.sleep(0)
        journal.let_go("append")
        assert await asyncio.gather(*asks) == [1, 2, 3, 4, 5, 6]


# -- old versions


@p.event_sourced("tests.old-account")
class OldAccount(Account):
    def upgrade_event(self, written: p.Json) -> list[p.Json]:
        match written:
            case {"type": "bank:Paid", "value": {"cents": cents}}:
                return [p.written(Deposited(cents // 100))]
            case {"type": "bank:Twice", "value": {"amount": amount}}:
                return [p.written(Deposited(amount))] * 2
            case {"type": "bank:Ad"}:
                return []
        return [written]

    def upgrade_state(self, written: p.Json) -> p.Json:
        if written["type"] == "bank:Purse":
            return p.written(Money(written["value"]["coins"]))
        return written


async def test_old_events_and_states_are_upgraded(owner: str, journal: Faulty) -> None:
    old = [
        {"type": "bank:Ad", "value": {}},
        {"type": "bank:Paid", "value": {"cents": 500}},
        {"type": "bank:Twice", "value": {"amount": 10}},
    ]
    await journal.append(f"account-{owner}", 1, old, writer="before")
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(OldAccount(owner), "it")
        assert await system.ask(account, Deposit(1)) == 26
        assert await journal.highest(f"account-{owner}") == 4
    await journal.save_snapshot(f"account-{owner}", 4, {"type": "bank:Purse", "value": {"coins": 7}})
    async with LocalSystem(journal=journal) as system:
        assert await system.ask(system.spawn(OldAccount(owner), "it"), Balance()) == 7


# -- a new run


def reborn(system: LocalSystem, **options: object) -> LocalSystem:
    other = LocalSystem(**options)  # type: ignore[arg-type]
    restore(other.runtime, json.loads(json.dumps(dump(system.runtime))))
    return other


@pytest.mark.parametrize("with_journal", [True, False])
async def test_new_run_goes_on_with_the_state_and_recovers_once(
    owner: str, journal: Faulty, with_journal: bool
) -> None:
    kept_in = journal if with_journal else None
    system = LocalSystem(journal=kept_in)
    account = system.spawn(Account(owner), "it", supervise=[on(KeyError, restart())])
    await system.ask(account, Deposit(1))
    await system.ask(account, Lock())
    account.tell(Deposit(5))
    await system.ask(account, Balance())
    for run in range(2, 5):
        system = reborn(system, journal=kept_in)
        p.resume(system.runtime)
        await noted(owner, p.RecoveryCompleted, run)
        account = system.runtime.resolve(account.address)
    account.tell(Unlock())
    assert await system.ask(account, Balance()) == 6
    account.tell(Break())
    assert await system.ask(account, Deposit(1)) == 7
    await system.close()
    assert len(notes(owner, p.RecoveryCompleted)) == 5


async def test_new_run_recovers_before_its_first_command_even_if_nobody_resumes(owner: str) -> None:
    system = LocalSystem()
    account = system.spawn(Account(owner), "it")
    await system.ask(account, Deposit(1))
    system = reborn(system)
    assert await system.ask(system.runtime.resolve(account.address), Deposit(1)) == 2
    await system.close()
    assert [type(one).__name__ for one in notes(owner)][:4] == [
        *("RecoveryCompleted", "tuple", "RecoveryCompleted", "tuple")
    ]


async def test_actor_cannot_be_written_down_while_it_persists(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(Account(owner), "it")
        await system.ask(account, Balance())
        journal.hold("append")
        answer = asyncio.create_task(system.ask(account, Deposit(1)))
        await journal.reached["append"].wait()
        with pytest.raises(NotDurable):
            dump(system.runtime)
        journal.let_go("append")
        await answer
        assert dump(system.runtime)


# -- crashes anywhere


class Crashing(Faulty):
    """Dies at the n-th call: before it is done, or after."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 1_000_000

    async def _gate(self, method: str) -> None:
        await super()._gate(method)
        self.left -= 1
        self.after.clear()
        if self.left == 0:
            raise Unavailable("killed before")
        if self.left == 1 and method == "append":
            self.after["append"] = Unavailable("killed after")


@p.event_sourced("tests.crashing-account", snapshot=p.every(3, keep=2, delete_events=True))
class CrashingAccount(Account):
    pass


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), commands=st.integers(1, 25), crashes=st.integers(0, 8))
async def test_recovers_to_the_same_state_wherever_it_crashes(seed: int, commands: int, crashes: int) -> None:
    luck = random.Random(seed)
    journal = Crashing()
    owner = f"crash-{seed}"
    confirmed = possible = 0  # what was answered, and what may have been written besides
    for life in range(crashes + 1):
        journal.left = luck.randint(2, 40) if life < crashes else 1_000_000
        async with LocalSystem(journal=journal) as system:
            account = system.spawn(CrashingAccount(owner), "it")
            try:
                balance = await system.ask(account, Balance())
                assert confirmed <= balance <= confirmed + possible
                assert balance in (confirmed, confirmed + possible)
                confirmed, possible = balance, 0
                for _ in range(commands):
                    amount, parts = luck.randint(1, 9), luck.randint(1, 4)
                    possible = amount * parts
                    confirmed = await system.ask(account, Deposit(amount, parts))
                    possible = 0
            except (p.JournalFailed, ActorStopped):
                assert life < crashes
    async with LocalSystem(journal=journal) as system:
        assert await system.ask(system.spawn(CrashingAccount(owner), "it"), Balance()) == confirmed
