"""Puts the API together and serves it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import cast

import uvicorn
from temporalio.client import Client

from activities.backends.memory import MemoryChatStore, MemoryIdempotencyStore, MemoryWorkerRegistry
from activities.backends.memory_indexes import MemoryIndexStore
from activities.backends.memory_jobs import MemoryJobStore
from activities.backends.memory_models import MemoryModelCatalog, MemoryPieceFeed
from activities.backends.memory_tasks import MemoryTaskStore
from activities.backends.stores import open_stores
from api.app import create_app
from api.connections import HttpConnection, WebSocketConnection
from api.model_parts import ModelStores
from api.table import route_table as app_route_table
from goatherd import heap
from goatherd.settings import Settings
from goatherd.telemetry import configure_tracing, get_logger, log_context_interceptor, temporal_runtime
from goatherd.temporal import connect, ensure_search_attributes
from goatherd.waiting import run_until, stop_on_signals, until_up

SHUTDOWN_S = 4
_BACKLOG = 2_048
_MOST_FRAME_BYTES = 1 << 21

log = get_logger(__name__)


def route_table(settings: Settings | None = None) -> Sequence[tuple[str, str, str]]:
    """Method, path and summary of every route, without connecting to anything."""
    return app_route_table(
        create_app(
            settings or Settings(),
            client=cast(Client, None),  # Only the lifespan touches it, and nobody starts this app.
            store=MemoryChatStore(),
            idempotency=MemoryIdempotencyStore(),
            workers=MemoryWorkerRegistry(),
            task_store=MemoryTaskStore(),
            model_stores=ModelStores(MemoryModelCatalog(), MemoryPieceFeed(), MemoryJobStore()),
            index_store=MemoryIndexStore(),
        )
    )


async def serve_api(settings: Settings) -> None:
    """Serves HTTP until SIGTERM or SIGINT. Waits for Temporal and the store to come up, however long."""
    stop = stop_on_signals()
    await run_until(stop, _serve(settings))
    log.info("api stopped")


async def _serve(settings: Settings) -> None:
    tracing = configure_tracing(settings, "api")
    interceptors = [log_context_interceptor(), *(tracing.temporal_interceptors() if tracing else [])]
    async with AsyncExitStack() as stack:
        if tracing is not None:
            stack.push_async_callback(asyncio.to_thread, tracing.shutdown)
        stores = open_stores(settings, app="goatherd-api")
        stack.push_async_callback(stores.close)

        # The API serves its metrics itself, on /metrics.
        runtime = temporal_runtime(settings.model_copy(update={"metrics_port": None}))

        async def to_temporal() -> Client:
            client = await connect(
                settings, payloads=stores.payloads, interceptors=interceptors, runtime=runtime
            )
            await ensure_search_attributes(client)
            return client

        await until_up("the store", stores.prepare)
        client = await until_up("Temporal", to_temporal)
        app = create_app(
            settings,
            client=client,
            store=stores.chats,
            idempotency=stores.idempotency,
            workers=stores.workers,
            task_store=stores.tasks,
            model_stores=ModelStores(stores.catalog, stores.pieces, stores.jobs, stores.payloads),
            index_store=stores.indexes,
            tracing=tracing,
        )
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                backlog=_BACKLOG,
                http=HttpConnection,
                ws=WebSocketConnection,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws_max_size=max(_MOST_FRAME_BYTES, 2 * settings.max_body_bytes),
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=SHUTDOWN_S,
            )
        )
        heap.settle()
        # Shielded: the server has handlers of its own for the signals, and lets its clients finish.
        serving = asyncio.create_task(server.serve())
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            server.should_exit = True
            await serving
            raise
