"""Puts together what serves models in an API process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from temporalio.client import Client

from activities.blobs import Blobs
from activities.job_ports import JobStore
from activities.model_ports import ModelCatalog, PieceFeed
from activities.ports import WorkerRegistry
from api.inference import InferenceParts, ModelInference
from api.inference_port import Inference
from api.job_service import JobService
from api.model_admin import ModelAdmin
from api.model_registry import ModelRegistry
from api.placement import Placement
from goatherd.contracts.queues import Pool
from goatherd.payloads import PayloadStore
from goatherd.settings import Settings
from goatherd.waiting import put_down


@dataclass(frozen=True, slots=True)
class ModelStores:
    """What is kept of models, and of what is asked of them."""

    catalog: ModelCatalog
    pieces: PieceFeed
    jobs: JobStore
    payloads: PayloadStore | None = None


@dataclass(frozen=True, slots=True)
class Models:
    """What routes ask."""

    inference: Inference
    admin: ModelAdmin
    jobs: JobService
    registry: ModelRegistry


MakeInference = Callable[[InferenceParts], AbstractAsyncContextManager[Inference]]


@asynccontextmanager
async def by_workers(parts: InferenceParts) -> AsyncIterator[Inference]:
    """`Inference` by the workers of the pool `inference`."""
    async with ModelInference(parts).running() as inference:
        yield inference


@asynccontextmanager
async def serve_models(
    client: Client,
    workers: WorkerRegistry,
    stores: ModelStores,
    settings: Settings,
    make_inference: MakeInference = by_workers,
) -> AsyncIterator[Models]:
    """Serves while the context lasts, and follows what other processes register."""
    registry = ModelRegistry(settings, stores.catalog)
    placement = Placement(workers, settings.task_queue(Pool.INFERENCE))
    following = asyncio.create_task(registry.follow())
    try:
        async with make_inference(
            InferenceParts(client, registry, placement, stores.pieces, stores.payloads)
        ) as inference:
            blobs = Blobs(stores.payloads, client.namespace if stores.payloads is not None else "")
            yield Models(
                inference,
                ModelAdmin(client, registry, placement, settings),
                JobService(client, stores.jobs, blobs, registry, settings),
                registry,
            )
    finally:
        await put_down(following)
