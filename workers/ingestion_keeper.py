"""Watches for indexes that have something to do, and nobody does it: whoever wrote it died before he said so,
or Temporal was away when he did."""

from __future__ import annotations

import asyncio

from temporalio.client import Client
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from activities.retrieval_ports import IndexStore
from api.index_nudges import start_ingestion
from goatherd.errors import GoatherdError
from goatherd.settings import Settings
from goatherd.telemetry import get_logger

PERIOD_S = 20.0

log = get_logger(__name__)


class IngestionKeeper:
    """Runs in every worker of the pool `store`; that several do the same at once is harmless."""

    def __init__(self, client: Client, store: IndexStore, settings: Settings) -> None:
        self._client = client
        self._store = store
        self._settings = settings

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except (GoatherdError, RPCError) as error:
                log.warning("could not look for indexes that are left", error=str(error))
            await asyncio.sleep(PERIOD_S)

    async def look(self) -> None:
        """Once over all indexes: starts what should run, and does not."""
        for index, owner in await self._store.unfinished():
            try:
                await start_ingestion(self._client, self._settings, index, owner, nudge=False)
            except WorkflowAlreadyStartedError:
                continue
            log.warning("ingestion was left, and goes on", index=index)
