"""Brings the read side in line with a task whose workflow is gone (see `reconcile`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from activities.reconcile import Ended
from activities.task_ports import TaskStore
from goatherd.contracts.task import Task, TaskStatus
from goatherd.telemetry import get_logger

_CLOSED = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.EXPIRED)

log = get_logger(__name__)


class TaskReadSide:
    """`ReadSide` of tasks."""

    workflow_type = "Task"
    document = Task
    # Callers write what they were answered; what comes after the closing does not count.
    grace = timedelta(seconds=1)

    def __init__(self, store: TaskStore) -> None:
        self._store = store

    async def open(self, ids: Sequence[str]) -> list[str]:
        return await self._store.open_tasks(ids)

    async def has(self, id: str) -> bool:
        return await self._store.task(id) is not None

    async def put(self, document: Task) -> None:
        await self._store.put_task(document)

    async def end(self, id: str, ended: Ended) -> None:
        """As the actor says, if it has ended by itself; else as cancelled."""
        status = (ended.outcome or {}).get("status")
        if status not in _CLOSED:
            status = TaskStatus.CANCELLED
        await self._store.close_task(id, str(status), ended.reason, datetime.now(UTC))
        log.warning("task closed from outside", task=id, reason=ended.reason)
