"""What an operator does to a task with Temporal's CLI shows up for readers as a closed task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from temporalio.testing import WorkflowEnvironment

from activities.ports import Page
from activities.task_reconcile import TaskReadSide
from goatherd.contracts.queues import Pool, task_queue
from goatherd.contracts.task import SubtaskStatus, Task, TaskEventType, TaskStatus
from tests.temporal import cli, eventually
from tests.workflows.task_house import TaskHouse
from workers.reconciler import Reconciler

EVERYTHING = Page(limit=100)


def reconciler(house: TaskHouse) -> Reconciler:
    queue = task_queue(Pool.ACTORS, house.prefix)
    return Reconciler(house.client, [TaskReadSide(house.store)], queue)


@pytest.fixture
async def watched(temporal: WorkflowEnvironment) -> AsyncIterator[TaskHouse]:
    """A house whose reconciler runs."""
    house = TaskHouse(temporal.client)
    async with AsyncExitStack() as stack:
        for worker in house.workers():
            await stack.enter_async_context(worker)
        reconciling = asyncio.create_task(reconciler(house).run())
        yield house
        reconciling.cancel()


async def closed(house: TaskHouse, task: str) -> Task:
    """The task, once the store has it as closed."""
    found: Task | None = None

    async def check() -> bool:
        nonlocal found
        found = await house.store.task(task)
        return found is not None and found.closed_at is not None

    await eventually(check, within_s=20)
    assert found is not None
    return found


async def half_done(house: TaskHouse) -> tuple[str, str, str]:
    """A task with a subtask that somebody has, and one that nobody has; all of it stored."""
    task = await house.begin()
    await house.add(task, {}, {})
    [lease] = await house.take(task)
    await house.stored(task, lease.subtask, "leased")
    rest = [one.info.id for one in await house.store.subtasks(task, EVERYTHING)]
    rest.remove(lease.subtask)
    return task, lease.subtask, rest[0]


async def check_closed(house: TaskHouse, task: str, reason: str, held: str, free: str) -> None:
    stored = await closed(house, task)
    assert (stored.status, stored.reason, stored.counts.cancelled) == (TaskStatus.CANCELLED, reason, 2)
    for id in (held, free):
        subtask = await house.store.subtask(task, id)
        assert subtask is not None
        assert (subtask.state.status, subtask.state.reason) == (SubtaskStatus.CANCELLED, reason)
        assert subtask.state.assignees == []
    events = await house.store.events(task, after=0, limit=1_000)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    kinds = [event.type for event in events]
    assert kinds[-2:] == [TaskEventType.TASK_CANCELLED, TaskEventType.TASK_CLOSED]
    assert kinds.count(TaskEventType.TASK_CLOSED) == 1


async def test_terminate_closes_the_task(watched: TaskHouse) -> None:
    task, held, free = await half_done(watched)
    await cli(watched.client, "workflow", "terminate", "--workflow-id", task)
    await asyncio.gather(*(reconciler(watched).look() for _ in range(3)))
    await check_closed(watched, task, "terminated", held, free)


async def test_reset_closes_the_task(watched: TaskHouse) -> None:
    task, held, free = await half_done(watched)
    await cli(
        watched.client, "workflow", "reset", "--workflow-id", task,
        "--type", "FirstWorkflowTask", "--reason", "to see",
    )  # fmt: skip
    await check_closed(watched, task, "reset", held, free)


async def test_a_task_that_whoever_started_it_could_not_write_is_written(watched: TaskHouse) -> None:
    task = await watched.begin(stored=True, title="Nobody wrote me")

    async def listed() -> bool:
        return await watched.store.task(task) is not None

    await eventually(listed, within_s=25)
    stored = await watched.store.task(task)
    assert stored is not None
    assert stored.title == "Nobody wrote me"
