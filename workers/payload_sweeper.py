"""Drops large payloads that no workflow's history can name any more (docs/adr/0006-claim-check.md).

A payload is named by events of its workflow from the moment on at which it was stored, and by the first event
of the run that was continued then. So those that were stored before the first event of every run that still
exists are of no use. When Temporal forgets a run, by its retention, what only that run needed can go.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from temporalio.client import Client
from temporalio.service import RPCError

from goatherd.errors import GoatherdError
from goatherd.payloads import Owner, PayloadStore, utc_now
from goatherd.telemetry import get_logger
from goatherd.temporal import is_gone

PERIOD_S = 600.0
MOST = 100
"""Payloads whose workflows are asked for at a time."""
GRACE = timedelta(hours=1)
"""From storing a payload until an event names it, with clocks that differ."""

_RPC_TIMEOUT = timedelta(seconds=5)

log = get_logger(__name__)


class PayloadSweeper:
    """Runs in every worker of the pool `store`; that several do the same at once is harmless."""

    def __init__(
        self, client: Client, payloads: PayloadStore, *, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._client = client
        self._payloads = payloads
        self._now = now

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except (GoatherdError, RPCError) as error:
                log.warning("could not sweep large payloads", error=str(error))
            await asyncio.sleep(PERIOD_S)

    async def look(self) -> int:
        """Once at everybody with something old enough, those first that were not looked at for longest. Gives
        how many were dropped."""
        now, dropped = self._now(), 0
        seen: set[Owner] = set()
        # Who was looked at counts as the latest: when only such are due, all have been.
        while owners := [one for one in await self._payloads.due(now - GRACE, MOST) if one not in seen]:
            for owner in owners:
                needed_since = await self._needed_since(owner, now)
                dropped += await self._payloads.sweep(owner, needed_since - GRACE)
            seen.update(owners)
        if dropped:
            log.info("dropped large payloads", count=dropped)
        return dropped

    async def _needed_since(self, owner: Owner, now: datetime) -> datetime:
        """The time of the first event that any run of the workflow has; `now` if it has no run."""
        if owner.namespace != self._client.namespace:
            return datetime.min.replace(tzinfo=UTC) + GRACE  # Not ours to say.
        begun = [await self._first_event(owner.workflow) or now]
        chosen = f"WorkflowId = {json.dumps(owner.workflow, ensure_ascii=False)}"
        async for execution in self._client.list_workflows(chosen, rpc_timeout=_RPC_TIMEOUT):
            begun.append(execution.start_time)
        return min(begun)

    async def _first_event(self, workflow: str) -> datetime | None:
        """Of the latest run: that one is not missing, however late the lists are, and if a reset has made it,
        its first event is older than it is."""
        handle = self._client.get_workflow_handle(workflow)
        try:
            async for event in handle.fetch_history_events(page_size=1, rpc_timeout=_RPC_TIMEOUT):
                return event.event_time.ToDatetime(UTC)
        except RPCError as error:
            if not is_gone(error):
                raise
        return None
