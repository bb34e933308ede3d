"""A worker of vaults as a process of its own: address, queue, the store's URI and database."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker

from activities.backends.mongo_client import connect
from activities.backends.mongo_journal import MongoJournal
from goatherd.actors.durable import JournalActivities
from tests.actors.durable.vaults import PlainVaultActor, VaultActor, ring
from workers.sandbox import workflow_runner


async def main(address: str, task_queue: str, uri: str, database: str) -> None:
    client = await Client.connect(address, data_converter=pydantic_data_converter)
    journal = MongoJournal(connect(uri, database))
    await journal.prepare()
    worker = Worker(
        client,
        task_queue=task_queue,
        workflows=[VaultActor, PlainVaultActor],
        activities=[ring, *JournalActivities(journal).all],
        workflow_runner=workflow_runner(sandboxed=False),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    )
    async with worker:
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
