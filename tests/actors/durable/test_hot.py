"""One actor that everybody talks to: nothing collapses, all is in order, and who is too many is told so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from goatherd.actors.durable import ActorSystem, Busy, Entity
from goatherd.actors.durable._lane import MOST_WAITING
from goatherd.errors import Conflict
from tests.actors.durable.accounts import Account, Deposit, Later, OpenAccount, Total, Withdraw
from tests.actors.durable.offices import Note, OfficeActor, OpenOffice
from tests.histories import runs
from tests.temporal import PATIENCE_S
from workers.sandbox import workflow_runner

ACCEPTED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED
COMPLETED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED


@pytest.fixture
async def system(temporal: WorkflowEnvironment) -> AsyncIterator[ActorSystem]:
    system = ActorSystem(temporal.client, task_queue=str(uuid4()), ask_timeout_s=PATIENCE_S)
    async with Worker(
        temporal.client,
        task_queue=system.task_queue,
        workflows=[Account, OfficeActor],
        workflow_runner=workflow_runner(sandboxed=False),
    ):
        yield system


async def open_office(system: ActorSystem, asks_per_run: int) -> Entity[OpenOffice]:
    office = system.entity(OfficeActor, f"office-{uuid4()}")
    await office.start(OpenOffice(asks_per_run=asks_per_run))
    return office


def most_in_flight(history: WorkflowHistory) -> int:
    most = now = 0
    for event in history.events:
        now += (event.event_type == ACCEPTED) - (event.event_type == COMPLETED)
        most = max(most, now)
    return most


def updates(history: WorkflowHistory) -> int:
    return sum(event.event_type == ACCEPTED for event in history.events)


async def test_ten_thousand_asks_at_once_are_each_answered_in_order(system: ActorSystem) -> None:
    office = await open_office(system, 6)
    senders = 100
    asks = MOST_WAITING // senders

    async def ask(sender: int, number: int) -> int:
        return await office.ask(Note(f"{sender} {number}"), timeout_s=60.0)

    # Created in order, none waits for the one before.
    places = await asyncio.gather(*(ask(sender, n) for n in range(asks) for sender in range(senders)))
    assert sorted(places) == list(range(1, MOST_WAITING + 1))
    for sender in range(senders):
        own = places[sender::senders]
        assert own == sorted(own)
    histories = (await runs(system.client, office.id)).values()
    assert len(histories) > 1
    assert max(most_in_flight(run) for run in histories) <= 10
    assert max(updates(run) for run in histories) <= 2_000
    assert await office.ask(Note("last")) == MOST_WAITING + 1


async def test_a_poison_message_fails_alone(system: ActorSystem) -> None:
    account = system.entity(Account, f"acct-{uuid4()}")
    await account.start(OpenAccount())
    asks = [account.ask(Withdraw(1_000_000) if n % 10 == 5 else Deposit(1)) for n in range(500)]
    answers = await asyncio.gather(*asks, return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if isinstance(answer, Conflict)] == list(range(5, 500, 10))
    assert [answer for answer in answers if isinstance(answer, int)] == list(range(1, 451))


async def test_slow_requests_hold_nobody_up_and_stay_few_in_flight(system: ActorSystem) -> None:
    account = system.entity(Account, f"acct-{uuid4()}")
    await account.start(OpenAccount())
    slow = [asyncio.create_task(account.ask(Later(1.5 + n / 100))) for n in range(40)]
    assert await account.ask(Deposit(1)) == 1
    assert await account.ask(Deposit(1)) == 2
    assert not any(task.done() for task in slow)
    assert await asyncio.gather(*slow) == [2] * 40
    histories = (await runs(system.client, account.id)).values()
    assert max(most_in_flight(run) for run in histories) <= 10


async def test_requests_that_wait_alone_keep_the_order_and_leave_room(system: ActorSystem) -> None:
    """One after the other, none of which is answered: each goes alone, and the next does not wait for it."""
    account = system.entity(Account, f"acct-{uuid4()}")
    await account.start(OpenAccount())
    slow = []
    for total in range(1, 13):
        slow.append(asyncio.create_task(account.ask(Later(4.0))))
        assert await account.ask(Deposit(1)) == total
    assert await asyncio.gather(*slow) == [12] * 12
    histories = (await runs(system.client, account.id)).values()
    assert max(most_in_flight(run) for run in histories) <= 10


async def test_more_than_may_wait_are_refused_and_not_applied(system: ActorSystem) -> None:
    account = system.entity(Account, f"acct-{uuid4()}")
    await account.start(OpenAccount())
    asks = (account.ask(Deposit(1), timeout_s=60.0) for _ in range(MOST_WAITING + 50))
    answers = await asyncio.gather(*asks, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Busy)]
    assert len(refused) == 50
    assert await account.ask(Total()) == MOST_WAITING
