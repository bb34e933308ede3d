"""Calls of models on a real Temporal server: workers of a test's own making, and what an API process has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from activities.backends.memory import MemoryWorkerRegistry
from activities.backends.memory_models import MemoryModelCatalog, MemoryPieceFeed
from activities.ports import WorkerStatus
from api.inference import InferenceParts, ModelInference
from api.model_registry import ModelRegistry
from api.placement import Placement
from goatherd.contracts.ids import new_id
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.inference_work import INFER, InferAnswer, InferOrder, Outcome, Piece, WorkItem
from goatherd.contracts.queues import Pool
from goatherd.payloads import MemoryPayloadStore
from goatherd.settings import Settings

Answering = Callable[["Desk", InferOrder], Awaitable[InferAnswer]]

MODELS = {
    "shout": ModelSpec(provider="scripted", task=Task.TEXT_CLASSIFICATION),
    "talk": ModelSpec(provider="scripted", task=Task.CONVERSATIONAL),
    "eye": ModelSpec(provider="scripted", task=Task.IMAGE_CLASSIFICATION),
    "voice": ModelSpec(provider="scripted", task=Task.TEXT_TO_SPEECH),
}


async def shout(desk: Desk, order: InferOrder) -> InferAnswer:
    """Each item in capitals."""
    return InferAnswer(outcomes=[Outcome(output=str(item.inputs).upper()) for item in order.items])


@dataclass
class Desk:
    """A worker of the pool `inference`, as far as its queues and its report go. What it does, a test says."""

    name: str
    client: Client
    queues: list[str]
    answering: Answering = shout
    orders: list[InferOrder] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Desk]:
        @activity.defn(name=INFER)
        async def infer(order: InferOrder) -> InferAnswer:
            self.orders.append(order)
            self.arrived.set()
            beating = asyncio.create_task(_beat())
            try:
                return await self.answering(self, order)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            finally:
                beating.cancel()

        workers = [
            Worker(
                self.client,
                task_queue=queue,
                activities=[infer],
                max_heartbeat_throttle_interval=_HALF,
                default_heartbeat_throttle_interval=_HALF,
            )
            for queue in self.queues
        ]
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(worker.run()) for worker in workers]
            yield self
            for worker in workers:
                group.create_task(worker.shutdown())
        del running


async def _beat() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(0.2)


_HALF = timedelta(milliseconds=300)


class Office:
    """An API process's calls, with a registry that says of workers what a test says."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.settings = Settings(models=MODELS, model="talk", task_queue_prefix=new_id("batch"))
        self.workers = MemoryWorkerRegistry()
        self.pieces = MemoryPieceFeed()
        self.payloads = MemoryPayloadStore()
        self.shared = self.settings.task_queue(Pool.INFERENCE)
        self.registry = ModelRegistry(self.settings, MemoryModelCatalog())
        self.placement = Placement(self.workers, self.shared)
        self.inference = ModelInference(
            InferenceParts(client, self.registry, self.placement, self.pieces, self.payloads)
        )

    def desk(self, name: str, *, shared: bool = False) -> Desk:
        queues = [f"{self.shared}.{name}", *([self.shared] if shared else [])]
        return Desk(name, self.client, queues)

    async def report(self, desk: Desk, memory: int = 100, used: int = 0, **models: str) -> None:
        """What a worker says of itself."""
        status = WorkerStatus(
            identity=desk.name,
            pools=("inference",),
            state="ready",
            models=models,
            queue=desk.queues[0],
            memory_bytes=memory,
            used_bytes=used,
            at=datetime.now(UTC),
        )
        await self.workers.report(status)
        self.placement.forget()

    async def run(
        self, model: str, *inputs: object, timeout_s: float = 20.0, caller: str = "ann"
    ) -> list[Outcome]:
        entry = self.registry.entry(model)
        items = [WorkItem(inputs=one) for one in inputs]
        return await self.inference.run(entry, entry.spec.task, items, caller=caller, timeout_s=timeout_s)

    async def texts(
        self, model: str, prompt: str, *, timeout_s: float = 20.0
    ) -> AsyncIterator[Piece | Outcome]:
        entry = self.registry.entry(model)
        item = WorkItem(inputs={"messages": [{"role": "user", "content": prompt}]})
        async for one in self.inference.stream(
            entry, entry.spec.task, item, caller="ann", timeout_s=timeout_s
        ):
            yield one
