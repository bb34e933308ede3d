"""Workers that are killed: nothing that was asked is lost or counts twice, and nobody waits for long."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

from temporalio.testing import WorkflowEnvironment

from goatherd.actors.durable import ActorSystem
from goatherd.actors.durable._client import TASK_TIMEOUT
from goatherd.errors import DeadlineExceeded, Unavailable
from tests.actors.durable.accounts import Account, Deposit, OpenAccount, Total
from tests.actors.durable.worker import STICKY_S
from tests.temporal import PATIENCE_S

ACTORS = 5
ASKERS = 20
ASKS = 5_000
KILLS = 4


class Herd:
    """Worker processes, of which one at a time is killed and another takes its place."""

    def __init__(self, address: str, task_queue: str) -> None:
        self._arguments = ("-m", "tests.actors.durable.worker", address, task_queue)
        self._workers: list[asyncio.subprocess.Process] = []

    async def add(self) -> None:
        """Returns when it works."""
        worker = await asyncio.create_subprocess_exec(
            sys.executable, *self._arguments, stdout=asyncio.subprocess.PIPE
        )
        self._workers.append(worker)
        assert worker.stdout is not None
        assert await worker.stdout.readline() == b"ready\n"

    async def kill_oldest(self) -> None:
        worker = self._workers.pop(0)
        worker.kill()
        await worker.wait()

    async def close(self) -> None:
        while self._workers:
            await self.kill_oldest()


@asynccontextmanager
async def herd_of(temporal: WorkflowEnvironment, task_queue: str, workers: int) -> AsyncIterator[Herd]:
    herd = Herd(temporal.client.service_client.config.target_host, task_queue)
    try:
        await asyncio.gather(*(herd.add() for _ in range(workers)))
        yield herd
    finally:
        await herd.close()


async def until_answered(ask: Callable[[], Awaitable[int]]) -> int:
    """As a user of the API does: again with the same id, until there is an answer."""
    while True:
        with suppress(DeadlineExceeded, Unavailable):
            return await ask()


async def test_each_ask_counts_once_while_workers_are_killed(temporal: WorkflowEnvironment) -> None:
    """An ask that a killed worker has in hand waits for the task's timeout, one that it would have got for
    the sticky queue's; then another worker has it."""
    system = ActorSystem(temporal.client, task_queue=str(uuid4()), ask_timeout_s=PATIENCE_S)
    accounts = [system.entity(Account, f"acct-{uuid4()}") for _ in range(ACTORS)]
    done = 0
    slowest_s = 0.0
    progress = asyncio.Condition()

    async def asker(number: int) -> None:
        nonlocal done, slowest_s
        account = accounts[number % ACTORS]
        loop = asyncio.get_running_loop()
        for ask in range(ASKS // ASKERS):
            began = loop.time()
            ask_id = f"{number}-{ask}"
            await until_answered(lambda ask_id=ask_id: account.ask(Deposit(1), id=ask_id, timeout_s=8.0))  # type: ignore[misc]
            slowest_s = max(slowest_s, loop.time() - began)
            async with progress:
                done += 1
                progress.notify_all()

    async with herd_of(temporal, system.task_queue, 2) as herd:
        await asyncio.gather(*(account.start(OpenAccount()) for account in accounts))
        asking = [asyncio.create_task(asker(number)) for number in range(ASKERS)]
        for kill in range(1, KILLS + 1):
            async with progress:
                await progress.wait_for(lambda kill=kill: done >= kill * ASKS // (KILLS + 1))  # type: ignore[misc]
            await herd.kill_oldest()
            await herd.add()
        await asyncio.gather(*asking)
        assert [await account.ask(Total()) for account in accounts] == [ASKS // ACTORS] * ACTORS
    assert slowest_s <= STICKY_S + 1.0 + TASK_TIMEOUT.total_seconds()


async def test_an_idle_actors_next_ask_waits_for_the_sticky_queue_only(temporal: WorkflowEnvironment) -> None:
    system = ActorSystem(temporal.client, task_queue=str(uuid4()), ask_timeout_s=PATIENCE_S)
    account = system.entity(Account, f"acct-{uuid4()}")
    loop = asyncio.get_running_loop()
    async with herd_of(temporal, system.task_queue, 1) as herd:
        await account.start(OpenAccount())
        for total in range(1, 4):
            assert await account.ask(Deposit(1)) == total
        await herd.add()
        await herd.kill_oldest()  # The one that has it in its cache.
        began = loop.time()
        assert await account.ask(Deposit(1)) == 4
        assert loop.time() - began <= STICKY_S + 1.0
