"""Watches for sessions that ended behind the API's back, and ends them for their readers too."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from activities.ports import ChatStore
from activities.reconcile import end_read_side, end_reason, end_reset_run
from goatherd.errors import GoatherdError
from goatherd.telemetry import get_logger

PERIOD_S = 2.0
_LOOK_BACK = timedelta(days=1)
# Visibility may lag behind: what closed in this time before the last look is looked at again.
_OVERLAP = timedelta(minutes=1)
_AT_ONCE = 1_000

log = get_logger(__name__)


class Reconciler:
    """Runs in every worker of the pool `store`; that several do the same at once is harmless."""

    def __init__(self, client: Client, store: ChatStore) -> None:
        self._client = client
        self._store = store
        self._since = datetime.now(UTC) - _LOOK_BACK

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except (GoatherdError, RPCError) as error:
                log.warning("could not look for sessions that ended", error=str(error))
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
        self._since = started - _OVERLAP

    async def _end(self, session: str) -> None:
        reason = await end_reason(self._client, session)
        if reason is None:
            # A run of it closed, yet it runs: it was reset.
            reason = "reset"
            await end_reset_run(self._client, session)
        await end_read_side(self._store, session, reason)
