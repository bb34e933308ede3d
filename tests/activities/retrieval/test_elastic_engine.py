"""The engine in Elasticsearch does what every engine does, and minds what its server does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest
from elasticsearch import AsyncElasticsearch

from activities.backends.retrieval import elastic_search
from activities.backends.retrieval.elastic_engine import (
    ElasticEngine,
    open_elastic,
    remove_elastic,
    remove_gone,
)
from activities.backends.retrieval.elastic_schema import version_name
from activities.retrieval_ports import Engine
from goatherd.contracts.model import Json
from goatherd.contracts.retrieval import Index, SearchQuery, Version
from goatherd.errors import ModelBroken, Unavailable
from tests.activities.retrieval.contract_engine import EngineContract
from tests.activities.retrieval.contract_engine_dense import DenseContract
from tests.activities.retrieval.elastic_server import NO_SHRINKING, ElasticServer, elastic_server
from tests.activities.retrieval.engine_cases import fill, index_of, some_vector
from tests.activities.retrieval.engine_checks import EngineChecks, Make
from tests.activities.retrieval.reference_engine import Reference


@pytest.fixture(scope="module")
def server() -> Iterator[ElasticServer]:
    with elastic_server() as server:
        yield server


@pytest.fixture
def make(server: ElasticServer) -> Make:
    async def make_one(index: Index, version: Version) -> Engine:
        return await open_elastic(server.url, None, index, version)

    return make_one


class TestElasticEngine(EngineContract):
    wish: ClassVar[Json] = {"backend": "elasticsearch"}
    machine_phases: ClassVar = NO_SHRINKING


class TestItsSearchOfMany(DenseContract):
    """What has too many vectors to compare with each is searched for by the server's own ways."""

    wish: ClassVar[Json] = {"backend": "elasticsearch"}

    @pytest.fixture(autouse=True)
    def _many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(elastic_search, "COMPARED", 20)

    async def test_it_says_what_may_have_been_missed(self, make: Make) -> None:
        async with self.filled(make) as (engine, _):
            many = SearchQuery(vector=some_vector())
            few = SearchQuery(vector=some_vector(), filter={"author": {"exists": True}, "lang": "de"})
            words = SearchQuery(mode="lexical", text="cats")
            answers = [await self.ask(engine, query) for query in (many, few, words)]
            assert [answer.exact for answer in answers] == [False, True, True]


