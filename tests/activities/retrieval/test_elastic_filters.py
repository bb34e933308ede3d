"""Filters in Elasticsearch mean what they mean everywhere, whatever keys and values are made of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from activities.backends.retrieval.elastic_engine import open_elastic
from activities.backends.retrieval.elastic_filters import filter_query
from goatherd.contracts.filters import MOST_DEPTH, MOST_TEXT, flat_values, read_filter
from goatherd.contracts.model import Json
from goatherd.contracts.search import SearchAnswer, SearchQuery
from goatherd.errors import Invalid
from tests.activities.retrieval.elastic_server import ElasticServer, elastic_server
from tests.activities.retrieval.engine_cases import index_of
from tests.activities.retrieval.reference_engine import Reference, floats


@pytest.fixture(scope="module")
def server() -> Iterator[ElasticServer]:
    with elastic_server() as server:
        yield server


ODD = st.text(st.sampled_from('ab.:1nst\0\t\\"*? éß\ud7ff\ue000\uffff💡'), max_size=4)
NUMBERS = st.one_of(
    st.sampled_from([0, -0.0, 1, -1, 2**53, -(2**53), 5e-324, -5e-324, 1.5, 1e308, -1e308]),
    st.floats(allow_nan=False, allow_infinity=False),
)
VALUES: st.SearchStrategy[Any] = st.one_of(ODD, NUMBERS, st.booleans())
KEYS = st.one_of(st.sampled_from(["a", "b", "a.b", "1:a", "and", "key"]), ODD.filter(bool))
METADATA: st.SearchStrategy[Any] = st.dictionaries(
    KEYS,
    st.recursive(
        st.one_of(VALUES, st.none(), st.lists(st.one_of(VALUES, st.none()), max_size=3)),
        lambda inner: st.dictionaries(KEYS, inner, max_size=2),
        max_leaves=3,
    ),
    max_size=3,
)
HALVES = st.sampled_from(["\ud800", "a\udfff", "\ud7ff\udc00b"])


def _filters(metadata: list[Json]) -> st.SearchStrategy[Any]:
    """Mostly of keys and values that are there."""
    there = [pair for one in metadata for pair in flat_values(one)]
    names = [name for name, _ in there if name] + [name.partition(".")[0] for name, _ in there]
    keys = st.one_of(st.sampled_from([name for name in names if name] or ["a"]), KEYS, HALVES)
    found: list[Any] = [value for _, value in there if value is not None]
    texts = st.one_of(st.sampled_from([one for one in found if isinstance(one, str)] or [""]), ODD, HALVES)
    numbers = st.one_of(st.sampled_from([one for one in found if type(one) is float] or [0.0]), NUMBERS)
    bounds = st.sampled_from(["gt", "gte", "lt", "lte"])
    operators: st.SearchStrategy[Any] = st.one_of(
        st.fixed_dictionaries({"eq": st.one_of(texts, numbers, st.booleans())}),
        st.fixed_dictionaries({"in": st.lists(st.one_of(texts, numbers, st.booleans()), max_size=3)}),
        st.fixed_dictionaries({"exists": st.booleans()}),
        st.dictionaries(bounds, texts, min_size=1),
        st.dictionaries(bounds, numbers, min_size=1),
    )
    return st.recursive(
        st.builds(lambda key, operator: {"key": key, **operator}, keys, operators),
        lambda inner: st.one_of(
            st.fixed_dictionaries({"not": inner}),
            st.fixed_dictionaries({"and": st.lists(inner, max_size=3)}),
            st.fixed_dictionaries({"or": st.lists(inner, max_size=3)}),
        ),
        max_leaves=5,
    )


def _can_be_kept(metadata: Json) -> bool:
    try:
        flat_values(metadata)
    except Invalid:
        return False
    return True


def check(server: ElasticServer, metadata: list[Json], filters: list[Any]) -> None:
    async def ask() -> None:
        index, version = index_of(backend="elasticsearch", dimensions=1)
        reference = Reference(version.spec)
        for n, one in enumerate(metadata):
            reference.put(str(n), ["cats"], [[1.0]], one)
        engine = await open_elastic(server.url, None, index, version)
        try:
            await engine.apply(reference.written, reference.seq)
            queries = [SearchQuery(vector=floats([1.0]), k=1_000, filter=one) for one in filters]
            for query, answer in zip(queries, await engine.search(queries), strict=True):
                assert isinstance(answer, SearchAnswer), (query.filter, answer)
                found = {hit.doc for hit in answer.hits}
                wanted = {chunk.doc for chunk in reference.chunks(query.filter).values()}
                assert found == wanted, (query.filter, metadata)
        finally:
            await engine.close()

    with asyncio.Runner() as runner:
        runner.run(ask())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_they_find_what_meets_them(server: ElasticServer, data: st.DataObject) -> None:
    metadata = data.draw(st.lists(METADATA, min_size=1, max_size=5))
    assume(all(map(_can_be_kept, metadata)))
    filters = data.draw(st.lists(_filters(metadata), min_size=8, max_size=16))
    check(server, metadata, filters)


def test_longest_keys_and_texts_and_many_of_them_are_found(server: ElasticServer) -> None:
    key, text = "💡" * 3_000, "💡" * MOST_TEXT
    metadata: list[Json] = [
        {key: text},
        {f"{key}.x": 1},
        {f"k{n}": n for n in range(1_500)},
        {"." * 9_000: 1},
    ]
    filters: list[Json] = [
        {key: text},
        {key: {"gte": text}},
        {key: {"exists": True}},
        {f"{key}.x": {"gt": 0}},
        {"k1499": {"gte": 1499, "lt": 1500}},
        {"k1499": {"in": [*range(999), 1499]}},
        {"." * 8_999: {"exists": True}},
    ]
    check(server, metadata, filters)


def test_deepest_and_widest_filters_are_answered(server: ElasticServer) -> None:
    deep: Json = {"a": {"gt": 0}}
    for n in range(MOST_DEPTH - 1):
        deep = {"not": deep} if n % 2 else {"or": [deep, {"b": n}], "a": {"exists": True}}
    wide: Json = {"or": [{"a": {"gte": n, "lt": n + 0.5}, "b": {"exists": False}} for n in range(128)]}
    check(server, [{"a": 1}, {"b": 1}, {"a": 100.25}, {"a": 3, "b": 2}], [deep, wide, {"not": wide}])


@pytest.mark.parametrize("pattern", [("and", "or"), ("or", "not"), ("and", "not", "or"), ("not",)])
def test_no_filter_is_nested_deeper_than_servers_allow(pattern: tuple[str, ...]) -> None:
    given: Json = {"a": {"exists": True}, "b": {"exists": False}}
    for n in range(MOST_DEPTH - 1):
        operator = pattern[n % len(pattern)]
        given = (
            {"not": given} if operator == "not" else {operator: [given, {"c": n}], "d": n, "not": {"e": 1}}
        )
    assert _depth(filter_query(read_filter(given))) <= 24


def _depth(query: Any) -> int:
    """How many `bool` are in each other."""
    if isinstance(query, list):
        return max(map(_depth, query), default=0)
    if isinstance(query, dict):
        return max(((name == "bool") + _depth(inner) for name, inner in query.items()), default=0)
    return 0
