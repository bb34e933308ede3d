"""States, messages and answers that are too large for Temporal: with a store, and without one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer

from activities.backends.mongo_client import connect
from activities.backends.mongo_payloads import MongoPayloadStore
from goatherd.actors import AnswerTooLarge, MessageTooLarge, StateTooLarge
from goatherd.actors.durable import ActorSystem, _host
from goatherd.errors import GoatherdError, Unavailable
from goatherd.payloads import MemoryPayloadStore, Owner, data_converter
from tests.actors.durable.hoarding import address, open_hoard, run_ids, system_of
from tests.actors.durable.hoards import (
    MB,
    Drop,
    Fill,
    Hoard,
    Put,
    Show,
    Weight,
    hoard_worker,
    thing_of,
)
from tests.servers import EmbeddedStore, embedded_store
from tests.temporal import eventually
from workers.sandbox import workflow_runner

SIZES = pytest.mark.parametrize("size", [3 * MB, 12 * MB], ids=["3 MB", "12 MB"])


class Flaky(MemoryPayloadStore):
    """A store that can be down. `asked`: whether it was asked while it was."""

    def __init__(self) -> None:
        super().__init__()
        self.is_down = False
        self.asked = asyncio.Event()

    def _check(self) -> None:
        if self.is_down:
            self.asked.set()
            raise Unavailable("The store is down.")

    async def put(self, owner: Owner, content: bytes) -> str:
        self._check()
        return await super().put(owner, content)

    async def get(self, key: str) -> bytes | None:
        self._check()
        return await super().get(key)


@pytest.mark.parametrize("sandboxed", [True, False], ids=["sandboxed", "bare"])
@SIZES
async def test_a_large_state_goes_through_continue_as_new_and_replays(
    temporal: WorkflowEnvironment, size: int, sandboxed: bool
) -> None:
    payloads = MemoryPayloadStore()
    system = await system_of(temporal, payloads)
    async with hoard_worker(system.client, system.task_queue, sandboxed=sandboxed):
        hoard = await open_hoard(system)
        await hoard.ask(Fill(size))
        for number in range(1, 7):
            assert await hoard.ask(Fill(1, seed=number)) == size + number
        runs = await run_ids(system.client, hoard.id)
    assert len(runs) >= 4
    replayer = Replayer(
        workflows=[Hoard],
        data_converter=data_converter(payloads),
        workflow_runner=workflow_runner(sandboxed=sandboxed),
    )
    for run_id in runs:
        history = await system.client.get_workflow_handle(hoard.id, run_id=run_id).fetch_history()
        assert len(history.to_json()) < 100_000
        await replayer.replay_workflow(history)


async def test_large_messages_and_answers_arrive_as_they_were(temporal: WorkflowEnvironment) -> None:
    system = await system_of(temporal, MemoryPayloadStore())
    async with hoard_worker(system.client, system.task_queue):
        hoard = await open_hoard(system, asks_per_run=1_000)
        thing = thing_of(5 * MB)
        assert await hoard.ask(Put(thing)) == 5 * MB
        assert await hoard.ask(Show()) == thing
        weights = await asyncio.gather(*(hoard.ask(Fill(MB)) for _ in range(10)))
        assert sorted(weights) == [number * MB for number in range(6, 16)]
        shown = await asyncio.gather(*(hoard.ask(Show()) for _ in range(4)))
        assert {len(one) for one in shown} == {15 * MB}


@asynccontextmanager
async def worker_process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Yielded when it works; killed at the end, if it lives."""
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.actors.durable.hoard_worker", *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert worker.stdout is not None
        assert await worker.stdout.readline() == b"ready\n"
        yield worker
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()


@asynccontextmanager
async def store_and_system(temporal: WorkflowEnvironment) -> AsyncIterator[tuple[EmbeddedStore, ActorSystem]]:
    async with embedded_store() as store:
        database = connect(store.uri, "payloads")
        try:
            yield store, await system_of(temporal, MongoPayloadStore(database))
        finally:
            await database.client.close()


@SIZES
async def test_an_actor_with_a_large_state_answers_after_its_worker_was_killed(
    temporal: WorkflowEnvironment, size: int
) -> None:
    async with store_and_system(temporal) as (store, system):
        arguments = (address(temporal), system.task_queue, store.uri)
        async with worker_process(*arguments) as first:
            hoard = await open_hoard(system)
            await hoard.ask(Fill(size), timeout_s=30.0)
            for _ in range(5):
                assert await hoard.ask(Weight(), timeout_s=30.0) == size
            first.kill()
            await first.wait()
        async with worker_process(*arguments):
            assert await hoard.ask(Show(), timeout_s=30.0) == thing_of(size)
            await hoard.ask(Put("x"), timeout_s=30.0)
            assert await hoard.ask(Weight(), timeout_s=30.0) == size + 1


async def test_an_actor_waits_for_a_real_store_that_is_killed(temporal: WorkflowEnvironment) -> None:
    async with (
        store_and_system(temporal) as (store, system),
        worker_process(address(temporal), system.task_queue, store.uri),
    ):
        hoard = await open_hoard(system, asks_per_run=3)
        await hoard.ask(Fill(3 * MB), timeout_s=30.0)
        await store.kill()
        with pytest.raises(GoatherdError):
            await hoard.ask(Show(), timeout_s=5.0)
        await store.start()
        assert await hoard.ask(Show(), timeout_s=60.0) == thing_of(3 * MB)
        for _ in range(3):
            assert await hoard.ask(Weight(), timeout_s=60.0) == 3 * MB