class TestItsServer(EngineChecks):
    wish: ClassVar[Json] = {"backend": "elasticsearch"}

    async def test_what_one_worker_took_in_another_has(self, make: Make) -> None:
        index, version = index_of(**self.wish)
        reference = Reference(version.spec)
        first, second = await make(index, version), await make(index, version)
        try:
            fill(reference, 10)
            await first.apply(reference.written, reference.seq)
            assert second.applied == 0
            await second.search([SearchQuery(vector=some_vector())])
            assert second.applied == reference.seq
            await self.check_all(second, reference)
        finally:
            await first.close()
            await second.close()

    async def test_index_that_was_lost_is_filled_again(self, make: Make, server: ElasticServer) -> None:
        index, version = index_of(**self.wish)
        reference = Reference(version.spec)
        fill(reference, 10)
        engine, other = await make(index, version), await make(index, version)
        try:
            for one in (engine, other):
                await one.apply(reference.written, reference.seq)
            async with AsyncElasticsearch(server.url) as client:
                await client.indices.delete(index=version_name(index.id, version.number))
            (error,) = await engine.search([SearchQuery(vector=some_vector())])
            assert isinstance(error, Unavailable)
            assert engine.applied == 0
            # Whoever was about to bring what comes next learns that it would not be all.
            entry = reference.put("late", ["cats"], [[1.0] * 8])
            for one in (engine, other):
                with pytest.raises(Unavailable):
                    await one.apply([entry], entry.seq)
            for one in (engine, other):
                await one.apply(
                    [entry for entry in reference.written if entry.seq > one.applied], reference.seq
                )
                await self.check_all(one, reference)
        finally:
            await engine.close()
            await other.close()

    async def test_other_that_fills_a_lost_index_is_no_complete_one(
        self, make: Make, server: ElasticServer
    ) -> None:
        index, version = index_of(**self.wish)
        reference = Reference(version.spec)
        fill(reference, 10)
        engine = await make(index, version)
        await engine.apply(reference.written, reference.seq)
        await remove_elastic(server.url, None, index.id, version.number)
        other = await make(index, version)
        try:
            await other.apply(reference.written[:5], 5)
            (error,) = await engine.search([SearchQuery(vector=some_vector())])
            assert isinstance(error, Unavailable)
            assert engine.applied == 0
        finally:
            await engine.close()
            await other.close()

    async def test_version_that_is_no_more_leaves_nothing(self, make: Make, server: ElasticServer) -> None:
        async with self.filled(make):
            index, version = index_of(**self.wish)
            engine = await make(index, version)
            await engine.close()
            for _ in range(2):
                await remove_elastic(server.url, None, index.id, version.number)
            async with AsyncElasticsearch(server.url) as client:
                assert not await client.indices.exists(index=version_name(index.id, version.number))

    async def test_versions_that_are_no_more_go_and_others_stay(
        self, make: Make, server: ElasticServer
    ) -> None:
        index, first = index_of(**self.wish)
        other, _ = index_of(**self.wish)
        versions = [first, first.model_copy(update={"number": 2}), first.model_copy(update={"number": 12})]
        for of, version in [*((index, one) for one in versions), (other, first)]:
            await (await make(of, version)).close()
        await remove_gone(server.url, None, index.id, {2})
        async with AsyncElasticsearch(server.url) as client:
            there = [
                bool(await client.indices.exists(index=version_name(of.id, number)))
                for of, number in ((index, 1), (index, 2), (index, 12), (other, 1))
            ]
        assert there == [False, True, False, True]
        await remove_gone(server.url, None, index.id, set())
        await remove_gone(server.url, None, index.id, set())

    async def test_server_that_is_away_is_told_without_its_address(self) -> None:
        with elastic_server() as server:
            index, version = index_of(**self.wish)
            async with _opened(server, index, version) as engine:
                reference = Reference(version.spec)
                fill(reference, 10)
                await engine.apply(reference.written, reference.seq)
                server.kill()
                (error,) = await engine.search([SearchQuery(vector=some_vector())])
                assert isinstance(error, Unavailable)
                entry = reference.put("late", ["cats"], [[1.0] * 8])
                with pytest.raises(Unavailable) as raised:
                    await engine.apply([entry], entry.seq)
                for message in (error.message, raised.value.message):
                    assert "GOATHERD_ELASTICSEARCH" in message
                    assert "127.0.0.1" not in message
                with pytest.raises(Unavailable):
                    await open_elastic(server.url, None, index, version)
                assert engine.applied == reference.seq - 1
                server.start()
                # It may have lost what it had not written to its disk yet: then all comes again.
                while engine.applied < reference.seq:
                    behind = [entry for entry in reference.written if entry.seq > engine.applied]
                    try:
                        await engine.apply(behind, reference.seq)
                    except Unavailable:
                        assert engine.applied < reference.seq
                await self.check_all(engine, reference)

    async def test_missing_address_is_told(self) -> None:
        index, version = index_of(**self.wish)
        for address in (None, "", "elasticsearch:9200", "http://u:hunter2@host"):
            with pytest.raises(ModelBroken) as raised:
                await open_elastic(address, None, index, version)
            assert "GOATHERD_ELASTICSEARCH" in raised.value.message
            assert "hunter2" not in raised.value.message


@asynccontextmanager
async def _opened(server: ElasticServer, index: Index, version: Version) -> AsyncIterator[ElasticEngine]:
    engine = await open_elastic(server.url, None, index, version)
    try:
        yield engine
    finally:
        await engine.close()
