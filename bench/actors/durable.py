"""Durable actors, against raw Temporal on the same server in the same run."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from temporalio.client import Client, WithStartWorkflowOperation, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from bench.actors.counter import QUEUE, Add, Begin, Chatter, Counter, SharedCounter
from bench.chat.raw import QUEUE as RAW_QUEUE
from bench.chat.raw import Bare
from bench.measure import Load, load, median, ratio
from goatherd.actors.durable import ActorSystem, Entity

ROUNDS = 3


async def main() -> None:
    program = Path(sys.executable).parent / "temporal"
    with tempfile.TemporaryDirectory() as folder:
        environment = await WorkflowEnvironment.start_local(
            dev_server_existing_path=str(program),
            dev_server_database_filename=str(Path(folder) / "temporal.db"),
            dev_server_extra_args=["--sqlite-pragma", "journal_mode=wal", "--sqlite-pragma", "synchronous=2"],
            dev_server_log_level="error",
            data_converter=pydantic_data_converter,
        )
        address = environment.client.service_client.config.target_host
        workers = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.actors.serve", address)
        try:
            client = environment.client
            system = ActorSystem(client, task_queue=QUEUE)
            await _hot(client, system)
            await _spread(client, system)
            await _sharded(client, system)
            await _new(client, system)
            await _history(client, system)
            await _replay(client, system)
        finally:
            workers.kill()
            await workers.wait()
            await environment.shutdown()


async def _hot(client: Client, system: ActorSystem) -> None:
    print("one hot actor: 64 askers, against raw updates with 8 in flight")
    raw_loads, our_loads = [], []
    for _ in range(ROUNDS):
        bare = await client.start_workflow(Bare.run, id=f"bare-{uuid4()}", task_queue=RAW_QUEUE)
        entity = system.entity(Counter, f"hot-{uuid4()}")
        await entity.start(Begin())
        await bare.execute_update(Bare.post, "x")
        await entity.ask(Add(1))
        raw_loads.append(await load(partial(_update, bare), clients=8, total=600))
        our_loads.append(await load(partial(_add, entity), clients=64, total=20_000))
        print(f"  raw {raw_loads[-1]}\n  ours{our_loads[-1]}")
    ratio("hot actor against raw", median(our_loads), median(raw_loads), 20)


async def _update(bare: WorkflowHandle[Any, Any], _: int) -> None:
    await bare.execute_update(Bare.post, "x")


async def _add(entity: Entity[Begin], _: int) -> None:
    await entity.ask(Add(1))


async def _spread(client: Client, system: ActorSystem) -> None:
    print("64 actors, 32 askers")
    bare = [
        await client.start_workflow(Bare.run, id=f"bare-{uuid4()}", task_queue=RAW_QUEUE) for _ in range(64)
    ]
    ours = [system.entity(Counter, f"spread-{uuid4()}") for _ in range(64)]
    for entity in ours:
        await entity.start(Begin())
    raw_loads, our_loads = [], []
    for number in range(ROUNDS + 1):
        raw = await load(lambda n: bare[n % 64].execute_update(Bare.post, "x"), clients=32, total=1_500)
        our = await load(lambda n: ours[n % 64].ask(Add(1)), clients=32, total=1_500)
        if number:
            raw_loads.append(raw)
            our_loads.append(our)
            print(f"  raw {raw}\n  ours{our}")
    ratio("spread asks against raw", median(our_loads), median(raw_loads), 0.9)


async def _sharded(client: Client, system: ActorSystem) -> None:
    print(f"64 entities in {SharedCounter.shards} shards, 32 askers")
    bare = [
        await client.start_workflow(Bare.run, id=f"bare-{uuid4()}", task_queue=RAW_QUEUE) for _ in range(64)
    ]
    ours = [system.entity(SharedCounter, f"shared-{uuid4()}") for _ in range(64)]
    raw_loads, our_loads = [], []
    for number in range(ROUNDS + 1):
        raw = await load(lambda n: bare[n % 64].execute_update(Bare.post, "x"), clients=32, total=1_500)
        our = await load(lambda n: ours[n % 64].ask(Add(1)), clients=32, total=10_000)
        if number:
            raw_loads.append(raw)
            our_loads.append(our)
            print(f"  raw {raw}\n  ours{our}")
    ratio("sharded asks against raw", median(our_loads), median(raw_loads), 5)


async def _new(client: Client, system: ActorSystem) -> None:
    print("new actors with a first ask, 16 askers")

    async def raw(_: int) -> None:
        operation = WithStartWorkflowOperation(
            Bare.run,
            id=f"bare-{uuid4()}",
            task_queue=RAW_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )
        await client.execute_update_with_start_workflow(Bare.post, "x", start_workflow_operation=operation)

    async def our(_: int) -> None:
        await system.entity(Counter, f"new-{uuid4()}").ask(Add(1), start=Begin())

    raw_loads, our_loads = [], []
    for _ in range(ROUNDS):
        raw_loads.append(await load(raw, clients=16, total=400))
        our_loads.append(await load(our, clients=16, total=400))
        print(f"  raw {raw_loads[-1]}\n  ours{our_loads[-1]}")
    ratio("new actors against raw", median(our_loads), median(raw_loads), 0.9)


async def _history(client: Client, system: ActorSystem) -> None:
    entity = system.entity(Counter, f"history-{uuid4()}")
    await entity.ask(Add(1), start=Begin())

    async def events() -> int:
        return len((await client.get_workflow_handle(entity.id).fetch_history()).events)

    before = await events()
    first = asyncio.create_task(entity.ask(Add(1)))
    await asyncio.sleep(0)
    await asyncio.gather(first, *(entity.ask(Add(1)) for _ in range(500)))
    print(f"history events of one ask and 500 that waited for it: {await events() - before} (aim 10 to 11)\n")


async def _replay(client: Client, system: ActorSystem) -> None:
    entity = system.entity(Counter, f"replay-{uuid4()}")
    await entity.ask(Chatter(10_000), start=Begin())
    history = await client.get_workflow_handle(entity.id).fetch_history()
    replayer = Replayer(
        workflows=[Counter],
        data_converter=pydantic_data_converter,
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    await replayer.replay_workflow(history)
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        await replayer.replay_workflow(history)
        taken.append(time.perf_counter() - started)
    median_ms = Load(0, taken).quantile(50)
    print(f"replay of 10,000 messages inside of a tree: {median_ms:.0f} ms (aim 1000 or less)\n")


if __name__ == "__main__":
    asyncio.run(main())
