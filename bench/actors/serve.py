"""The workers of both sides, in a process of their own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from bench.actors.counter import QUEUE, Counter, SharedCounter
from bench.chat.raw import QUEUE as RAW_QUEUE
from bench.chat.raw import Bare
from goatherd import heap
from goatherd.actors.durable import MemoryStateStore, StateActivities


async def serve(address: str) -> None:
    client = await Client.connect(address, data_converter=pydantic_data_converter)
    states = StateActivities(MemoryStateStore())
    keep: Sequence[Callable[..., Any]] = (states.load, states.save)
    both = [
        Worker(
            client,
            task_queue=queue,
            workflows=workflows,
            activities=activities,
            workflow_runner=UnsandboxedWorkflowRunner(),
            max_cached_workflows=2_000,
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        )
        for queue, workflows, activities in (
            (RAW_QUEUE, [Bare], ()),
            (QUEUE, [Counter, SharedCounter], keep),
        )
    ]
    heap.settle()
    await asyncio.gather(*(worker.run() for worker in both))


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
