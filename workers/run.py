"""A worker process: connects, serves its pools, says how it is, and stops without losing anything."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

from temporalio.client import Client

from activities.backends.models import Models
from activities.backends.stores import open_stores
from activities.ports import WorkerRegistry, WorkerStatus
from activities.reconcile import ReadSide, SessionReadSide
from activities.task_reconcile import TaskReadSide
from goatherd import heap
from goatherd.actors.durable._obituaries import Obituaries
from goatherd.contracts.queues import Pool
from goatherd.errors import GoatherdError
from goatherd.settings import Settings
from goatherd.telemetry import configure_tracing, get_logger, log_context_interceptor, temporal_runtime
from goatherd.telemetry.metrics import serve_metrics
from goatherd.temporal import connect
from goatherd.waiting import run_until, stop_on_signals, until_up
from workers.actor_types import ActorTypes, load_actor_types
from workers.payload_sweeper import PayloadSweeper
from workers.pools import OURS, Parts, build_workers
from workers.reconciler import Reconciler

REPORT_EVERY_S = 2.0
_MODEL_RETRY_S = 10.0

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
        models = Models(settings)
        stack.callback(models.close)
        parts = Parts(
            client,
            stores.chats,
            models,
            settings,
            types=types,
            journal=stores.journal,
            actor_states=stores.actor_states,
            tasks=stores.tasks,
        )
        workers = build_workers(pools, parts)
        chores = [_report(stores.workers, identity, pools, models)]
        if Pool.ACTORS in pools:
            queue = settings.task_queue(Pool.ACTORS)
            chores.append(Obituaries(client, [*OURS, *types.durable], task_queue=queue).run())
        if Pool.STORE in pools:
            sides: list[ReadSide] = [SessionReadSide(stores.chats), TaskReadSide(stores.tasks)]
            chores.append(Reconciler(client, sides, settings.task_queue(Pool.ACTORS)).run())
            chores.append(PayloadSweeper(client, stores.payloads).run())
        if Pool.INFERENCE in pools and settings.preload:
            chores.append(_preload(models, settings.model))
        stack.push_async_callback(_sign_off, stores.workers, identity)
        heap.settle()
        log.info("worker started", pools=[pool.value for pool in pools], identity=identity)
        # If one of them fails in an unforeseen way, the process ends, and whoever runs it starts anew.
        async with asyncio.TaskGroup() as group:
            for work in (*(worker.run() for worker in workers), *chores):
                group.create_task(work)


async def _sign_off(registry: WorkerRegistry, identity: str) -> None:
    with suppress(GoatherdError):  # The store may be gone already; the entry will age.
        await registry.sign_off(identity)


async def _report(registry: WorkerRegistry, identity: str, pools: Sequence[Pool], models: Models) -> None:
    names = tuple(pool.value for pool in pools)
    while True:
        states = models.states()
        status = WorkerStatus(identity=identity, pools=names, state="ready", models=states)
        with suppress(GoatherdError):
            await registry.report(status)
        await asyncio.sleep(REPORT_EVERY_S if "loading" not in states.values() else REPORT_EVERY_S / 4)


async def _preload(models: Models, name: str) -> None:
    while True:
        try:
            await models.get(name, progress=lambda text: log.info("loading a model", model=name, step=text))
            log.info("model ready", model=name)
            return
        except GoatherdError as error:
            log.error("the default model can't be loaded, will try again", model=name, error=error.message)
        await asyncio.sleep(_MODEL_RETRY_S)
