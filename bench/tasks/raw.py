"""Raw Temporal, to compare with: a bare workflow that gives out numbers, one update a take."""

from __future__ import annotations

import asyncio
import sys

from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

QUEUE = "bench-raw-tasks"


@workflow.defn
class BareTask:
    def __init__(self) -> None:
        self.given = 0
        self.done: set[int] = set()

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.update
    def take(self) -> int:
        self.given += 1
        return self.given

    @workflow.update
    def complete(self, number: int) -> None:
        self.done.add(number)


async def serve(address: str) -> None:
    client = await Client.connect(address)
    async with Worker(client, task_queue=QUEUE, workflows=[BareTask]):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
