"""Pools: which task queue a worker polls, and what it can do there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import Worker

from activities.chat import ReplyActivities, StoreActivities
from activities.ports import ChatStore, ModelHub
from activities.turn_actor import TemporalTurnActor
from goatherd.contracts.queues import Pool
from goatherd.settings import Settings
from workers.sandbox import workflow_runner
from workflows.chat import ChatSession

_STICKY = timedelta(seconds=1)
"""How long the next message to an actor waits for a worker that has died before another takes it up."""
_CANCEL_WITHIN = timedelta(milliseconds=500)


@dataclass(frozen=True, slots=True)
class Parts:
    """What workers are made of."""

    client: Client
    store: ChatStore
    models: ModelHub
    settings: Settings


def build_workers(pools: Sequence[Pool], parts: Parts) -> list[Worker]:
    """A Temporal worker for each pool."""
    return [_BUILDERS[pool](parts) for pool in dict.fromkeys(pools)]


def _actors(parts: Parts) -> Worker:
    store = StoreActivities(parts.store)
    return Worker(
        parts.client,
        task_queue=parts.settings.task_queue(Pool.ACTORS),
        workflows=[ChatSession],
        activities=[store.flush, store.salvage],
        workflow_runner=workflow_runner(sandboxed=parts.settings.workflow_sandbox),
        # Python runs one workflow task at a time: more threads than cores only fight for the lock.
        workflow_task_executor=ThreadPoolExecutor(
            max_workers=max(4, os.cpu_count() or 1), thread_name_prefix="workflow"
        ),
        max_cached_workflows=2_000,
        # An eager start whose answer is lost waits for its timeout; a dispatch by the queue does not.
        disable_eager_activity_execution=True,
        sticky_queue_schedule_to_start_timeout=_STICKY,
        graceful_shutdown_timeout=timedelta(seconds=3),
    )


def _inference(parts: Parts) -> Worker:
    actor = TemporalTurnActor(parts.client, timeout_s=parts.settings.ask_timeout_s)
    replies = ReplyActivities(parts.store, parts.models, parts.settings.model, actor)
    return Worker(
        parts.client,
        task_queue=parts.settings.task_queue(Pool.INFERENCE),
        activities=[replies.write_reply],
        max_concurrent_activities=parts.settings.inference_slots,
        # A cancellation comes with the answer to a heartbeat: these bound how long a cancelled reply goes on.
        max_heartbeat_throttle_interval=_CANCEL_WITHIN,
        default_heartbeat_throttle_interval=_CANCEL_WITHIN,
        # A reply is handed over, not waited for: another worker goes on with it.
        graceful_shutdown_timeout=timedelta(milliseconds=100),
    )


def _store(parts: Parts) -> Worker:
    store = StoreActivities(parts.store)
    return Worker(
        parts.client,
        task_queue=parts.settings.task_queue(Pool.STORE),
        activities=[store.copy_branch],
        graceful_shutdown_timeout=timedelta(seconds=3),
    )


_BUILDERS = {Pool.ACTORS: _actors, Pool.INFERENCE: _inference, Pool.STORE: _store}
