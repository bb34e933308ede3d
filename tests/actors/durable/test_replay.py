"""Replays give the same state: of recorded histories, of evicted actors, by workers that never saw them. And
what is written down is little."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer, Worker

from goatherd.actors.durable import ActorSystem
from tests.actors.durable.accounts import (
    Account,
    AskHelper,
    Convert,
    Credit,
    Deposit,
    OpenAccount,
    Total,
    double,
    wait_for_release,
)
from tests.actors.durable.conftest import Bank
from tests.actors.durable.offices import Log, Note, OfficeActor, OpenOffice, Remind
from tests.temporal import PATIENCE_S
from workers.sandbox import workflow_runner

FOLDER = Path(__file__).parent / "histories"
HISTORIES = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.json"))}
SANDBOXED = pytest.mark.parametrize("sandboxed", [True, False], ids=["sandboxed", "bare"])


def test_there_are_histories() -> None:
    assert {name.rpartition("-")[0] for name in HISTORIES} == {"account", "batch", "office", "child"}


@pytest.mark.parametrize("name", HISTORIES)
@SANDBOXED
async def test_a_recorded_history_replays(name: str, sandboxed: bool) -> None:
    text = HISTORIES[name]
    started = json.loads(text)["events"][0]["workflowExecutionStartedEventAttributes"]
    history = WorkflowHistory.from_json(started["workflowId"], text)
    replayer = Replayer(
        workflows=[Account, OfficeActor],
        data_converter=pydantic_data_converter,
        workflow_runner=workflow_runner(sandboxed=sandboxed),
    )
    await replayer.replay_workflow(history)


def worker(client: Client, task_queue: str, *, cached: int, sandboxed: bool) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[Account, OfficeActor],
        activities=[double, wait_for_release],
        max_cached_workflows=cached,
        max_concurrent_workflow_tasks=2 if cached else 1,
        workflow_runner=workflow_runner(sandboxed=sandboxed),
    )


@SANDBOXED
async def test_actors_that_drive_each_other_out_of_the_cache_lose_nothing(
    temporal: WorkflowEnvironment, sandboxed: bool
) -> None:
    system = ActorSystem(temporal.client, task_queue=str(uuid4()), ask_timeout_s=PATIENCE_S)
    accounts = [system.entity(Account, f"acct-{uuid4()}") for _ in range(4)]
    async with worker(temporal.client, system.task_queue, cached=1, sandboxed=sandboxed):
        for account in accounts:
            await account.start(OpenAccount())
        for number in range(1, 6):
            for account in accounts:
                assert await account.ask(Deposit(1), id=f"{account.id} {number}") == 2 * number - 1
                await account.tell(Credit(1))
                assert await account.ask(AskHelper(2)) == 2 * number
        assert await asyncio.gather(*(account.ask(Convert(4)) for account in accounts)) == [8] * 4
        assert [await account.ask(Total()) for account in accounts] == [10] * 4


async def test_a_worker_that_never_saw_an_actor_finds_it_as_it_was(temporal: WorkflowEnvironment) -> None:
    system = ActorSystem(temporal.client, task_queue=str(uuid4()), ask_timeout_s=PATIENCE_S)
    office = system.entity(OfficeActor, f"office-{uuid4()}")
    async with worker(temporal.client, system.task_queue, cached=10, sandboxed=False):
        await office.start(OpenOffice())
        await office.ask(Remind("soon", 600.0))
        for number in range(50):
            await office.ask(Note(f"{number}"))
        before = await office.view()
    async with worker(temporal.client, system.task_queue, cached=10, sandboxed=False):
        assert await office.view() == before
        assert await office.ask(Log()) == [f"{number}" for number in range(50)]


async def events(bank: Bank, actor_id: str) -> Counter[int]:
    history = await bank.client.get_workflow_handle(actor_id).fetch_history()
    return Counter(event.event_type for event in history.events)


async def test_an_ask_is_five_events_a_tell_four_and_a_message_inside_none(bank: Bank) -> None:
    account = await bank.account()
    await account.ask(Total())
    before = (await events(bank, account.id)).total()
    await account.ask(Deposit(1))
    asked = (await events(bank, account.id)).total()
    assert asked - before == 5
    await account.ask(AskHelper(1))  # Two messages more, inside.
    helped = (await events(bank, account.id)).total()
    assert helped - asked == 5
    await account.tell(Credit(1))
    await account.view()  # A query waits until the tell is handled.
    assert (await events(bank, account.id)).total() - helped == 4


async def test_a_timer_that_is_moved_on_again_and_again_is_one(bank: Bank) -> None:
    office = bank.system.entity(OfficeActor, f"office-{uuid4()}")
    await office.start(OpenOffice())
    for number in range(20):
        await office.ask(Remind("idle", 100.0 + number))
    counts = await events(bank, office.id)
    assert counts[EventType.EVENT_TYPE_TIMER_STARTED] == 1
    assert counts[EventType.EVENT_TYPE_TIMER_CANCELED] == 0
