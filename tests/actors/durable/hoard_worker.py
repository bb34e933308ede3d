"""A worker of hoards as a process of its own, for tests that kill it: address, queue, the store's address."""

from __future__ import annotations

import asyncio
import sys

from activities.backends.mongo_client import connect
from activities.backends.mongo_payloads import MongoPayloadStore
from goatherd.actors.durable import ActorSystem
from tests.actors.durable.hoards import hoard_worker


async def main(address: str, task_queue: str, uri: str) -> None:
    payloads = MongoPayloadStore(connect(uri, "payloads"))
    await payloads.prepare()
    system = await ActorSystem.connect(address, task_queue=task_queue, payloads=payloads)
    async with hoard_worker(system.client, task_queue):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
