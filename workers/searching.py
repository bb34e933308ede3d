"""What searches for workflows, in a worker: the same services as those behind the API's routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.client import Client

from activities.backends.stores import Stores
from api.index_lookup import IndexLookup
from api.index_search import IndexSearch
from api.index_workers import IndexWorkers
from api.inference import InferenceParts, ModelInference
from api.model_registry import ModelRegistry
from api.placement import Placement
from goatherd.contracts.queues import Pool
from goatherd.settings import Settings
from goatherd.waiting import put_down


@asynccontextmanager
async def searching(client: Client, stores: Stores, settings: Settings) -> AsyncIterator[IndexSearch]:
    """Searches while the context lasts, and follows what models others register."""
    registry = ModelRegistry(settings, stores.catalog)
    placement = Placement(stores.workers, settings.task_queue(Pool.INFERENCE))
    inference = ModelInference(InferenceParts(client, registry, placement, stores.pieces, stores.payloads))
    workers = IndexWorkers(client, stores.workers, stores.payloads, settings)
    following = asyncio.create_task(registry.follow())
    try:
        yield IndexSearch(stores.indexes, IndexLookup(stores.indexes), inference, workers)
    finally:
        await put_down(following)
        await workers.close()
        await inference.close()
