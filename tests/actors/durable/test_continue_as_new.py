"""A run that continues as new hands everything on: nobody can tell, however often it does."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from temporalio.client import WorkflowExecutionStatus

from goatherd.actors import ActorFailed, ActorStopped
from goatherd.actors.durable import Entity
from tests.actors.durable.accounts import RELEASES, Account, Close, OpenAccount, Total
from tests.actors.durable.conftest import Bank
from tests.actors.durable.offices import (
    Fetch,
    Forget,
    Hire,
    Hold,
    Ignore,
    Leave,
    Log,
    Note,
    Observe,
    OfficeActor,
    OpenOffice,
    Pay,
    Release,
    Remind,
    Repeat,
    Try,
    Whisper,
    Work,
)
from tests.actors.durable.watching import until_closed
from tests.histories import runs
from tests.temporal import eventually

NEVER = 1_000


async def open_office(bank: Bank, asks_per_run: int) -> Entity[OpenOffice]:
    office = bank.system.entity(OfficeActor, f"office-{uuid4()}")
    await office.start(OpenOffice(asks_per_run=asks_per_run))
    return office


async def log_has(office: Entity[OpenOffice], *lines: str) -> None:
    async def has() -> bool:
        log = await office.ask(Log())
        return all(line in log for line in lines)

    await eventually(has)


def release(name: str) -> None:
    RELEASES.setdefault(name, asyncio.Event()).set()


@pytest.mark.parametrize("asks_per_run", [NEVER, 1, 2, 3, 4, 5, 6, 7])
async def test_the_next_run_has_all_that_the_last_one_had(bank: Bank, asks_per_run: int) -> None:
    office = await open_office(bank, asks_per_run)
    child, other = f"child-{uuid4()}", await bank.account(total=10)

    # A stash, with its askers.
    held = [asyncio.create_task(office.ask(Hold(text))) for text in ("a", "b")]
    assert await office.ask(Note("first")) == 1
    # Timers: one that rings, one that is cancelled in a later run, one that rings again and again.
    await office.ask(Remind("soon", 0.3))
    await office.ask(Remind("never", 60.0))
    await office.ask(Repeat(0.2))
    # Restart counters: two restarts, and the third failure is one too many.
    assert await office.ask(Work()) == 1
    for _ in range(2):
        with pytest.raises(ActorFailed):
            await office.ask(Work(fail=True))
    assert await office.ask(Work()) == 1
    await office.ask(Forget("never"))
    # A mailbox: who recovers has messages waiting.
    with pytest.raises(ActorFailed):
        await office.ask(Try(fail=True))
    tried = [asyncio.create_task(office.ask(Try())) for _ in range(3)]
    # Durable actors: a child, and one that is watched.
    await office.ask(Hire(child, total=5))
    await office.ask(Observe(other.id))
    assert await office.ask(Pay(child, 4)) == 10  # 5, the 1 that it was told, and 4
    assert await office.ask(Release()) == 2
    assert await asyncio.gather(*held) == [1, 2]
    assert await asyncio.gather(*tried) == [1, 2, 3]
    with pytest.raises(ActorFailed):
        await office.ask(Work(fail=True))
    with pytest.raises(ActorStopped):
        await office.ask(Work())
    await office.tell(Whisper("told"))
    await log_has(office, "rang soon", "ticked 3 times", "gone clerk", "told")

    await bank.system.entity(Account, child).ask(Close())
    await other.ask(Close())
    await log_has(office, f"gone {child}", f"gone {other.id}")
    log = await office.ask(Log())
    assert log[:1] == ["first"]
    assert sorted(log[1:]) == sorted(
        ["rang soon", "ticked 3 times", "a", "b", "gone clerk", "told", f"gone {child}", f"gone {other.id}"]
    )
    view = await office.view()
    assert [(one["address"], one["mailbox"], one["stash"], one["timers"]) for one in view.actors] == [
        (office.id, 0, 0, []),
        (f"{office.id}/trainee#3", 0, 0, []),
    ]
    assert (view.asks, view.children, view.watchers) == (0, [], [])
    await office.ask(Leave())
    assert (len(await runs(bank.client, office.id)) == 1) == (asks_per_run == NEVER)


@pytest.mark.parametrize("asks_per_run", [1, 3])
async def test_an_activity_under_way_is_waited_for(bank: Bank, asks_per_run: int) -> None:
    office, name = await open_office(bank, asks_per_run), str(uuid4())
    fetched = asyncio.create_task(office.ask(Fetch(name)))
    for number in range(1, 6):
        assert await office.ask(Note("n")) == number
    view = await office.view()
    assert view.actors[0]["work"] == 1
    release(name)
    assert await fetched == 1
    assert len(await runs(bank.client, office.id)) > 1


async def test_an_activity_begun_while_moving_runs_in_the_next_run(bank: Bank) -> None:
    office, first, second = await open_office(bank, 2), str(uuid4()), str(uuid4())
    release(second)
    before = asyncio.create_task(office.ask(Fetch(first)))
    await office.ask(Note("n"))
    await office.ask(Note("n"))  # Worn out, and waits for the first.
    put_off = asyncio.create_task(office.ask(Fetch(second)))
    await office.ask(Note("n"))
    assert not put_off.done()
    assert len(await runs(bank.client, office.id)) == 1
    release(first)
    assert (await before, await put_off) == (1, 1)
    assert (await office.ask(Log())).count("fetched") == 2
    assert len(await runs(bank.client, office.id)) > 1


async def test_a_durable_child_outlives_its_parents_run_and_still_stops_with_it(bank: Bank) -> None:
    office, child = await open_office(bank, 2), f"child-{uuid4()}"
    await office.ask(Hire(child))
    for _ in range(6):
        await office.ask(Note("n"))
    account = bank.system.entity(Account, child)
    assert await account.ask(Total()) == 1
    assert len(await runs(bank.client, office.id)) > 2
    await office.ask(Leave())
    assert await bank.client.get_workflow_handle(child).result() == 1


async def test_a_child_that_ends_in_a_later_run_is_no_child_any_more(bank: Bank) -> None:
    office, child = await open_office(bank, 2), f"child-{uuid4()}"
    await office.ask(Hire(child))
    await office.ask(Ignore(child))
    for _ in range(6):
        await office.ask(Note("n"))
    assert (await office.view()).children == [child]
    await bank.system.entity(Account, child).ask(Close())

    async def forgotten() -> bool:
        return (await office.view()).children == []

    await eventually(forgotten)
    assert f"gone {child}" not in await office.ask(Log())


async def test_nothing_told_is_lost_or_doubled_while_runs_end(bank: Bank) -> None:
    """A signal that comes with a run's last task makes Temporal do that task again, with it."""
    office = await open_office(bank, 1)

    async def tell(teller: int) -> None:
        for number in range(20):
            await office.tell(Whisper(f"told {teller} {number}"))

    async def ask() -> None:
        for number in range(20):
            await office.ask(Note(f"asked {number}"))

    await asyncio.gather(ask(), *(tell(teller) for teller in range(4)))
    log = await office.ask(Log())
    assert [line for line in log if line.startswith("asked")] == [f"asked {n}" for n in range(20)]
    for teller in range(4):
        own = [line for line in log if line.startswith(f"told {teller} ")]
        assert own == [f"told {teller} {number}" for number in range(20)]
    assert len(await runs(bank.client, office.id)) > 10


