"""What somebody wrote and nobody takes in is taken in all the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from temporalio.client import Client
from temporalio.exceptions import WorkflowAlreadyStartedError

from activities.backends.memory_indexes import MemoryIndexStore
from goatherd.contracts.ids import new_id
from goatherd.contracts.retrieval import DocumentIn, Index, IndexSpec, Ingest, Version, ingestion_id
from goatherd.settings import Settings
from workers.ingestion_keeper import IngestionKeeper


@dataclass
class Temporal:
    """Notes what is started; some run already."""

    running: set[str] = field(default_factory=set)
    started: list[Ingest] = field(default_factory=list)

    async def start_workflow(self, kind: str, ingest: Ingest, *, id: str, **more: Any) -> None:
        assert more["start_signal"] is None
        if id in self.running:
            raise WorkflowAlreadyStartedError(id, kind)
        self.running.add(id)
        self.started.append(ingest)


async def make(store: MemoryIndexStore, *docs: str) -> str:
    now = datetime.now(UTC)
    id = new_id("idx")
    version = Version(number=1, spec=IndexSpec(dimensions=0), created_at=now)
    await store.create(Index(id=id, name=id, owner="ann", serving=version, created_at=now, updated_at=now))
    await store.put(id, [DocumentIn(id=doc, text=doc) for doc in docs])
    return id


async def test_what_nobody_takes_in_is_begun_and_what_runs_is_left_alone() -> None:
    store, temporal = MemoryIndexStore(), Temporal()
    left, runs, empty, gone = [await make(store, *docs) for docs in (["a"], ["a"], [], ["a"])]
    temporal.running.add(ingestion_id(runs))
    await store.drop(gone)
    keeper = IngestionKeeper(cast(Client, temporal), store, Settings())
    await keeper.look()
    assert {(one.index, one.owner) for one in temporal.started} == {(left, "ann"), (gone, "")}
    await keeper.look()
    assert len(temporal.started) == 2
    assert empty not in [one.index for one in temporal.started]