async def test_a_store_that_is_down_fails_the_task_and_not_the_actor(temporal: WorkflowEnvironment) -> None:
    payloads = Flaky()
    system = await system_of(temporal, payloads)
    async with hoard_worker(system.client, system.task_queue):
        hoard = await open_hoard(system)
        await hoard.ask(Fill(3 * MB))
        payloads.is_down = True
        with pytest.raises(Unavailable):
            await hoard.ask(Put(thing_of(MB)))
        # It wants to go on to its next run, with a state that nobody takes.
        asking = asyncio.create_task(hoard.ask(Weight(), timeout_s=60.0))
        payloads.asked.clear()
        await payloads.asked.wait()
        payloads.is_down = False
        assert await asking == 3 * MB
        assert await hoard.ask(Weight(), timeout_s=60.0) == 3 * MB
        assert len(await run_ids(system.client, hoard.id)) >= 2


async def test_without_a_store_a_state_that_is_too_large_stays_in_its_run(
    temporal: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_host, "MOST_UPDATES", 8)
    system = await system_of(temporal, None)
    async with hoard_worker(system.client, system.task_queue):
        hoard = await open_hoard(system)
        await hoard.ask(Fill(3 * MB))
        for _ in range(7):
            assert await hoard.ask(Weight()) == 3 * MB
        with pytest.raises(StateTooLarge):
            await hoard.ask(Weight())
        asks = (hoard.ask(Weight()) for _ in range(5))
        refused = await asyncio.gather(*asks, return_exceptions=True)
        assert {type(one) for one in refused} == {StateTooLarge}
        assert len(await run_ids(system.client, hoard.id)) == 1
        # It takes what it is told, and goes on as soon as it can.
        await hoard.tell(Drop())
        assert await hoard.ask(Weight()) == 0
        assert len(await run_ids(system.client, hoard.id)) == 2


async def test_an_actor_that_was_stuck_goes_on_when_its_worker_has_a_store(
    temporal: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_host, "MOST_UPDATES", 8)
    payloads = MemoryPayloadStore()
    poor = await system_of(temporal, None)
    rich = await ActorSystem.connect(address(temporal), task_queue=poor.task_queue, payloads=payloads)
    async with hoard_worker(poor.client, poor.task_queue):
        hoard = await open_hoard(poor)
        for seed in range(6):
            await hoard.ask(Fill(MB, seed=seed))
        for _ in range(2):
            await hoard.ask(Weight())
        with pytest.raises(StateTooLarge):
            await hoard.ask(Weight())
    async with hoard_worker(rich.client, rich.task_queue):
        same = rich.entity(Hoard, hoard.id)
        await same.tell(Put("x"))
        assert await same.ask(Weight(), timeout_s=30.0) == 6 * MB + 1
        runs = await run_ids(rich.client, hoard.id)
        assert len(runs) == 2
        first = await rich.client.get_workflow_handle(hoard.id, run_id=runs[1]).fetch_history()
    # What was decided with a store is decided so without one, too.
    runner = workflow_runner(sandboxed=False)
    replayer = Replayer(workflows=[Hoard], data_converter=data_converter(None), workflow_runner=runner)
    await replayer.replay_workflow(first)


async def test_without_a_store_an_answer_that_is_too_large_is_refused(temporal: WorkflowEnvironment) -> None:
    system = await system_of(temporal, None)
    async with hoard_worker(system.client, system.task_queue):
        hoard = await open_hoard(system, asks_per_run=1_000)
        await hoard.ask(Fill(3 * MB))
        with pytest.raises(AnswerTooLarge):
            await hoard.ask(Show())
        asked = await asyncio.gather(
            *(hoard.ask(one) for one in (Show(), Weight(), Show(), Weight())), return_exceptions=True
        )
        assert [type(one) for one in asked] == [AnswerTooLarge, int, AnswerTooLarge, int]


async def test_without_a_store_a_message_that_is_too_large_is_not_sent(temporal: WorkflowEnvironment) -> None:
    system = await system_of(temporal, None)
    async with hoard_worker(system.client, system.task_queue):
        hoard = await open_hoard(system)
        for size in (2 * MB, 5 * MB):
            with pytest.raises(MessageTooLarge):
                await hoard.ask(Put("x" * size))
            with pytest.raises(MessageTooLarge):
                await hoard.tell(Put("x" * size))
        assert await hoard.ask(Weight()) == 0


async def test_small_payloads_never_touch_the_store(temporal: WorkflowEnvironment) -> None:
    payloads = Flaky()
    payloads.is_down = True
    system = await system_of(temporal, payloads)
    async with hoard_worker(system.client, system.task_queue):
        hoard = await open_hoard(system)
        for number in range(1, 7):
            assert await hoard.ask(Put("x" * 30_000)) == number * 30_000

        async def has_moved() -> bool:
            return len(await run_ids(system.client, hoard.id)) >= 3

        await eventually(has_moved)
        history = await system.client.get_workflow_handle(hoard.id).fetch_history()
        assert "large-state" not in history.to_json()
