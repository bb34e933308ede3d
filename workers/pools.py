"""Pools: which task queue a worker polls, and what it can do there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.worker import Worker

from activities.backends.webhooks import Webhooks
from activities.chat import ReplyActivities, StoreActivities
from activities.ports import ChatStore, ModelHub
from activities.task import TaskActivities
from activities.task_ports import TaskStore
from activities.turn_actor import TemporalTurnActor
from goatherd.actors.durable import JournalActivities, StateActivities, StateStore
from goatherd.actors.persistence import Journal
from goatherd.contracts.queues import Pool
from goatherd.settings import Settings
from workers.actor_types import ActorTypes
from workers.sandbox import workflow_runner
from workflows.chat import ChatSession
from workflows.task import Task

_STICKY = timedelta(seconds=1)
"""How long the next message to an actor waits for a worker that has died before another takes it up."""
_CANCEL_WITHIN = timedelta(milliseconds=500)

OURS = (ChatSession, Task)
"""The actor types that every worker of the pool `actors` serves."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What workers are made of."""

    client: Client
    store: ChatStore
    models: ModelHub
    settings: Settings
    types: ActorTypes = field(default_factory=ActorTypes)
    """Users' own actor types, besides ours."""
    journal: Journal | None = None
    actor_states: StateStore | None = None
    tasks: TaskStore | None = None


def build_workers(pools: Sequence[Pool], parts: Parts) -> list[Worker]:
    """A Temporal worker for each pool."""
    return [_BUILDERS[pool](parts) for pool in dict.fromkeys(pools)]


def _actors(parts: Parts) -> Worker:
    store = StoreActivities(parts.store)
    activities: list[Callable[..., Any]] = [store.flush, store.salvage, *parts.types.activities]
    if parts.journal is not None:
        activities += JournalActivities(parts.journal).all
    if parts.actor_states is not None:
        states = StateActivities(parts.actor_states)
        activities += [states.load, states.save]
    if parts.tasks is not None:
        activities.append(TaskActivities(parts.tasks).flush)
    blocking = ThreadPoolExecutor(thread_name_prefix="activity") if parts.types.has_blocking else None
    return Worker(
        parts.client,
        task_queue=parts.settings.task_queue(Pool.ACTORS),
        workflows=[*OURS, *parts.types.kinds],
        activities=activities,
        activity_executor=blocking,
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
    activities: list[Callable[..., Any]] = [StoreActivities(parts.store).copy_branch]
    if parts.tasks is not None:
        webhooks = Webhooks(allow_private=parts.settings.webhook_allow_private)
        activities.append(TaskActivities(parts.tasks, webhooks).tell_callback)
    return Worker(
        parts.client,
        task_queue=parts.settings.task_queue(Pool.STORE),
        activities=activities,
        graceful_shutdown_timeout=timedelta(seconds=3),
    )


_BUILDERS = {Pool.ACTORS: _actors, Pool.INFERENCE: _inference, Pool.STORE: _store}
