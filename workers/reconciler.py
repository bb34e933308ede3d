"""Watches for actors that ended or began behind the API's back, and has their readers see it too."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from temporalio.client import Client, WorkflowExecution, WorkflowQueryFailedError
from temporalio.service import RPCError

from activities.reconcile import Ended, ReadSide, end_reset_run, how_ended
from goatherd.errors import GoatherdError
from goatherd.telemetry import get_logger

PERIOD_S = 2.0
_LOOK_BACK = timedelta(days=1)
# Visibility may lag behind: what closed in this time before the last look is looked at again, and what began
# is looked at when it is this old.
_OVERLAP = timedelta(minutes=1)
_SETTLED = timedelta(seconds=10)
_ASK_TIMEOUT = timedelta(seconds=5)
_ASKED_AT_MOST = 30
_AT_ONCE = 1_000

log = get_logger(__name__)


class Reconciler:
    """Runs in every worker of the pool `store`; that several do the same at once is harmless."""

    def __init__(self, client: Client, sides: Sequence[ReadSide], task_queue: str) -> None:
        """`task_queue`: the actors', whose documents are those of this store."""
        self._watches = [_Watch(client, side, task_queue) for side in sides]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except (GoatherdError, RPCError) as error:
                log.warning("could not bring the read side in line", error=str(error))
            await asyncio.sleep(PERIOD_S)

    async def look(self) -> None:
        """Once over what closed and what began since the last time."""
        for watch in self._watches:
            await watch.look()


class _Watch:
    """Of workflows of one type."""

    def __init__(self, client: Client, side: ReadSide, task_queue: str) -> None:
        self._client = client
        self._side = side
        self._task_queue = task_queue
        self._closed_since = self._begun_since = datetime.now(UTC) - _LOOK_BACK
        self._unlisted: dict[str, int] = {}
        """Those that gave no answer, and how often they were asked."""

    async def look(self) -> None:
        started = datetime.now(UTC)
        await self._end_closed(started)
        self._closed_since = started - _OVERLAP
        settled = started - _SETTLED
        await self._find_unlisted(settled)
        self._begun_since = settled
        for id in list(self._unlisted):
            await self._list(id)

    async def _end_closed(self, now: datetime) -> None:
        closed = (
            f'WorkflowType = "{self._side.workflow_type}"'
            ' AND ExecutionStatus NOT IN ("Running", "ContinuedAsNew")'
            f' AND CloseTime >= "{self._closed_since.isoformat()}"'
        )
        ids = dict.fromkeys(
            [
                execution.id
                async for execution in self._client.list_workflows(closed)
                if _closed_at(execution, now) <= now - self._side.grace
            ]
        )
        for some in _portions(list(ids)):
            for id in await self._side.open(some):
                await self._end(id)

    async def _end(self, id: str) -> None:
        ended = await how_ended(self._client, id)
        if ended is None:
            # A run of it closed, yet it runs: it was reset.
            ended = Ended("reset")
            await end_reset_run(self._client, id)
        await self._side.end(id, ended)

    async def _find_unlisted(self, until: datetime) -> None:
        """Whoever started an actor may have died before writing its document: then no list shows it. Each
        that began is looked at once."""
        begun = (
            f'WorkflowType = "{self._side.workflow_type}" AND TaskQueue = "{self._task_queue}"'
            ' AND ExecutionStatus = "Running"'
            f' AND StartTime >= "{self._begun_since.isoformat()}" AND StartTime < "{until.isoformat()}"'
        )
        ids = [execution.id async for execution in self._client.list_workflows(begun)]
        for some in _portions(ids):
            listed = set(await self._side.open(some))
            for id in some:
                if id not in listed and not await self._side.has(id):
                    self._unlisted.setdefault(id, 0)

    async def _list(self, id: str) -> None:
        handle = self._client.get_workflow_handle(id)
        try:
            document = await handle.query(
                "Document", result_type=self._side.document, rpc_timeout=_ASK_TIMEOUT
            )
        except (RPCError, WorkflowQueryFailedError) as error:
            log.warning("can't ask an actor that is not listed", actor=id, error=str(error))
            self._unlisted[id] += 1
            if self._unlisted[id] == _ASKED_AT_MOST:
                del self._unlisted[id]
            return
        await self._side.put(document)
        del self._unlisted[id]
        log.warning("wrote the document of an actor that whoever started it had not", actor=id)


def _closed_at(execution: WorkflowExecution, now: datetime) -> datetime:
    return execution.close_time or now


def _portions(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[begin : begin + _AT_ONCE] for begin in range(0, len(ids), _AT_ONCE)]
