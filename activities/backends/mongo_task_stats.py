"""What a task's statistics are read from, in MongoDB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection

from activities.backends.projection import Document
from activities.task_fold import WAITING, Sweep
from activities.task_ports import TaskStats, WorkerStats
from goatherd.contracts.task import SubtaskStatus


async def read_stats(
    subtasks: AsyncCollection[Document],
    answers: AsyncCollection[Document],
    task: str,
    sweeps: Sequence[Sweep],
) -> TaskStats:
    """`TaskStore.stats`. Raises the driver's errors: its caller translates them."""
    workers: dict[str, WorkerStats] = {}
    oldest: dict[str, datetime] = {}
    by_worker = {"worker": "$worker", "failed": "$failed"}
    async for group in await _groups(answers, {"task": task}, by_worker, {"$sum": 1}):
        key, count = group["_id"], group["value"]
        stats = workers.get(key["worker"], WorkerStats())
        workers[key["worker"]] = (
            replace(stats, failed=count) if key["failed"] else replace(stats, completed=count)
        )
    if not any(sweep.final for sweep in sweeps):
        leased = {"task": task, "status": SubtaskStatus.LEASED.value, "whole": True}
        # What was changed before the last sweep is cancelled by it, or by one before.
        swept = max((sweep.seq for sweep in sweeps), default=0)
        waiting = {
            "task": task,
            "status": {"$in": [status.value for status in WAITING]},
            "whole": True,
            "clock": {"$gt": swept},
        }
        async for group in await _groups(subtasks, waiting, "$status", {"$min": "$created_at"}):
            oldest[group["_id"]] = group["value"]
        async for group in await _groups(subtasks, leased, "$status", {"$min": "$updated_at"}):
            oldest[group["_id"]] = group["value"]
        pipeline: list[Document] = [
            {"$match": leased},
            {"$unwind": "$assignees"},
            {"$group": {"_id": "$assignees", "value": {"$sum": 1}}},
        ]
        async for group in await subtasks.aggregate(pipeline):
            stats = workers.get(group["_id"], WorkerStats())
            workers[group["_id"]] = replace(stats, leased=group["value"])
    return TaskStats(workers, oldest)


async def _groups(collection: AsyncCollection[Document], where: Document, by: Any, value: Document) -> Any:
    return await collection.aggregate([{"$match": where}, {"$group": {"_id": by, "value": value}}])
