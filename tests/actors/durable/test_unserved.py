"""Actors that no worker serves, or whose workflow tasks all fail: what is told of them, and to whom."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from goatherd.actors import Behavior
from goatherd.actors.durable import ActorSystem, DurableActor, actor
from goatherd.actors.durable import _obituaries as obituaries
from goatherd.errors import DeadlineExceeded, Unavailable
from tests.actors.durable.accounts import Account, OpenAccount, Total
from tests.actors.durable.conftest import Bank, account_worker
from tests.actors.durable.offices import Log, Observe, OfficeActor, OpenOffice
from tests.temporal import cli, eventually


@actor("Stillborn", Total)
class Stillborn(DurableActor[OpenAccount]):
    def behavior(self, start: OpenAccount) -> Behavior[Any]:
        raise LookupError("it can't begin")


@pytest.fixture
async def strays() -> AsyncIterator[list[dict[str, Any]]]:
    """What the event loop complains about."""
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    yield told
    loop.set_exception_handler(None)


@pytest.mark.parametrize("starts", [True, False])
async def test_who_asks_where_no_worker_is_is_told_of_the_queue(
    temporal: WorkflowEnvironment, starts: bool, strays: list[dict[str, Any]]
) -> None:

    system = ActorSystem(temporal.client, task_queue=f"nobody-{uuid4()}")
    account = system.entity(Account, f"acct-{uuid4()}")
    if not starts:
        await account.start(OpenAccount())
    with pytest.raises(
        DeadlineExceeded, match=f"perhaps no worker serves the task queue '{system.task_queue}'"
    ):
        await account.ask(Total(), timeout_s=0.5, start=OpenAccount() if starts else None)
    gc.collect()
    await asyncio.sleep(0)
    assert strays == []


async def test_an_asker_that_is_cancelled_is_cancelled(temporal: WorkflowEnvironment) -> None:
    system = ActorSystem(temporal.client, task_queue=f"nobody-{uuid4()}")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await system.entity(Account, f"acct-{uuid4()}").ask(Total(), start=OpenAccount())


async def test_who_asks_one_whose_tasks_fail_is_told_so(temporal: WorkflowEnvironment) -> None:
    system = ActorSystem(temporal.client, task_queue=str(uuid4()))
    worker = Worker(
        temporal.client,
        task_queue=system.task_queue,
        workflows=[Stillborn],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        one = system.entity(Stillborn, f"stillborn-{uuid4()}")
        with pytest.raises((Unavailable, DeadlineExceeded), match="workflow task fails"):
            await one.ask(Total(), start=OpenAccount(), timeout_s=4.0)
        with pytest.raises((Unavailable, DeadlineExceeded), match="workflow task fails"):
            await one.ask(Total(), timeout_s=4.0)
        await temporal.client.get_workflow_handle(one.id).terminate()


async def test_who_watches_one_that_never_ran_learns_that_it_was_terminated(bank: Bank) -> None:
    nowhere = ActorSystem(bank.client, task_queue=f"nobody-{uuid4()}")
    account = nowhere.entity(Account, f"acct-{uuid4()}")
    await account.start(OpenAccount())
    office = bank.system.entity(OfficeActor, f"office-{uuid4()}")
    await office.start(OpenOffice())
    await office.ask(Observe(account.id))
    handle = bank.client.get_workflow_handle(account.id)

    async def watched() -> bool:
        return "actor.watch" in (await handle.fetch_history()).to_json()

    await eventually(watched)
    await cli(bank.client, "workflow", "terminate", "--workflow-id", account.id)
    found = await listed(bank, nowhere, account.id)
    async with account_worker(bank.client, nowhere.task_queue):  # It comes too late.
        assert await found.look() == 1
        assert await found.look() == 0

    async def gone() -> bool:
        return await office.ask(Log()) == [f"gone {account.id}"]

    await eventually(gone)


async def test_one_that_can_not_be_told_of_is_given_up(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    tried: list[str] = []

    async def fails(client: object, handle: Any) -> Any:
        tried.append(handle.id)
        raise LookupError("not now")

    monkeypatch.setattr(obituaries, "last_words", fails)
    monkeypatch.setattr(obituaries.log, "warning", lambda event, **_: said.append(event))
    account = await bank.account()
    await bank.client.get_workflow_handle(account.id).terminate()
    found = await listed(bank, bank.system, account.id)
    await found.look()
    await found.look()
    assert tried == [account.id]  # It is not due again.
    monkeypatch.setattr(obituaries, "PERIOD_S", 0.0)
    trial = next(iter(found._trials.values()))
    trial.due = 0.0
    for _ in range(obituaries.MOST_TRIES + 3):
        await found.look()
    assert len(tried) == obituaries.MOST_TRIES
    assert said == ["can't tell of an actor yet", "gave up telling of an actor"]


def test_the_waits_grow() -> None:
    trial, waits = obituaries._Trial(), []
    for _ in range(10):
        trial.failed(0.0)
        waits.append(trial.due)
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


async def listed(bank: Bank, system: ActorSystem, account_id: str) -> obituaries.Obituaries:
    """When visibility shows that it was terminated."""

    async def shown() -> bool:
        query = f'WorkflowId = "{account_id}" AND ExecutionStatus = "Terminated"'
        return [one.status async for one in bank.client.list_workflows(query)] == [
            WorkflowExecutionStatus.TERMINATED
        ]

    await eventually(shown)
    return obituaries.Obituaries(bank.client, [Account, OfficeActor], task_queue=system.task_queue)


def test_what_an_actor_starts_with_is_a_contract() -> None:
    class Plain(DurableActor[Total]):  # type: ignore[type-var]
        def behavior(self, start: Total) -> Behavior[Any]:
            raise NotImplementedError

    with pytest.raises(TypeError, match="Plain starts with Total, which is no Contract"):
        actor("Plain", Total)(Plain)
