"""How a task is closed from outside, when its actor is gone, in MongoDB.

What closes it is decided by one update of its document; all else follows from that, and may be done by
several at once, or by another after a crash.
"""

from __future__ import annotations

from datetime import datetime

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.mongo_task_documents import SEALED, sweep_fields, to_task
from activities.backends.mongo_task_events import TaskEventLog
from activities.backends.projection import Document
from activities.task_fold import Sweep
from goatherd.contracts.task import OPEN, Counts, Task, TaskEvent, TaskEventType, TaskStatus

_ENDED = (TaskStatus.COMPLETED, TaskStatus.FAILED)
_KINDS = {
    TaskStatus.CANCELLED: TaskEventType.TASK_CANCELLED,
    TaskStatus.EXPIRED: TaskEventType.TASK_EXPIRED,
    TaskStatus.FAILED: TaskEventType.TASK_FAILED,
}


class TaskCloser:
    """Raises the driver's errors: its caller translates them."""

    def __init__(self, database: AsyncDatabase[Document], log: TaskEventLog) -> None:
        self._tasks: AsyncCollection[Document] = database["tasks"]
        self._subtasks: AsyncCollection[Document] = database["subtasks"]
        self._log = log

    async def close(self, task: str, status: str, reason: str, at: datetime) -> None:
        """`TaskStore.close_task`."""
        document = await self._tasks.find_one({"_id": task})
        stored = to_task(document)
        if document is None or stored is None or stored.closed_at is not None:
            return
        if "closing" not in document:
            await self._decide(stored, TaskStatus(status), reason, at)
            document = await self._tasks.find_one({"_id": task})
            assert document is not None
        closing: Document = document["closing"]
        events = closing_events(stored.id, closing)
        standing = {
            "status": closing["status"],
            "reason": closing["reason"],
            "counts": await self._counts(task),
            "ended_at": document["ended_at"] or closing["at"],
            "closed_at": closing["at"],
            "updated_at": closing["at"],
            "version": events[-1].seq,
            "clock": SEALED,
        }
        await self._tasks.update_one({"_id": task, "clock": {"$lt": SEALED}}, {"$set": standing})
        await self._log.close(task, events)

    async def _decide(self, stored: Task, status: TaskStatus, reason: str, at: datetime) -> None:
        seq = max(await self._log.last(stored.id, stored.version), stored.version) + 1
        if stored.status in _ENDED and not stored.counts.unfinished:
            status = stored.status
        closing = {
            "seq": seq,
            "ends": status != stored.status,
            "status": status.value,
            "reason": reason,
            "at": at,
        }
        sweep = sweep_fields(Sweep(seq, reason, at, final=True))
        await self._tasks.update_one(
            {"_id": stored.id, "closing": {"$exists": False}},
            {"$set": {"closing": closing, f"sweeps.{seq}": sweep}},
        )

    async def _counts(self, task: str) -> Document:
        """The final sweep leaves nothing unfinished."""
        counts = Counts().model_dump()
        pipeline: list[Document] = [
            {"$match": {"task": task, "whole": True}},
            {"$group": {"_id": "$status", "count": {"$sum": 1}}},
        ]
        async for group in await self._subtasks.aggregate(pipeline):
            counts["cancelled" if group["_id"] in OPEN else group["_id"]] += group["count"]
        return counts


def closing_events(task: str, closing: Document) -> list[TaskEvent]:
    kinds = [_KINDS.get(closing["status"])] if closing["ends"] else []
    return [
        TaskEvent(
            seq=closing["seq"] + place,
            type=kind,
            task=task,
            ts=closing["at"],
            data={"reason": closing["reason"]},
        )
        for place, kind in enumerate([*filter(None, kinds), TaskEventType.TASK_CLOSED])
    ]
