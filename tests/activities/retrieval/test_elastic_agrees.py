"""The same corpus, the same searches: Elasticsearch, FAISS and the model give the same filtered answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from activities.backends.retrieval import elastic_search
from activities.backends.retrieval.elastic_engine import open_elastic
from activities.backends.retrieval.local_engine import open_engine
from activities.retrieval_ports import Engine
from goatherd.contracts.retrieval import chunk_key
from goatherd.contracts.search import SearchAnswer, SearchQuery
from goatherd.errors import GoatherdError
from tests.activities.retrieval.elastic_server import ElasticServer, elastic_server
from tests.activities.retrieval.engine_cases import FILTERS, METRICS, fill, index_of, some_vector
from tests.activities.retrieval.reference_engine import Reference

DOCUMENTS = 210


@pytest.fixture(scope="module")
def server() -> Iterator[ElasticServer]:
    with elastic_server() as server:
        yield server


@asynccontextmanager
async def _opened(
    server: ElasticServer, folder: Path, metric: str
) -> AsyncIterator[tuple[list[Engine], Reference]]:
    """Elasticsearch, then FAISS, after the same life of a corpus."""
    async with AsyncExitStack() as stack:
        engines: list[Engine] = []
        elastic = index_of(backend="elasticsearch", metric=metric)
        engines.append(await open_elastic(server.url, None, *elastic))
        engines.append(open_engine(folder, *index_of(backend="faiss", metric=metric)))
        for engine in engines:
            stack.push_async_callback(engine.close)
        reference = Reference(elastic[1].spec)
        fill(reference, DOCUMENTS)
        half = len(reference.written)
        for doc in reference.docs[::5]:
            reference.delete(doc)
        fill(reference, DOCUMENTS // 7, seed=8)
        for engine in engines:
            await engine.apply(reference.written[:half], half)
            await engine.apply(reference.written[half:], reference.seq)
        yield engines, reference


def _keys(answer: SearchAnswer | GoatherdError) -> list[int]:
    assert isinstance(answer, SearchAnswer), answer
    return [chunk_key(hit.seq, hit.chunk) for hit in answer.hits]


@pytest.mark.parametrize("compared", [1_000, 50], ids=["compared", "searched"])
@pytest.mark.parametrize("metric", METRICS)
async def test_filtered_answers_are_the_same(
    server: ElasticServer, tmp_path: Path, metric: str, compared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elastic_search, "COMPARED", compared)
    async with _opened(server, tmp_path, metric) as (engines, reference):
        for seed, k in enumerate((5, 100)):
            queries = [SearchQuery(vector=some_vector(seed), k=k, filter=given) for given in FILTERS]
            elastic, faiss = [await engine.search(queries) for engine in engines]
            for query, here, there in zip(queries, elastic, faiss, strict=True):
                wanted = list(reference.dense(query))[:k]
                assert _keys(here) == _keys(there) == wanted, query.filter
                assert isinstance(here, SearchAnswer)
                scores = reference.dense(query)
                assert np.allclose(
                    [hit.score for hit in here.hits], [scores[key] for key in wanted], atol=1e-5
                )


async def test_words_are_found_in_the_same_documents(server: ElasticServer, tmp_path: Path) -> None:
    async with _opened(server, tmp_path, "cosine") as (engines, reference):
        queries = [
            SearchQuery(mode="lexical", text="quartz connections", k=1_000, filter=given) for given in FILTERS
        ]
        elastic, faiss = [await engine.search(queries) for engine in engines]
        for query, here, there in zip(queries, elastic, faiss, strict=True):
            having = reference.having(query)
            if len(having) <= query.k:
                assert set(_keys(here)) == set(_keys(there)) == having, query.filter
