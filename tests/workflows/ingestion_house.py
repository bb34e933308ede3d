"""Where documents are taken in: a real Temporal server, a store in memory, and models by script."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError
from temporalio.worker import Worker

from activities.backends.memory_indexes import MemoryIndexStore
from activities.backends.model_host import ModelHost
from activities.backends.retrieval.embedding import Embedding
from activities.indexing import EntryMaker, IndexPlanning, TakingIn
from goatherd.contracts.ids import new_id
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.queues import Pool
from goatherd.contracts.retrieval import (
    INGEST_WORKFLOW,
    NUDGE,
    TIDY_INDEX,
    WARM_INDEX,
    Counts,
    DocumentIn,
    Entry,
    Index,
    IndexSpec,
    Ingest,
    Version,
    VersionOf,
    ingestion_id,
    take_in_queue,
)
from goatherd.payloads import utc_now
from goatherd.settings import Settings
from tests.temporal import eventually
from workers.sandbox import workflow_runner
from workflows.ingestion import Ingestion

MODELS = {
    "vectors": ModelSpec(provider="scripted", task=Task.FEATURE_EXTRACTION),
    "other": ModelSpec(provider="scripted", task=Task.FEATURE_EXTRACTION, options={"dimensions": 8}),
}
SPEC = IndexSpec(model="vectors", dimensions=16)
_HALF = timedelta(milliseconds=300)


def version(number: int = 1, spec: IndexSpec = SPEC) -> Version:
    return Version(number=number, spec=spec, created_at=utc_now())


def an_index(spec: IndexSpec = SPEC, owner: str = "ann") -> Index:
    name = new_id("req").lower().replace("_", "-")
    now = utc_now()
    return Index(
        id=new_id("req"), name=name, owner=owner, serving=version(1, spec), created_at=now, updated_at=now
    )


@dataclass
class Barn:
    """One store, and whoever works for it."""

    client: Client
    store: MemoryIndexStore = field(default_factory=MemoryIndexStore)
    rounds: int = 0
    warmed: list[VersionOf] = field(default_factory=list)
    tidied: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings = Settings(models=MODELS, model="vectors", task_queue_prefix=new_id("batch"))
        self.host = ModelHost(self.settings)

    @asynccontextmanager
    async def workers(
        self, *, maker: EntryMaker | None = None, sandboxed: bool = True, retrieval: bool = True
    ) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.deciders(sandboxed=sandboxed))
            await stack.enter_async_context(self.takers(maker))
            if retrieval:
                await stack.enter_async_context(self._worker(Pool.RETRIEVAL, self.warm, self.tidy))
            yield

    @asynccontextmanager
    async def deciders(self, *, sandboxed: bool = True) -> AsyncIterator[None]:
        """Those who say what is to be done."""
        planning = IndexPlanning(self.store)
        async with (
            Worker(
                self.client,
                task_queue=self.settings.task_queue(Pool.ACTORS),
                workflows=[Ingestion],
                workflow_runner=workflow_runner(sandboxed=sandboxed),
            ),
            self._worker(Pool.STORE, planning.plan, planning.audit, planning.complete, planning.sweep),
        ):
            yield

    @asynccontextmanager
    async def takers(self, maker: EntryMaker | None = None) -> AsyncIterator[None]:
        """Those who do it."""
        taking_in = TakingIn(self.store, maker or Embedding(self.host))
        queues = [take_in_queue(self.settings.task_queue(pool)) for pool in (Pool.INFERENCE, Pool.STORE)]
        async with AsyncExitStack() as stack:
            for queue in queues:
                await stack.enter_async_context(
                    Worker(
                        self.client,
                        task_queue=queue,
                        activities=[taking_in.take_in],
                        max_heartbeat_throttle_interval=_HALF,
                        default_heartbeat_throttle_interval=_HALF,
                        graceful_shutdown_timeout=timedelta(milliseconds=100),
                    )
                )
            yield

    def _worker(self, pool: Pool, *activities: Callable[..., object]) -> Worker:
        return Worker(self.client, task_queue=self.settings.task_queue(pool), activities=activities)

    @activity.defn(name=TIDY_INDEX)
    async def tidy(self, index: str) -> None:
        self.tidied.append(index)

    @activity.defn(name=WARM_INDEX)
    async def warm(self, of: VersionOf) -> None:
        self.warmed.append(of)

    # -- what the API does

    async def begin(self, spec: IndexSpec = SPEC) -> str:
        return (await self.store.create(an_index(spec))).id

    async def put(self, index: str, *documents: DocumentIn) -> None:
        assert await self.store.put(index, documents) is not None
        await self.nudge(index)

    async def put_many(self, index: str, count: int, text: str = "document {n}", first: int = 0) -> None:
        for begin in range(first, first + count, 500):
            some = range(begin, min(begin + 500, first + count))
            documents = [DocumentIn(id=f"d{n}", text=text.format(n=n)) for n in some]
            assert await self.store.put(index, documents) is not None
        await self.nudge(index)

    async def nudge(self, index: str) -> None:
        await self.client.start_workflow(
            INGEST_WORKFLOW,
            Ingest(
                index=index,
                owner="ann",
                task_queue_prefix=self.settings.task_queue_prefix,
                rounds=self.rounds,
            ),
            id=ingestion_id(index),
            task_queue=self.settings.task_queue(Pool.ACTORS),
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal=NUDGE,
        )

    # -- how it stands

    def ingestion(self, index: str) -> WorkflowHandle[object, object]:
        return self.client.get_workflow_handle(ingestion_id(index))

    async def status(self, index: str) -> str:
        """Of the latest run; empty if there was none."""
        try:
            status = (await self.ingestion(index).describe()).status
        except RPCError:
            return ""
        return "" if status is None else status.name

    async def ended(self, index: str, within_s: float = 30.0) -> None:
        async def check() -> bool:
            return await self.status(index) not in ("RUNNING", "CONTINUED_AS_NEW")

        await eventually(check, within_s=within_s)

    async def idle(self, index: str, within_s: float = 60.0) -> Counts:
        """How it stands when nothing is to do any more."""

        async def check() -> bool:
            there = await self.store.index(index)
            assert there is not None
            todo = [await self.store.todo(index, one.number, 1) for one in there.versions]
            return not any(todo)

        await eventually(check, within_s=within_s)
        return await self.store.counts(index)

    async def serves(self, index: str, number: int, within_s: float = 60.0) -> None:
        async def check() -> bool:
            there = await self.store.index(index)
            return there is not None and there.serving.number == number

        await eventually(check, within_s=within_s)

    async def entries(self, index: str, number: int = 1) -> dict[str, Entry]:
        """What a version has, by document."""
        found: dict[str, Entry] = {}
        async for batch in self.store.entries(index, number):
            for entry in batch:
                assert entry.doc not in found
                found[entry.doc] = entry
        return found

    async def events(self, index: str) -> int:
        return len((await self.ingestion(index).fetch_history()).events)
