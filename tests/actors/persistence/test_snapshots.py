"""Snapshots: when they are taken, what is deleted after them, and that none of it may fail the actor."""

from __future__ import annotations

import asyncio

import pytest

from goatherd.actors import LocalSystem
from goatherd.actors import persistence as p
from goatherd.errors import Invalid, Unavailable
from tests.actors.persistence.account import Account, Balance, Deposit, Faulty, noted, notes


@p.event_sourced("tests.account-every-3", snapshot=p.every(3, keep=2, delete_events=True))
class EveryThree(Account):
    pass


@p.event_sourced("tests.account-when", snapshot=p.when(lambda state, event, seq: event.amount >= 100))
class WhenMuch(Account):
    pass


async def test_snapshot_every_n_events_keeps_k_and_deletes_events_before(owner: str, journal: Faulty) -> None:
    persistence_id = f"account-{owner}"
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(EveryThree(owner), "it")
        for number in range(1, 10):
            await system.ask(account, Deposit(number))
            if number % 3 == 0:
                await noted(owner, p.DeleteSnapshotsCompleted, number // 3)
        await noted(owner, p.DeleteEventsCompleted, 2)
    assert [one.seq for one in notes(owner, p.SnapshotCompleted)] == [3, 6, 9]
    assert [one.oldest for one in notes(owner, p.DeleteSnapshotsCompleted)] == [0, 3, 6]
    assert [one.upto for one in notes(owner, p.DeleteEventsCompleted)] == [3, 6]
    assert await journal.events(persistence_id) == [{"amount": 7}, {"amount": 8}, {"amount": 9}]


async def test_recovers_from_the_snapshot_and_the_later_events(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(EveryThree(owner), "it")
        for _ in range(4):
            await system.ask(account, Deposit(1))
        await noted(owner, p.SnapshotCompleted)
    await journal.delete_events(f"account-{owner}", 3)
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(EveryThree(owner), "it")
        assert await system.ask(account, Balance()) == 4
        assert await system.ask(account, Deposit(1)) == 5
    assert await journal.highest(f"account-{owner}") == 5


async def test_snapshot_is_taken_after_events_persisted_together(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(EveryThree(owner), "it")
        await system.ask(account, Deposit(1, parts=2))
        await system.ask(account, Deposit(1, parts=3))
        assert (await noted(owner, p.SnapshotCompleted))[0].seq == 5


async def test_snapshot_by_predicate(owner: str, journal: Faulty) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(WhenMuch(owner), "it")
        for amount in (1, 100, 2):
            await system.ask(account, Deposit(amount))
        assert [one.seq for one in await noted(owner, p.SnapshotCompleted)] == [2]
        assert journal.calls["delete_snapshots"] == 0


async def test_commands_do_not_wait_for_a_snapshot_and_the_next_is_made_up_for(
    owner: str, journal: Faulty
) -> None:
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(EveryThree(owner), "it")
        journal.hold("save_snapshot")
        for number in range(1, 8):
            assert await system.ask(account, Deposit(1)) == number
        assert journal.calls["save_snapshot"] == 1
        journal.let_go("save_snapshot")
        assert [one.seq for one in await noted(owner, p.SnapshotCompleted, 2)] == [3, 7]


@pytest.mark.parametrize("error", [Invalid("3 MB is too large"), RuntimeError("anything")])
async def test_failed_snapshot_is_told_and_the_actor_lives(
    owner: str, journal: Faulty, error: Exception
) -> None:
    journal.fail["save_snapshot"] = error
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(EveryThree(owner), "it")
        for number in range(1, 7):
            assert await system.ask(account, Deposit(1)) == number
        failed = await noted(owner, p.SnapshotFailed, 2)
        assert [(one.seq, one.cause) for one in failed] == [(3, error), (6, error)]
        assert journal.calls["delete_snapshots"] == 0
    async with LocalSystem(journal=journal) as system:
        assert await system.ask(system.spawn(EveryThree(owner), "it"), Balance()) == 6


async def test_failed_deletions_are_told_and_the_actor_lives(owner: str, journal: Faulty) -> None:
    journal.fail["delete_snapshots"] = Unavailable("away")
    async with LocalSystem(journal=journal) as system:
        account = system.spawn(EveryThree(owner), "it")
        for _ in range(3):
            await system.ask(account, Deposit(1))
        await noted(owner, p.DeleteSnapshotsFailed)
        journal.fail = {"delete_events": Unavailable("away")}
        for _ in range(3):
            await system.ask(account, Deposit(1))
        await noted(owner, p.DeleteEventsFailed)
        assert await system.ask(account, Balance()) == 6


async def test_no_snapshot_without_a_journal(owner: str) -> None:
    async with LocalSystem() as system:
        account = system.spawn(EveryThree(owner), "it")
        assert await asyncio.gather(*(system.ask(account, Deposit(1)) for _ in range(3))) == [1, 2, 3]
    assert notes(owner, p.SnapshotCompleted) == []


@pytest.mark.parametrize(
    ("events", "keep", "delete_events"), [(0, 2, False), (-1, 2, False), (1, 0, False), (1, None, True)]
)
def test_retention_that_makes_no_sense_is_refused(events: int, keep: int | None, delete_events: bool) -> None:
    with pytest.raises(ValueError, match=r"makes no sense|say how many"):
        p.every(events, keep=keep, delete_events=delete_events)
