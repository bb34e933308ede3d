"""What a process needs to serve tasks, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from temporalio.client import Client

from activities.task_ports import TaskStore
from api.task_actors import Actors, TaskActors
from api.task_feed import TaskFeed
from api.task_inputs import Inputs
from api.task_lines import Lines
from api.task_reads import TaskReads
from api.task_service import TaskService
from api.task_work import TaskWork
from api.task_writer import TaskWriter
from goatherd.settings import Settings


@dataclass(frozen=True, slots=True)
class Tasks:
    """All that a request about tasks may need."""

    actors: TaskActors
    service: TaskService
    work: TaskWork
    reads: TaskReads
    feed: TaskFeed


@asynccontextmanager
async def serve_tasks(
    client: Client, actors: Actors, store: TaskStore, settings: Settings
) -> AsyncIterator[Tasks]:
    """They work as long as this lasts; then what is still to be written is."""
    writer, lines, inputs = TaskWriter(store), Lines(), Inputs(store)
    asking = TaskActors(
        client,
        actors,
        store,
        writer,
        timeout_s=settings.ask_timeout_s,
        on_events=lines.on_events,
    )
    try:
        async with TaskFeed(store, lines).running() as feed:
            yield Tasks(
                actors=asking,
                service=TaskService(asking, inputs, settings),
                work=TaskWork(asking, inputs, lines, feed.listen),
                reads=TaskReads(asking),
                feed=feed,
            )
    finally:
        await writer.close()
