"""Tasks' actors on a real Temporal server: by hand, through many runs, and in numbers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from temporalio.testing import WorkflowEnvironment

from goatherd.contracts.ids import new_id, subtask_id
from goatherd.contracts.task_messages import (
    AddSubtasks,
    CancelTask,
    Heartbeat,
    Reported,
    ReportStatus,
    TakeSubtasks,
    TaskView,
)
from goatherd.errors import DependencyCycle, Invalid, LeaseLost, TaskClosed
from goatherd.temporal import ask
from tests.temporal import cli, eventually
from tests.workflows.task_house import TaskHouse


@pytest.fixture
async def house(temporal: WorkflowEnvironment) -> AsyncIterator[TaskHouse]:
    house = TaskHouse(temporal.client)
    async with AsyncExitStack() as stack:
        for worker in house.workers():
            await stack.enter_async_context(worker)
        yield house


async def test_a_task_from_its_start_to_its_callback(house: TaskHouse) -> None:
    task = await house.begin(linger_s=0, callback={"url": "https://example.com/hook"})
    await house.add(task, {"input": {"text": "one"}, "key": "a"}, {"input": 2, "depends_on": ["a"]})
    for number in (1, 2):
        (lease,) = await house.take(task)
        assert lease.subtask == subtask_id(task, number)
        await house.report(task, lease, result={"number": number}, digest=f"{number}")
    await house.ended(task, "completed")
    (told,) = house.mailbox.sent
    assert json.loads(told.body)["data"]["counts"]["completed"] == 2
    answers = await house.store.answers(task, [subtask_id(task, 1), subtask_id(task, 2)])
    assert [answer.result for answer in answers] == [{"number": 1}, {"number": 2}]
    events = await house.store.events(task, after=0, limit=100)
    assert [event.seq for event in events] == [*range(1, len(events) + 1)]


async def test_an_operator_works_by_hand(house: TaskHouse) -> None:
    task = new_id("task")
    by_hand = ("--workflow-id", task)
    await cli(
        house.client, "workflow", "start", "--type", "Task", *by_hand, "--task-queue",
        f"{house.prefix}-actors", "--input", '{"title":"by hand"}',
    )  # fmt: skip

    async def execute(name: str, value: str) -> dict[str, object]:
        output = await cli(
            house.client, "workflow", "update", "execute", *by_hand, "--name", name, "--input", value,
            "--output", "json",
        )  # fmt: skip
        result: dict[str, object] = json.loads(output)["result"]
        return result

    await execute("AddSubtasks", '{"subtasks":[{"input":"a"},{"input":"b"}]}')
    taken = await execute("TakeSubtasks", '{"worker":"me"}')
    (lease,) = taken["assignments"]  # type: ignore[misc]
    assert isinstance(lease, dict)
    report = {"subtask": lease["subtask"], "lease_token": lease["lease_token"], "status": "completed"}
    assert (await execute("ReportStatus", json.dumps(report)))["status"] == "completed"
    await house.stored(task, lease["subtask"], "completed")
    await cli(house.client, "workflow", "signal", *by_hand, "--name", "PauseTask", "--input", "{}")

    async def paused() -> bool:
        view: TaskView = await house.client.get_workflow_handle(task).query("Task", result_type=TaskView)
        return view.paused and view.unflushed == 0

    await eventually(paused)
    await cli(house.client, "workflow", "cancel", *by_hand)

    async def closed() -> bool:
        stored = await house.store.task(task)
        return stored is not None and stored.status == "cancelled" and stored.closed_at is not None

    await eventually(closed)


async def test_refusals_are_typed_and_leave_no_history(house: TaskHouse) -> None:
    task = await house.begin()
    with pytest.raises(DependencyCycle):
        await house.add(task, {"key": "a", "depends_on": ["a"]})
    await house.add(task, {})
    (lease,) = await house.take(task)
    with pytest.raises(LeaseLost):
        await house.ask(task, Heartbeat(subtask=lease.subtask, lease_token="1-no"))
    await house.ask(task, CancelTask())
    with pytest.raises(TaskClosed):
        await house.add(task, {})


async def test_all_goes_through_many_runs(house: TaskHouse) -> None:
    task = await house.begin(asks_per_run=3, overlap=2, lease_s=30)
    await house.add(task, *({"input": number} for number in range(6)), id="req_1")
    held = await house.take(task, "ada", max=6, id="req_2")
    for number, lease in enumerate(held):
        beat = Heartbeat(subtask=lease.subtask, lease_token=lease.lease_token, checkpoint={"at": number})
        await house.ask(task, beat)
    assert (await house.add(task, *({"input": number} for number in range(6)), id="req_1")).first == 1
    assert [one.lease_token for one in await house.take(task, "ada", max=6, id="req_2")] == [
        one.lease_token for one in held
    ]
    for lease in held:
        await house.report(task, lease, result="x", digest="x")
    for number in range(6):
        (lease,) = await house.take(task, "bob")
        assert lease.checkpoint == {"at": number}
        assert (await house.report(task, lease, result="x", digest="x")).status == "completed"
        assert (await house.report(task, lease, result="x", digest="x")).status == "completed"
    assert await house.take(task, "bob") == []
    view: TaskView = await house.client.get_workflow_handle(task).query("Task", result_type=TaskView)
    assert view.summary.status == "completed"


@pytest.mark.parametrize("cached", [0, 1_000])
async def test_sixty_four_at_once_have_each_subtask_done_once(
    temporal: WorkflowEnvironment, cached: int
) -> None:
    house = TaskHouse(temporal.client)
    count = 400 if cached else 100
    async with AsyncExitStack() as stack:
        for one in house.workers(cached=cached):
            await stack.enter_async_context(one)
        task = await house.begin()
        for _ in range(0, count, 100):
            await house.add(task, *({} for _ in range(100)))
        done: list[str] = []

        async def work(name: str) -> None:
            while leases := await house.take(task, name):
                for lease in leases:
                    await house.report(task, lease)
                    done.append(lease.subtask)

        await asyncio.gather(*(work(f"worker-{number}") for number in range(64)))
        assert sorted(done) == [subtask_id(task, number) for number in range(1, count + 1)]

        async def written() -> bool:
            stored = await house.store.task(task)
            return stored is not None and stored.counts.completed == count

        await eventually(written, within_s=20)


async def test_an_empty_take_is_answered_alike_when_nobody_flushes(house: TaskHouse) -> None:
    task = await house.begin(first=AddSubtasks.model_validate({"subtasks": [{}]}))
    (lease,) = await house.take(task)
    empty = await house.ask(task, TakeSubtasks(worker="bob"))
    assert empty.assignments == []
    assert empty.retry_at == lease.expires_at


async def test_a_refusal_says_where_whichever_way_it_was_asked(house: TaskHouse) -> None:
    task = await house.begin()
    await house.add(task, {})
    order = ReportStatus(subtask=subtask_id(task, 1), status="completed")
    asked = await asyncio.gather(*(house.ask(task, order) for _ in range(20)), return_exceptions=True)
    assert [one.pointer for one in asked if isinstance(one, Invalid)] == ["/lease_token"] * 20
    # As an update of its own name.
    with pytest.raises(Invalid) as raised:
        await ask(house.client, task, order, Reported, timeout_s=20)
    assert raised.value.pointer == "/lease_token"
