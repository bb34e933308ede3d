"""Watches for sessions that ended or began behind the API's back, and has their readers see it too."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowQueryFailedError
from temporalio.service import RPCError

from activities.ports import ChatStore
from activities.reconcile import end_read_side, end_reason, end_reset_run
from goatherd.contracts.chat import Session
from goatherd.errors import GoatherdError
from goatherd.telemetry import get_logger

PERIOD_S = 2.0
_LOOK_BACK = timedelta(days=1)
# Visibility may lag behind: what closed in this time before the last look is looked at again.
_OVERLAP = timedelta(minutes=1)
_GRACE = timedelta(seconds=2)
_ASK_TIMEOUT = timedelta(seconds=5)
_AT_ONCE = 1_000

log = get_logger(__name__)


class Reconciler:
    """Runs in every worker of the pool `store`; that several do the same at once is harmless."""

    def __init__(self, client: Client, store: ChatStore, task_queue: str) -> None:
        """`task_queue`: the actors', whose sessions are those of this store."""
        self._client = client
        self._task_queue = task_queue
        self._store = store
        self._since = datetime.now(UTC) - _LOOK_BACK

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except (GoatherdError, RPCError) as error:
                log.warning("could not bring the sessions in line", error=str(error))
            await asyncio.sleep(PERIOD_S)

    async def look(self) -> None:
        """Once over what closed since the last time."""
        started = datetime.now(UTC)
        closed: dict[str, WorkflowExecutionStatus | None] = {}
        query = (
            'WorkflowType = "ChatSession" AND ExecutionStatus NOT IN ("Running", "ContinuedAsNew")'
            f' AND CloseTime >= "{self._since.isoformat()}"'
        )
        async for execution in self._client.list_workflows(query):
            closed.setdefault(execution.id, execution.status)
        ids = list(closed)
        for begin in range(0, len(ids), _AT_ONCE):
            for session in await self._store.active_sessions(ids[begin : begin + _AT_ONCE]):
                await self._end(session)
        await self._find_unlisted(started)
        self._since = started - _OVERLAP

    async def _find_unlisted(self, now: datetime) -> None:
        """Whoever started a session may have died before writing it: then no list shows it."""
        begun = (
            f'WorkflowType = "ChatSession" AND TaskQueue = "{self._task_queue}"'
            ' AND ExecutionStatus = "Running"'
            f' AND StartTime >= "{self._since.isoformat()}" AND StartTime < "{(now - _GRACE).isoformat()}"'
        )
        ids = [execution.id async for execution in self._client.list_workflows(begun)]
        for begin in range(0, len(ids), _AT_ONCE):
            some = ids[begin : begin + _AT_ONCE]
            listed = set(await self._store.active_sessions(some))
            for session in (one for one in some if one not in listed):
                if await self._store.session(session) is None:
                    await self._list(session)

    async def _list(self, session: str) -> None:
        handle = self._client.get_workflow_handle(session)
        try:
            document = await handle.query("Document", result_type=Session, rpc_timeout=_ASK_TIMEOUT)
        except (RPCError, WorkflowQueryFailedError) as error:
            log.warning("can't ask a session that is not listed", session=session, error=str(error))
            return
        await self._store.put_session(document)
        log.warning("wrote a session that whoever started it had not", session=session)

    async def _end(self, session: str) -> None:
        reason = await end_reason(self._client, session)
        if reason is None:
            # A run of it closed, yet it runs: it was reset.
            reason = "reset"
            await end_reset_run(self._client, session)
        await end_read_side(self._store, session, reason)
