"""Durable children, and what a durable actor learns of others: however they end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio.client import WorkflowExecutionStatus

from goatherd.actors import ActorFailed, ActorStopped, Unhandled
from goatherd.actors.durable import Entity
from goatherd.actors.durable._obituaries import Obituaries
from tests.actors.durable.accounts import (
    Account,
    AskHelper,
    Break,
    Close,
    Deposit,
    OpenAccount,
    Total,
    Transfer,
)
from tests.actors.durable.conftest import Bank
from tests.actors.durable.offices import Hire, Ignore, Leave, Log, Note, Observe, OfficeActor, OpenOffice, Pay
from tests.actors.durable.watching import until_closed
from tests.temporal import cli, eventually


async def open_office(bank: Bank, asks_per_run: int = 1_000) -> Entity[OpenOffice]:
    office = bank.system.entity(OfficeActor, f"office-{uuid4()}")
    await office.start(OpenOffice(asks_per_run=asks_per_run))
    return office


async def hired(bank: Bank, office: Entity[OpenOffice], total: int = 0) -> Entity[OpenAccount]:
    child = bank.system.entity(Account, f"child-{uuid4()}")
    await office.ask(Hire(child.id, total))
    assert await office.ask(Pay(child.id, 0)) == total + 1  # It has started, and had what it was told before.
    return child


async def logged(office: Entity[OpenOffice], line: str) -> None:
    async def has() -> bool:
        return line in await office.ask(Log())

    await eventually(has)


async def obituaries(bank: Bank, *gone: Entity[OpenAccount] | Entity[OpenOffice]) -> Obituaries:
    """When visibility shows those who are gone."""
    found = Obituaries(bank.client, [Account, OfficeActor], task_queue=bank.system.task_queue)
    ids = ", ".join(f'"{one.id}"' for one in gone)
    query = f'WorkflowId IN ({ids}) AND ExecutionStatus IN ("Terminated", "TimedOut")'

    async def listed() -> bool:
        return len([one async for one in bank.client.list_workflows(query)]) == len(gone)

    await eventually(listed)
    return found


async def test_what_is_told_before_a_child_has_started_comes_first(bank: Bank) -> None:
    office = await open_office(bank)
    child = await hired(bank, office, total=4)
    assert await child.ask(Total()) == 5


async def test_a_child_that_stops_is_gone(bank: Bank) -> None:
    office = await open_office(bank)
    child = await hired(bank, office)
    await child.ask(Close())
    await logged(office, f"gone {child.id}")

    # The child tells its end itself, and Temporal does: which comes first is open.
    async def forgotten() -> bool:
        return (await office.view()).children == []

    await eventually(forgotten)


async def test_a_child_that_fails_is_gone(bank: Bank) -> None:
    office = await open_office(bank)
    child = await hired(bank, office)
    with pytest.raises(ActorFailed):
        await child.ask(Break())
    await logged(office, f"gone {child.id}")


async def test_a_child_that_is_terminated_is_gone(bank: Bank) -> None:
    office = await open_office(bank)
    child = await hired(bank, office)
    await cli(bank.client, "workflow", "terminate", "--workflow-id", child.id)
    await logged(office, f"gone {child.id}")


async def test_a_child_stops_with_its_parent(bank: Bank) -> None:
    office = await open_office(bank)
    child = await hired(bank, office, total=2)
    await office.ask(Leave())
    assert await bank.client.get_workflow_handle(child.id).result() == 3


async def test_a_child_whose_id_is_taken_counts_as_stopped(bank: Bank) -> None:
    office, taken = await open_office(bank), await bank.account(total=3)
    await office.ask(Hire(taken.id))
    await logged(office, f"gone {taken.id}")
    assert (await office.view()).children == []
    assert await taken.ask(Total()) == 3  # What the child was told was not for this one.
    await office.ask(Leave())
    await bank.client.get_workflow_handle(office.id).result()
    assert await taken.ask(Total()) == 3


async def test_a_child_asks_its_parent_and_the_parent_its_child(bank: Bank) -> None:
    office = await open_office(bank)
    child = await hired(bank, office, total=1)
    assert await office.ask(Pay(child.id, 3)) == 5
    other = await hired(bank, office)
    assert await child.ask(Transfer(other.id, 2)) == 3
    with pytest.raises(Unhandled):  # The office takes no deposits.
        await child.ask(Transfer(office.id, 1))


async def test_an_actor_inside_of_another_tree_can_be_reached(bank: Bank) -> None:
    one, two = await bank.account(total=10), await bank.account()
    await two.ask(AskHelper(1))
    helper = next(actor["address"] for actor in (await two.view()).actors if "helper" in actor["address"])
    assert await one.ask(Transfer(helper, 4)) == 5


async def test_who_watches_an_actor_learns_that_it_was_terminated(bank: Bank) -> None:
    offices, account = [await open_office(bank) for _ in range(3)], await bank.account()
    for office in offices:
        await office.ask(Observe(account.id))
    await offices[2].ask(Ignore(account.id))

    async def watched() -> bool:
        watchers = {one.watcher for one in (await account.view()).watchers}
        return watchers == {offices[0].id, offices[1].id}

    await eventually(watched)
    await cli(bank.client, "workflow", "terminate", "--workflow-id", account.id)
    found = await obituaries(bank, account)
    await found.look()
    for office in offices[:2]:
        await logged(office, f"gone {account.id}")
    # Again, by another too: nobody hears it twice.
    assert await found.look() == 0
    await (await obituaries(bank, account)).look()
    for office in offices[:2]:
        assert (await office.ask(Log())).count(f"gone {account.id}") == 1
    assert await offices[2].ask(Log()) == []


async def test_a_parent_of_an_earlier_run_learns_that_its_child_was_terminated(bank: Bank) -> None:
    office = await open_office(bank, asks_per_run=2)
    child = await hired(bank, office)
    for _ in range(4):
        await office.ask(Note("n"))
    await cli(bank.client, "workflow", "terminate", "--workflow-id", child.id)
    await (await obituaries(bank, child)).look()
    await logged(office, f"gone {child.id}")
    assert (await office.view()).children == []


async def test_the_children_of_one_that_was_terminated_stop(bank: Bank) -> None:
    office = await open_office(bank)
    child = await hired(bank, office)
    await cli(bank.client, "workflow", "terminate", "--workflow-id", office.id)
    await (await obituaries(bank, office)).look()
    assert await bank.client.get_workflow_handle(child.id).result() == 1


async def test_one_that_ran_out_of_its_time_counts_as_stopped(bank: Bank) -> None:
    office = await open_office(bank)
    account = bank.system.entity(Account, f"acct-{uuid4()}")
    handle = await bank.client.start_workflow(
        Account.actor_type,
        OpenAccount(),
        id=account.id,
        task_queue=bank.system.task_queue,
        execution_timeout=timedelta(seconds=1),
    )
    await office.ask(Observe(account.id))
    await until_closed(handle, WorkflowExecutionStatus.TIMED_OUT)
    await (await obituaries(bank, account)).look()
    await logged(office, f"gone {account.id}")


async def test_one_that_an_operator_resets_is_not_mourned(bank: Bank) -> None:
    """What it did after the point that it was reset to is undone; the messages that came since come again."""
    office, account = await open_office(bank), await bank.account()
    await office.ask(Observe(account.id))
    assert await account.ask(Deposit(2)) == 2
    await cli(
        bank.client, "workflow", "reset", "--workflow-id", account.id, "--event-id", "4", "--reason", "test",
        "--yes",
    )  # fmt: skip
    await (await obituaries(bank, account)).look()
    assert await asyncio.wait_for(account.ask(Total()), 10.0) == 2
    assert await office.ask(Log()) == []
    # The office's watch came after that point, and counts again.
    await account.ask(Close())
    await logged(office, f"gone {account.id}")
    with pytest.raises(ActorStopped):
        await bank.system.entity(Account, "acct-nobody").ask(Total())
