"""A worker process: connects, serves its pools, says how it is, and stops without losing anything."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

from temporalio.client import Client

from activities.backends.machine import Machine, survey
from activities.backends.model_host import ModelHost
from activities.backends.retrieval.engines import AllEngines
from activities.backends.retrieval.hosting import host_indexes
from activities.backends.stores import open_stores
from activities.blobs import Blobs
from activities.job_reconcile import JobReadSide
from activities.ports import WorkerRegistry, WorkerStatus
from activities.reconcile import ReadSide, SessionReadSide
from activities.retrieval_ports import IndexStore
from activities.task_reconcile import TaskReadSide
from goatherd import heap
from goatherd.actors.durable._obituaries import Obituaries
from goatherd.contracts.queues import Pool, own_queue
from goatherd.errors import GoatherdError
from goatherd.settings import Settings
from goatherd.telemetry import configure_tracing, get_logger, log_context_interceptor, temporal_runtime
from goatherd.telemetry.metrics import serve_metrics
from goatherd.temporal import connect
from goatherd.waiting import run_until, stop_on_signals, until_up
from workers.actor_types import ActorTypes, load_actor_types
from workers.ingestion_keeper import IngestionKeeper
from workers.payload_sweeper import PayloadSweeper
from workers.pools import OURS, Parts, build_workers
from workers.reconciler import Reconciler
from workers.searching import searching

REPORT_EVERY_S = 2.0
_LOOK_EVERY_S = 0.25
"""At the models: what changed is reported at once, as calls are sent by it."""
_LAST_WORD_S = 1.0
_MODEL_RETRY_S = 10.0
_TIDY_EVERY_S = 3_600.0

log = get_logger(__name__)


async def run_worker(settings: Settings, pools: Sequence[Pool]) -> None:
    """Serves `pools` until SIGTERM or SIGINT. Waits for Temporal and the store to come up, however long.

    Raises:
        Invalid: `settings.actors` names what can't be served.
    """
    # First of all, so that a mistake is told at once.
    types = load_actor_types(settings.actors, OURS) if Pool.ACTORS in pools else ActorTypes()
    stop = stop_on_signals()
    await run_until(stop, _serve(settings, pools, types))
    log.info("worker stopped", pools=[pool.value for pool in pools])


async def _serve(settings: Settings, pools: Sequence[Pool], types: ActorTypes) -> None:
    component = "worker-" + "+".join(pool.value for pool in pools)
    identity = f"{component}@{socket.gethostname()}:{os.getpid()}"
    tracing = configure_tracing(settings, component)
    interceptors = [log_context_interceptor(), *(tracing.temporal_interceptors() if tracing else [])]

    async with AsyncExitStack() as stack:
        if tracing is not None:
            stack.push_async_callback(asyncio.to_thread, tracing.shutdown)
        if settings.metrics_port is not None:
            stack.callback(serve_metrics(settings.metrics_port, settings.host).close)
        stores = open_stores(settings, app=component)
        stack.push_async_callback(stores.close)
        await until_up("the store", stores.prepare)
        runtime = temporal_runtime(settings)

        async def to_temporal() -> Client:
            return await connect(
                settings, payloads=stores.payloads, interceptors=interceptors, runtime=runtime
            )

        client = await until_up("Temporal", to_temporal)
        serves_models = Pool.INFERENCE in pools
        machine = await asyncio.to_thread(survey) if serves_models else Machine("", 0)
        host = ModelHost(settings, catalog=stores.catalog, machine=machine)
        stack.push_async_callback(host.close)
        queue_of_ours = own_queue(secrets.token_hex(8), settings.task_queue_prefix)
        index_host = index_queue = searches = None
        if Pool.RETRIEVAL in pools:
            searches = await stack.enter_async_context(searching(client, stores, settings))
            index_queue = own_queue(secrets.token_hex(8), settings.task_queue_prefix, Pool.RETRIEVAL)
            index_host = host_indexes(settings, stores.indexes)
            stack.push_async_callback(index_host.close)
        parts = Parts(
            client,
            stores.chats,
            host,
            settings,
            types=types,
            journal=stores.journal,
            actor_states=stores.actor_states,
            tasks=stores.tasks,
            host=host,
            pieces=stores.pieces,
            blobs=Blobs(stores.payloads, client.namespace),
            jobs=stores.jobs,
            worker=identity,
            own_queue=queue_of_ours,
            indexes=stores.indexes,
            index_host=index_host,
            index_queue=index_queue or "",
            searching=searches,
        )
        workers = build_workers(pools, parts)
        status = WorkerStatus(
            identity=identity,
            pools=tuple(pool.value for pool in pools if pool is not Pool.RETRIEVAL),
            state="ready",
            queue=queue_of_ours if serves_models else "",
            memory_bytes=host.memory_bytes,
            device=machine.device,
        )
        chores = [_report(stores.workers, status, host)] if status.pools else []
        if index_host is not None:
            # By itself, since it has a queue and memory of its own.
            of_indexes = WorkerStatus(
                identity=f"{identity}/indexes",
                pools=(Pool.RETRIEVAL.value,),
                state="ready",
                queue=index_queue or "",
                memory_bytes=index_host.memory_bytes,
            )
            chores += [_report(stores.workers, of_indexes, index_host), index_host.run()]
            chores.append(_tidy(AllEngines(settings), stores.indexes))
            stack.push_async_callback(_sign_off, stores.workers, of_indexes.identity)
        if Pool.ACTORS in pools:
            queue = settings.task_queue(Pool.ACTORS)
            chores.append(Obituaries(client, [*OURS, *types.durable], task_queue=queue).run())
        if Pool.STORE in pools:
            sides: list[ReadSide] = [
                SessionReadSide(stores.chats),
                TaskReadSide(stores.tasks),
                JobReadSide(stores.jobs),
            ]
            chores.append(Reconciler(client, sides, settings.task_queue(Pool.ACTORS)).run())
            chores.append(PayloadSweeper(client, stores.payloads).run())
            chores.append(IngestionKeeper(client, stores.indexes, settings).run())
        if serves_models:
            chores.append(host.run())
            pinned = [name for name, spec in settings.models.items() if spec.pinned]
            wanted = [settings.model, *pinned] if settings.preload else pinned
            chores += [_preload(host, name) for name in dict.fromkeys(wanted)]
        stack.push_async_callback(_sign_off, stores.workers, identity)
        heap.settle()
        log.info("worker started", pools=[pool.value for pool in pools], identity=identity)
        # If one of them fails in an unforeseen way, the process ends, and whoever runs it starts anew.
        async with asyncio.TaskGroup() as group:
            for work in (*(worker.run() for worker in workers), *chores):
                group.create_task(work)


async def _tidy(engines: AllEngines, store: IndexStore) -> None:
    """What is left of indexes that went is removed when a worker begins, and now and then."""
    while True:
        try:
            await engines.tidy(store)
        except (GoatherdError, OSError) as error:
            log.warning("could not remove snapshots of indexes that are no more", error=str(error))
        await asyncio.sleep(_TIDY_EVERY_S)


async def _sign_off(registry: WorkerRegistry, identity: str) -> None:
    with suppress(GoatherdError):  # The store may be gone already; the entry will age.
        await registry.sign_off(identity)


async def _report(registry: WorkerRegistry, status: WorkerStatus, host: ModelHost) -> None:
    loop = asyncio.get_running_loop()
    said: WorkerStatus | None = None
    due = 0.0
    try:
        while True:
            status = replace(status, models=host.states(), used_bytes=host.used_bytes)
            if status != said or loop.time() >= due:
                with suppress(GoatherdError):
                    await registry.report(status)
                said, due = status, loop.time() + REPORT_EVERY_S
            await asyncio.sleep(_LOOK_EVERY_S)
    finally:
        # So that nothing more is sent here while the last calls end.
        with suppress(GoatherdError, TimeoutError):
            async with asyncio.timeout(_LAST_WORD_S):
                await registry.report(replace(status, state="stopping"))


async def _preload(host: ModelHost, name: str) -> None:
    while True:
        try:
            await host.preload(name, lambda text: log.info("loading a model", model=name, step=text))
            log.info("model ready", model=name)
            return
        except GoatherdError as error:
            log.error("a model can't be loaded, will try again", model=name, error=error.message)
        await asyncio.sleep(_MODEL_RETRY_S)
