"""Where jobs are done: a real Temporal server, stores in memory, and models that do what a test says."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.backends.memory_jobs import MemoryJobStore
from activities.backends.memory_models import MemoryModelCatalog
from activities.blobs import Blobs
from activities.jobs import JobActivities, JobSettling
from api.hf_inputs import Asked
from api.idempotency import Ids
from api.job_service import JobService, Wish
from api.model_registry import ModelRegistry
from goatherd.contracts.ids import new_id
from goatherd.contracts.inference import Limits, ModelSpec
from goatherd.contracts.inference_job import Job
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.inference_work import InferAnswer, InferOrder, Outcome, Problem, WorkItem
from goatherd.contracts.queues import Pool
from goatherd.payloads import MemoryPayloadStore
from goatherd.security.access import Principal
from goatherd.settings import Settings
from workers.sandbox import workflow_runner
from workflows.inference_job import InferenceJob

ANN = Principal("ann")
MODELS = {
    "shout": ModelSpec(provider="scripted", task=Task.TEXT_CLASSIFICATION, limits=Limits(batch=3)),
    "eye": ModelSpec(provider="scripted", task=Task.IMAGE_CLASSIFICATION),
    "voice": ModelSpec(provider="scripted", task=Task.TEXT_TO_SPEECH),
}


def outcome(item: WorkItem) -> Outcome:
    text = str(item.inputs)
    if text.startswith("bad"):
        return Outcome(problem=Problem(code="invalid", message=f"no {text}"))
    return Outcome(output=[{"label": text.upper(), "score": 1.0}])


async def shout(order: InferOrder) -> InferAnswer:
    return InferAnswer(outcomes=[outcome(item) for item in order.items])


@dataclass
class Plant:
    """Where jobs are done. What models do, a test says."""

    temporal: WorkflowEnvironment
    answering: Callable[[InferOrder], Awaitable[InferAnswer]] = shout
    orders: list[InferOrder] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings = Settings(models=MODELS, model="shout", task_queue_prefix=new_id("batch"))
        self.store = MemoryJobStore()
        self.payloads = MemoryPayloadStore()
        self.blobs = Blobs(self.payloads, self.temporal.client.namespace)
        self.registry = ModelRegistry(self.settings, MemoryModelCatalog())
        self.service = JobService(self.temporal.client, self.store, self.blobs, self.registry, self.settings)

    async def answer(self, order: InferOrder) -> InferAnswer:
        self.orders.append(order)
        return await self.answering(order)

    @contextlib.asynccontextmanager
    async def workers(self, *, sandboxed: bool = True) -> AsyncIterator[None]:
        client, queue = self.temporal.client, self.settings.task_queue
        async with (
            Worker(
                client,
                task_queue=queue(Pool.ACTORS),
                workflows=[InferenceJob],
                workflow_runner=workflow_runner(sandboxed=sandboxed),
            ),
            Worker(
                client,
                task_queue=queue(Pool.INFERENCE),
                activities=[JobActivities(self.store, self).compute_part],
            ),
            Worker(client, task_queue=queue(Pool.STORE), activities=[JobSettling(self.store).settle_job]),
        ):
            yield

    async def create(self, *texts: object, model: str = "shout", many: bool = True, **more: float) -> Job:
        entry = self.registry.entry(model)
        asked = Asked([WorkItem(inputs=text) for text in texts], many, {})
        wish = Wish(entry.spec.task, asked, {"by": "a test"}, more.get("timeout_s", 600.0))
        return await self.service.create(Ids(), ANN, entry, wish)

    async def labels(self, job: Job) -> list[str | None]:
        result = await self.service.result(ANN, job.id)
        return [one.output[0]["label"] if one.output else None for one in result.outcomes]
