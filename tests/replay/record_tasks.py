"""Records the histories of tasks that test_replay replays: `python -m tests.replay.record_tasks`."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

from goatherd.contracts.task_messages import (
    CancelTask,
    Heartbeat,
    PauseTask,
    ReportStatus,
    RequeueSubtasks,
    ResumeTask,
    UpdateSubtask,
)
from goatherd.leaving import leave
from tests.histories import record
from tests.replay.record import HISTORIES
from tests.temporal import temporal_server
from tests.workflows.task_house import TaskHouse


async def task_everything(house: TaskHouse) -> str:
    """Every message that a task takes, leases that run out, a callback, an end."""
    task = await house.begin(
        lease_s=1, max_attempts=2, backoff={"initial_s": 0.1}, callback={"url": "https://example.com/hook"}
    )
    await house.add(task, {"input": 1, "key": "a"}, {"depends_on": ["a"]}, {"requires": ["gpu"]}, {}, {})
    (first,) = await house.take(task)
    await house.ask(
        task, Heartbeat(subtask=first.subtask, lease_token=first.lease_token, extend_s=60, checkpoint="x")
    )
    await house.report(task, first, result={"ok": True}, digest="1")
    (second,) = await house.take(task, lease_s=60)
    await house.report(task, second, "pending")
    (second,) = await house.take(task, lease_s=60)
    await house.report(task, second, "failed", error={"message": "no"}, retry_after_s=0)
    for _ in range(3):
        await house.take(task, "sleeper", max=3)
        await asyncio.sleep(1.5)
    await house.ask(task, RequeueSubtasks())
    await house.ask(task, PauseTask())
    await house.ask(task, ResumeTask())
    await house.ask(task, UpdateSubtask(subtask=first.subtask[:-1] + "3", requires=[], info={"title": "t"}))
    await house.ask(task, ReportStatus(subtask=first.subtask[:-1] + "4", status="cancelled"))
    while leases := await house.take(task, lease_s=60, max=10):
        for lease in leases:
            await house.report(task, lease)
    await house.add(task, {})
    (last,) = await house.take(task, lease_s=60)
    await house.ask(task, CancelTask())
    await house.ask(task, Heartbeat(subtask=last.subtask, lease_token=last.lease_token))
    await house.ended(task, "cancelled")
    return task


async def task_runs(house: TaskHouse) -> str:
    """Continue-as-new with leases held, overlap, and a deadline that ends it."""
    deadline = datetime.now(UTC) + timedelta(seconds=8)
    task = await house.begin(asks_per_run=4, overlap=2, consensus="majority", deadline=deadline)
    await house.add(task, *({"input": number} for number in range(4)))
    held = await house.take(task, "ada", max=4, id="req_1")
    for lease in held[:3]:
        await house.report(task, lease, result=1, digest="1")
    await house.take(task, "ada", max=4, id="req_1")
    for lease in await house.take(task, "bob", max=2):
        await house.report(task, lease, result=1, digest="1")
    await house.ended(task, "expired")
    return task


async def main() -> None:
    async with temporal_server() as environment, AsyncExitStack() as stack:
        house = TaskHouse(environment.client)
        for worker in house.workers():
            await stack.enter_async_context(worker)
        for scenario in (task_everything, task_runs):
            task = await scenario(house)
            await record(house.client, task, HISTORIES, scenario.__name__)


if __name__ == "__main__":
    asyncio.run(main())
    leave()  # Temporal's threads may abort an interpreter that ends.
