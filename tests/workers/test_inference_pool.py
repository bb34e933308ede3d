"""Workers of the pool `inference`, on a real Temporal server: calls of scripted models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import ActivityFailureError, ActivityHandle, Client
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from activities.backends.machine import Machine
from activities.backends.memory import MemoryChatStore
from activities.backends.memory_models import MemoryPieceFeed
from activities.backends.model_host import ModelHost
from goatherd.contracts.ids import new_id
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.inference_work import (
    INFER,
    LOAD_MODEL,
    InferAnswer,
    InferOrder,
    LoadModel,
    Standing,
    WorkItem,
)
from goatherd.contracts.queues import Pool, own_queue
from goatherd.errors import Unavailable
from goatherd.settings import Settings
from goatherd.temporal import told
from tests.temporal import eventually, temporal_server
from workers.pools import Parts, build_workers

SPEC = ModelSpec(provider="scripted", task=Task.TRANSLATION, options={"batch_ms": 50})


class House:
    """One worker process's worth of the pool."""

    def __init__(self, client: Client, cache: Path) -> None:
        models = {"loud": SPEC, "talk": ModelSpec(provider="scripted")}
        self.client = client
        self.settings = Settings(
            task_queue_prefix=new_id("req"), models=models, model="talk", cache=cache, model_memory_mb=100
        )
        self.host = ModelHost(self.settings, machine=Machine("cpu", 1 << 30))
        self.shared = self.settings.task_queue(Pool.INFERENCE)
        self.own = own_queue("one", self.settings.task_queue_prefix)
        self.parts = Parts(
            client,
            MemoryChatStore(),
            self.host,
            self.settings,
            host=self.host,
            pieces=MemoryPieceFeed(),
            worker="one",
            own_queue=self.own,
        )

    async def start(self, name: str, argument: Any, result: type, queue: str) -> ActivityHandle[Any]:
        return await self.client.start_activity(
            name,
            argument,
            id=new_id("call"),
            task_queue=queue,
            result_type=result,
            schedule_to_close_timeout=timedelta(seconds=30),
            heartbeat_timeout=timedelta(seconds=5),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )

    async def infer(self, *texts: str, spec: ModelSpec = SPEC, queue: str | None = None) -> InferAnswer:
        items = [WorkItem(inputs=text) for text in texts]
        order = InferOrder(model="loud", task=Task.TRANSLATION, items=items, spec=spec)
        handle = await self.start(INFER, order, InferAnswer, queue or self.own)
        answer: InferAnswer = await handle.result()
        return answer


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[Client]:
    async with temporal_server() as environment:
        yield environment.client


@pytest.fixture
async def house(client: Client, tmp_path: Path) -> AsyncIterator[House]:
    house = House(client, tmp_path)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(house.host.close)
        for worker in build_workers([Pool.INFERENCE], house.parts):
            await stack.enter_async_context(worker)
        yield house


async def test_call_is_taken_from_the_shared_queue_and_from_the_workers_own(house: House) -> None:
    for queue in (house.shared, house.own):
        answer = await house.infer("hello", queue=queue)
        assert answer.outcomes[0].output == {"translation_text": "HELLO"}
        assert answer.worker == "one"


async def test_many_calls_at_once_are_computed_together(house: House) -> None:
    answers = await asyncio.gather(*(house.infer(f"text {n}") for n in range(40)))
    assert [answer.outcomes[0].output["translation_text"] for answer in answers] == [
        f"TEXT {n}" for n in range(40)
    ]
    assert max(answer.batch for answer in answers) > 1


async def test_load_is_asked_of_one_worker(house: House) -> None:
    handle = await house.start(LOAD_MODEL, LoadModel(model="loud", spec=SPEC), Standing, house.own)
    assert (await handle.result()).state == "ready"
    assert house.host.states() == {"loud": "ready"}


async def test_error_of_the_whole_order_crosses_with_its_code(house: House) -> None:
    large = SPEC.model_copy(update={"memory_mb": 1_000})
    with pytest.raises(ActivityFailureError) as raised:
        await house.infer("hello", spec=large)
    cause = raised.value.cause
    assert isinstance(cause, ApplicationError)
    error = told(cause)
    assert error.code == "model-too-large"
    assert isinstance(error, Unavailable)
    assert error.retry_after_s == 60


async def test_cancelled_call_frees_the_model(house: House) -> None:
    slow = SPEC.model_copy(update={"options": {"item_ms": 60_000}})
    items = [WorkItem(inputs="slow")]
    order = InferOrder(model="loud", task=Task.TRANSLATION, items=items, spec=slow)
    handle = await house.start(INFER, order, InferAnswer, house.own)

    async def is_here() -> bool:
        return house.host.states() == {"loud": "ready"}

    await eventually(is_here)
    await handle.cancel()
    with pytest.raises(ActivityFailureError):
        await handle.result()
    async with asyncio.timeout(5):
        await house.host.unload("loud")
        assert (await house.infer("next")).outcomes[0].output == {"translation_text": "NEXT"}
