"""Raw Temporal, to compare with: a bare activity without a workflow, that gives back what it gets."""

from __future__ import annotations

import asyncio
import sys

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

QUEUE = "bench-raw-infer"


@activity.defn
async def echo(text: str) -> str:
    return text


async def serve(address: str) -> None:
    client = await Client.connect(address)
    async with Worker(client, task_queue=QUEUE, activities=[echo]):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
