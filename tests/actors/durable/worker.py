"""A worker of the test actors as a process of its own, for tests that kill it: address, queue, namespace."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker

from tests.actors.durable.accounts import Account, double, wait_for_release
from tests.actors.durable.offices import OfficeActor
from workers.sandbox import workflow_runner

STICKY_S = 1.0


async def main(address: str, task_queue: str) -> None:
    client = await Client.connect(address, data_converter=pydantic_data_converter)
    worker = Worker(
        client,
        task_queue=task_queue,
        workflows=[Account, OfficeActor],
        activities=[double, wait_for_release],
        workflow_runner=workflow_runner(sandboxed=False),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=STICKY_S),
    )
    async with worker:
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
