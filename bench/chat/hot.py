"""One session that everybody posts to, against one bare workflow: `python -m bench.chat.hot`.

A bare workflow takes ten updates at once; it gets eight, so that none is refused.
"""

from __future__ import annotations

import asyncio

from temporalio.client import Client

from bench.chat.raw import QUEUE, Bare
from bench.chat.stack import TEXT, Stack, raw_worker, running
from bench.measure import load, median, ratio

CLIENTS, IN_FLIGHT, POSTS, ROUNDS = 64, 8, 1_000, 5


async def measure(stack: Stack) -> None:
    print(f"posts without a reply to one session, {CLIENTS} clients, {ROUNDS} rounds of {POSTS}")
    client = await Client.connect(stack.temporal)
    raw, ours = [], []
    async with raw_worker(stack.temporal):
        bare = await client.start_workflow(Bare.run, id="bare-hot", task_queue=QUEUE)
        session = await stack.session()

        async def update(_: int) -> None:
            await bare.execute_update(Bare.post, TEXT)

        async def post(_: int) -> None:
            await stack.post(session)

        await load(update, clients=IN_FLIGHT, total=CLIENTS)
        await load(post, clients=CLIENTS, total=CLIENTS * 2)
        for number in range(ROUNDS):
            # A bare workflow takes 2,000 updates in its life.
            bare = await client.start_workflow(Bare.run, id=f"bare-hot-{number}", task_queue=QUEUE)
            raw.append(await load(update, clients=IN_FLIGHT, total=POSTS))
            ours.append(await load(post, clients=CLIENTS, total=POSTS))
            print(f"  raw {raw[-1]}\n  ours{ours[-1]}")
    ratio("durable posts to one session against raw updates of one workflow", median(ours), median(raw), 1)


async def main() -> None:
    async with running() as stack:
        await measure(stack)


if __name__ == "__main__":
    asyncio.run(main())