async def test_an_id_counts_once_across_many_runs(bank: Bank) -> None:
    office = await open_office(bank, 1)
    for number in range(10):
        await office.tell(Whisper("w"), id="whisper")
        assert await office.ask(Note("n"), id=f"note {number}") == number + 2
        assert await office.ask(Note("n"), id="note 0") == 2
    log = await office.ask(Log())
    assert (log.count("n"), log.count("w")) == (10, 1)


async def test_a_cancelled_run_that_waits_for_an_activity_stops_all_the_same(bank: Bank) -> None:
    office, name = await open_office(bank, 1), str(uuid4())
    fetched = asyncio.create_task(office.ask(Fetch(name)))
    await office.ask(Note("n"))
    handle = bank.client.get_workflow_handle(office.id)
    await handle.cancel()
    with pytest.raises(ActorStopped):
        await fetched
    release(name)
    await until_closed(handle, WorkflowExecutionStatus.CANCELED)


async def test_an_open_ask_is_answered_in_a_later_run(bank: Bank) -> None:
    office = await open_office(bank, 1)
    held = [asyncio.create_task(office.ask(Hold(f"held {number}"))) for number in range(30)]
    for _ in range(3):
        await office.ask(Note("n"))
    assert await office.ask(Release()) == 30
    assert await asyncio.gather(*held) == list(range(1, 31))


async def test_a_start_that_is_under_way_is_waited_for(bank: Bank) -> None:
    """The run that starts a child is over at once."""
    office, child = await open_office(bank, 1), f"child-{uuid4()}"
    await office.ask(Hire(child, total=2))
    assert await office.ask(Pay(child, 0)) == 3
    with pytest.raises(ActorStopped):
        await bank.system.entity(Account, "acct-none").ask(Total())
    account = bank.system.entity(Account, child)
    assert await account.start(OpenAccount()) is False
    await account.ask(Close())
    await log_has(office, f"gone {child}")
