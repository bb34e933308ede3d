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

from activities.backends.retrieval.embedding import Embedding
from activities.backends.retrieval.engines import AllEngines
from activities.backends.webhooks import Webhooks
from activities.blobs import Blobs
from activities.chat import ReplyActivities, StoreActivities
from activities.index_loading import IndexLoading
from activities.indexing import IndexPlanning, TakingIn
from activities.inference import InferenceActivities
from activities.inference_ports import ModelHost
from activities.job_ports import JobStore
from activities.jobs import JobActivities, JobSettling
from activities.model_ports import PieceFeed
from activities.ports import ChatStore, ModelHub
from activities.retrieval import RetrievalActivities, Searching
from activities.retrieval_ports import IndexStore
from activities.task import TaskActivities
from activities.task_ports import TaskStore
from activities.turn_actor import TemporalTurnActor
from goatherd.actors.durable import JournalActivities, StateActivities, StateStore
from goatherd.actors.persistence import Journal
from goatherd.contracts.queues import Pool
from goatherd.contracts.retrieval import take_in_queue
from goatherd.settings import Settings
from workers.actor_types import ActorTypes
from workers.sandbox import workflow_runner
from workflows.chat import ChatSession
from workflows.inference_job import InferenceJob
from workflows.ingestion import Ingestion
from workflows.task import Task

_STICKY = timedelta(seconds=1)
"""How long the next message to an actor waits for a worker that has died before another takes it up."""
_CANCEL_WITHIN = timedelta(milliseconds=500)
_CALLS_AT_ONCE = 500
"""Orders that a worker has in hand: what waits here is what the next batches are formed of."""
_PARTS_AT_ONCE = 6
"""Parts of documents that a worker takes in at once: enough for its models to be busy while some are read and
kept."""

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
    host: ModelHost | None = None
    """Without it this worker replies in chats only."""
    pieces: PieceFeed | None = None
    blobs: Blobs | None = None
    jobs: JobStore | None = None
    worker: str = ""
    """Its identity in the registry of workers."""
    own_queue: str = ""
    """What only this worker polls, for calls of the models that it has."""
    indexes: IndexStore | None = None
    """Of which documents are taken in."""
    index_host: ModelHost | None = None
    """Of the indexes that this worker searches."""
    index_queue: str = ""
    """As `own_queue`, for searches of the indexes that it has."""
    searching: Searching | None = None
    """By which workflows search."""


def build_workers(pools: Sequence[Pool], parts: Parts) -> list[Worker]:
    """Temporal workers for each pool."""
    return [worker for pool in dict.fromkeys(pools) for worker in _BUILDERS[pool](parts)]


def _actors(parts: Parts) -> list[Worker]:
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
    worker = Worker(
        parts.client,
        task_queue=parts.settings.task_queue(Pool.ACTORS),
        workflows=[*OURS, InferenceJob, Ingestion, *parts.types.kinds],
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
    return [worker]


def _inference(parts: Parts) -> list[Worker]:
    """One that shares its queue with the others of the pool, and takes no more than it can do at once; and
    one for what is sent to this process because it has the model."""
    actor = TemporalTurnActor(parts.client, timeout_s=parts.settings.ask_timeout_s)
    replies = ReplyActivities(parts.store, parts.models, parts.settings.model, actor)
    shared = parts.settings.task_queue(Pool.INFERENCE)
    slots = parts.settings.inference_slots
    if parts.host is None:
        return [_inference_worker(parts, shared, [replies.write_reply], slots)]
    calls = InferenceActivities(parts.host, pieces=parts.pieces, blobs=parts.blobs, worker=parts.worker)
    shared_work: list[Callable[..., Any]] = [replies.write_reply, calls.infer]
    if parts.jobs is not None:
        shared_work.append(JobActivities(parts.jobs, calls).compute_part)
    workers = [_inference_worker(parts, shared, shared_work, slots)]
    if parts.own_queue:
        own: list[Callable[..., Any]] = [calls.infer, calls.load_model, calls.unload_model]
        workers.append(_inference_worker(parts, parts.own_queue, own, _CALLS_AT_ONCE))
    return [*workers, *_taking_in(parts, shared, parts.host)]


def _retrieval(parts: Parts) -> list[Worker]:
    """Searches are calls of what a worker hosts, as models' are: some come to whoever has room, most to the
    worker that has the index."""
    if parts.index_host is None or parts.indexes is None:
        return []
    calls = InferenceActivities(parts.index_host, worker=parts.index_queue)
    loading = IndexLoading(parts.index_host, parts.indexes, AllEngines(parts.settings))
    shared: list[Callable[..., Any]] = [calls.infer, loading.warm, loading.tidy]
    if parts.searching is not None:
        shared.append(RetrievalActivities(parts.searching).search)
    own: list[Callable[..., Any]] = [calls.infer, calls.load_model, calls.unload_model]
    return [
        _inference_worker(parts, parts.settings.task_queue(Pool.RETRIEVAL), shared, _CALLS_AT_ONCE),
        _inference_worker(parts, parts.index_queue, own, _CALLS_AT_ONCE),
    ]


def _taking_in(parts: Parts, pool: str, host: ModelHost | None = None) -> list[Worker]:
    """Of documents, by the models of `host`, or of indexes that need none. On a queue of its own: no call and
    no reply waits for a slot behind a million documents."""
    if parts.indexes is None:
        return []
    taking_in = TakingIn(parts.indexes, Embedding(host))
    return [_inference_worker(parts, take_in_queue(pool), [taking_in.take_in], _PARTS_AT_ONCE)]


def _inference_worker(
    parts: Parts, queue: str, activities: Sequence[Callable[..., Any]], at_once: int
) -> Worker:
    return Worker(
        parts.client,
        task_queue=queue,
        activities=activities,
        max_concurrent_activities=at_once,
        # A cancellation comes with the answer to a heartbeat: these bound how long a cancelled reply goes on.
        max_heartbeat_throttle_interval=_CANCEL_WITHIN,
        default_heartbeat_throttle_interval=_CANCEL_WITHIN,
        # A reply is handed over, not waited for: another worker goes on with it.
        graceful_shutdown_timeout=timedelta(milliseconds=100),
    )


def _store(parts: Parts) -> list[Worker]:
    activities: list[Callable[..., Any]] = [StoreActivities(parts.store).copy_branch]
    if parts.tasks is not None:
        webhooks = Webhooks(allow_private=parts.settings.webhook_allow_private)
        activities.append(TaskActivities(parts.tasks, webhooks).tell_callback)
    if parts.jobs is not None:
        activities.append(JobSettling(parts.jobs).settle_job)
    if parts.indexes is not None:
        planning = IndexPlanning(parts.indexes)
        activities += [planning.plan, planning.audit, planning.complete, planning.sweep]
    worker = Worker(
        parts.client,
        task_queue=parts.settings.task_queue(Pool.STORE),
        activities=activities,
        graceful_shutdown_timeout=timedelta(seconds=3),
    )
    return [worker, *_taking_in(parts, parts.settings.task_queue(Pool.STORE))]


_BUILDERS = {
    Pool.ACTORS: _actors,
    Pool.INFERENCE: _inference,
    Pool.STORE: _store,
    Pool.RETRIEVAL: _retrieval,
}
