"""Several workers keep one version in Elasticsearch; some stop anywhere, some go on much later."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

import numpy as np
import pytest
from elasticsearch import AsyncElasticsearch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from activities.backends.retrieval import elastic_writes
from activities.backends.retrieval.elastic_client import connect
from activities.backends.retrieval.elastic_engine import ElasticEngine
from activities.backends.retrieval.elastic_schema import version_name
from goatherd.contracts.retrieval import Entry
from goatherd.errors import Unavailable
from tests.activities.retrieval.elastic_server import NO_SHRINKING, ElasticServer, elastic_server
from tests.activities.retrieval.engine_cases import DIMENSIONS, fill, index_of
from tests.activities.retrieval.engine_checks import EngineChecks
from tests.activities.retrieval.reference_engine import Reference


@pytest.fixture(scope="module")
def server() -> Iterator[ElasticServer]:
    with elastic_server() as server:
        yield server


class Stumbling:
    """A client that stops at its n-th request: with an error, after a part of it was done, or to wait."""

    def __init__(self, client: AsyncElasticsearch) -> None:
        self._client = client
        self.left: int | None = None
        self.part = 0
        self.until: asyncio.Event | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def mget(self, **given: Any) -> Any:
        await self._step(None)
        return await self._client.mget(**given)

    async def bulk(self, *, operations: list[Any], **given: Any) -> Any:
        await self._step(operations, **given)
        return await self._client.bulk(operations=operations, **given)

    async def index(self, **given: Any) -> Any:
        await self._step(None)
        return await self._client.index(**given)

    async def _step(self, operations: list[Any] | None, **given: Any) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left > 0:
            return
        self.left = None
        if self.until is not None:
            await self.until.wait()
            return
        if operations and (some := operations[: 2 * self.part]):
            await self._client.bulk(operations=some, **given)
        raise Unavailable("it stops here")


class Worker:
    def __init__(self, server: ElasticServer, version: Any) -> None:
        self.client = connect(server.url)
        self.steps = Stumbling(self.client)
        self.engine = ElasticEngine(self.steps, *version)  # type: ignore[arg-type]


class Workers(RuleBasedStateMachine):
    """What the store has is the last entry of each document, as there it is."""

    def __init__(self, server: ElasticServer) -> None:
        super().__init__()
        self.server = server
        self.runner = asyncio.Runner()
        self.version = index_of(backend="elasticsearch")
        self.reference = Reference(self.version[1].spec)
        self.store: dict[str, Entry] = {}
        self.checks = EngineChecks()
        self.workers = [self.run(self._worker()) for _ in range(2)]
        self.waiting: list[tuple[Worker, asyncio.Event, asyncio.Task[None]]] = []

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    async def _worker(self) -> Worker:
        worker = Worker(self.server, self.version)
        await worker.engine.begin()
        return worker

    def entries(self, worker: Worker) -> list[Entry]:
        found = sorted(self.store.values(), key=lambda entry: entry.seq)
        return [entry for entry in found if entry.seq > worker.engine.applied]

    DOCS = st.sampled_from(string.ascii_lowercase[:3])

    @rule(doc=DOCS, chunks=st.integers(1, 3))
    def put(self, doc: str, chunks: int) -> None:
        vectors = np.random.default_rng(self.reference.seq).standard_normal((chunks, DIMENSIONS))
        self.store[doc] = self.reference.put(doc, ["cats"] * chunks, vectors)

    @rule(doc=DOCS)
    def delete(self, doc: str) -> None:
        if doc in self.reference.docs:
            self.store[doc] = self.reference.delete(doc)

    @rule(which=st.integers(0, 1))
    def catch_up(self, which: int) -> None:
        worker = self.workers[which]
        self.run(worker.engine.apply(self.entries(worker), self.reference.seq))
        self.run(self.checks.check_all(worker.engine, self.reference))

    @rule(which=st.integers(0, 1), step=st.integers(1, 6), part=st.integers(0, 4))
    def stop(self, which: int, step: int, part: int) -> None:
        worker = self.workers[which]
        worker.steps.left, worker.steps.part = step, part
        with suppress(Unavailable):
            self.run(worker.engine.apply(self.entries(worker), self.reference.seq))
        worker.steps.left = None

    @rule(step=st.integers(1, 6))
    def be_slow(self, step: int) -> None:
        worker = self.run(self._worker())
        until = worker.steps.until = asyncio.Event()
        worker.steps.left = step
        entries, upto = self.entries(worker), self.reference.seq

        async def begin() -> asyncio.Task[None]:
            task = asyncio.create_task(worker.engine.apply(entries, upto))
            while not task.done() and worker.steps.left is not None:
                await asyncio.wait([task], timeout=0.001)
            return task

        self.waiting.append((worker, until, self.run(begin())))

    @rule()
    def go_on(self) -> None:
        if self.waiting:
            self._go_on(0)

    def _go_on(self, which: int) -> None:
        worker, until, task = self.waiting.pop(which)

        async def end() -> None:
            until.set()
            await task
            await worker.client.close()

        self.run(end())

    def teardown(self) -> None:
        try:
            while self.waiting:
                self._go_on(-1)
            for which in range(2):
                self.catch_up(which)
            self.run(self._check_nothing_else())
        finally:
            for worker in [*self.workers, *(worker for worker, _, _ in self.waiting)]:
                self.run(worker.client.close())
            self.runner.close()

    async def _check_nothing_else(self) -> None:
        name = version_name(self.version[0].id, self.version[1].number)
        async with AsyncElasticsearch(self.server.url) as client:
            await client.indices.refresh(index=name)
            answer = await client.count(index=name, query={"exists": {"field": "doc"}})
            assert answer["count"] == len(self.reference.chunks())


async def test_workers_that_stop_or_are_late_bring_nothing_back(server: ElasticServer) -> None:
    # In a thread: the machine is no coroutine, and runs its engines in a loop of its own.
    await asyncio.to_thread(
        run_state_machine_as_test,
        cast(Any, lambda: Workers(server)),
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            phases=NO_SHRINKING,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


async def test_marks_go_when_nobody_can_be_so_late(
    server: ElasticServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = index_of(backend="elasticsearch")
    reference = Reference(version[1].spec)
    worker = Worker(server, version)
    name = version_name(version[0].id, 1)
    try:
        await worker.engine.begin()
        fill(reference, 6)
        for doc in reference.docs[:4]:
            reference.delete(doc)
        await worker.engine.apply(reference.written[:6], 6)
        await worker.engine.apply(reference.written[6:], reference.seq)
        marks = {"exists": {"field": "gone"}}
        await worker.engine.save()
        assert (await worker.client.count(index=name, query=marks))["count"] > 4
        monkeypatch.setattr(elastic_writes, "MARKS_S", -1.0)
        await worker.engine.save()
        await worker.client.indices.refresh(index=name)
        assert (await worker.client.count(index=name, query=marks))["count"] == 0
        await EngineChecks().check_all(worker.engine, reference)
        # And a document that was there before comes as any other.
        entry = reference.put("doc 0", ["cats"], [[1.0] * DIMENSIONS])
        await worker.engine.apply([entry], entry.seq)
        await EngineChecks().check_all(worker.engine, reference)
    finally:
        await worker.client.close()
