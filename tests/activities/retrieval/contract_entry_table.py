"""What every `EntryTable` does. The fixture `table` says which ones are asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activities.retrieval_ports import EntryTable
from goatherd.contracts.filters import flat_values, meets, read_filter
from goatherd.contracts.model import Json
from goatherd.contracts.retrieval import Entry, chunk_key
from goatherd.errors import Invalid


def entry(
    doc: str, seq: int, chunks: int = 1, metadata: Json | None = None, *, deleted: bool = False
) -> Entry:
    texts = [f"{doc} {n}" for n in range(chunks)]
    return Entry(doc=doc, rev=seq, seq=seq, texts=texts, metadata=metadata or {}, deleted=deleted)


def selected(table: EntryTable, condition: object) -> list[int]:
    return [int(key) for key in table.select(read_filter(condition))]


def keys_of(*entries: Entry) -> list[int]:
    return [chunk_key(one.seq, n) for one in entries for n in range(one.chunks)]


EVERYTHING: Json = {}

NAMES = st.sampled_from(["a", "b", "a.b", "and", "or", "not", "key", "eq", "in", "exists", "é", "a/b", "A"])
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [0, 1, -1, 0.5, -0.0, 2**53, 1e300, True, False, "", "true", "null", "1", "a", "\x00", "\ud800"]
    ),
    st.integers(-3, 3),
    st.text(max_size=3),
)
METADATA: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(
        st.one_of(NAMES, st.text(max_size=2)),
        st.one_of(SCALARS, st.none(), st.lists(st.one_of(SCALARS, st.none()), max_size=3)),
        max_size=4,
    ),
    lambda inner: st.dictionaries(NAMES, st.one_of(SCALARS, inner), max_size=3),
    max_leaves=6,
)
NUMBERS, TEXTS = st.integers(-3, 3), st.one_of(st.sampled_from(["", "a", "1", "\uffff"]), st.text(max_size=2))
BOUNDS = st.sampled_from(["gt", "gte", "lt", "lte"])
OPERATORS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    SCALARS.map(lambda value: {"eq": value}),
    st.lists(SCALARS, max_size=4).map(lambda values: {"in": values}),
    st.booleans().map(lambda there: {"exists": there}),
    st.dictionaries(BOUNDS, NUMBERS, min_size=1, max_size=3),
    st.dictionaries(BOUNDS, TEXTS, min_size=1, max_size=3),
)
CONDITIONS: st.SearchStrategy[dict[str, Any]] = st.builds(
    lambda key, parts: {"key": key, **parts}, NAMES, OPERATORS
)
FILTERS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: {"and": parts}),
        st.lists(inner, max_size=3).map(lambda parts: {"or": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=6,
)


class EntryTableContract:
    def test_an_empty_table_has_nothing(self, table: EntryTable) -> None:
        assert table.counts == (0, 0)
        assert table.keys(["a"]).tolist() == []
        assert table.documents([0, 1, -1, chunk_key(7, 0)]) == [None] * 4
        assert selected(table, EVERYTHING) == selected(table, {"not": {"a": 1}}) == []

    def test_chunks_are_known_by_their_keys(self, table: EntryTable) -> None:
        goat, sheep, blank = entry("goat", 1, 2), entry("sheep", 2, 3), entry("blank", 3, 0)
        table.put([goat, sheep, blank])
        assert table.counts == (3, 5)
        assert table.keys(["goat"]).tolist() == keys_of(goat)
        assert table.keys(["sheep", "goat", "cow", "sheep", "blank"]).tolist() == keys_of(goat, sheep)
        assert table.documents(keys_of(sheep, goat)) == ["sheep"] * 3 + ["goat"] * 2
        assert table.documents([chunk_key(1, 2), chunk_key(3, 0), chunk_key(4, 0)]) == [None] * 3
        assert selected(table, EVERYTHING) == keys_of(goat, sheep)

    def test_a_newer_entry_takes_the_place_of_its_document(self, table: EntryTable) -> None:
        table.put([entry("goat", 1, 2, {"lang": "en"}), entry("sheep", 2)])
        newer = entry("goat", 3, 1, {"lang": "de"})
        table.put([newer])
        assert table.counts == (2, 2)
        assert table.keys(["goat"]).tolist() == selected(table, {"lang": "de"}) == keys_of(newer)
        assert selected(table, {"lang": "en"}) == []
        assert table.documents([chunk_key(1, 0), chunk_key(3, 0)]) == [None, "goat"]

    def test_a_deleted_one_leaves_nothing(self, table: EntryTable) -> None:
        table.put([entry("goat", 1, 2, {"lang": "en"}), entry("sheep", 2)])
        table.put([entry("goat", 3, 0, deleted=True), entry("cow", 4, 0, deleted=True)])
        assert table.counts == (1, 1)
        assert table.keys(["goat", "cow"]).tolist() == selected(table, {"lang": {"exists": True}}) == []
        assert table.documents([chunk_key(1, 0)]) == [None]

    def test_of_several_of_one_document_the_last_one_counts(self, table: EntryTable) -> None:
        table.put(
            [entry("goat", 1), entry("sheep", 2), entry("goat", 3, 2), entry("sheep", 4, 0, deleted=True)]
        )
        assert (table.counts, table.keys(["goat", "sheep"]).tolist()) == (
            (1, 2),
            keys_of(entry("goat", 3, 2)),
        )
        table.put([entry("sheep", 5, 0, deleted=True), entry("sheep", 6)])
        assert table.keys(["sheep"]).tolist() == keys_of(entry("sheep", 6))

    def test_entries_that_it_has_already_change_nothing(self, table: EntryTable) -> None:
        older, newer = entry("goat", 1, 1, {"a": 1}), entry("goat", 2, 2, {"a": 2})
        for part in ([older, newer], [older], [newer], [older, newer], []):
            table.put(part)
            assert table.counts == (1, 2)
            assert selected(table, {"a": {"exists": True}}) == selected(table, {"a": 2}) == keys_of(newer)

    def test_keys_are_sorted_whatever_the_order_they_came_in(self, table: EntryTable) -> None:
        every = [entry(f"doc {n}", n * 7 % 31 + 1, 2, {"n": n}) for n in range(31)]
        for part in (every[10:20], every[:10], every[20:]):
            table.put(part)
        in_order = keys_of(*sorted(every, key=lambda one: one.seq))
        assert selected(table, EVERYTHING) == selected(table, {"n": {"gte": 0}}) == in_order
        assert table.keys([one.doc for one in every]).tolist() == in_order

    def test_entries_are_put_together_or_not_at_all(self, table: EntryTable) -> None:
        table.put([entry("goat", 1, 1, {"a": 1})])
        with pytest.raises(Invalid):
            table.put([entry("goat", 2, 1, {"a": 2}), entry("sheep", 3, 1, {"a": {"b": [[1]]}})])
        assert selected(table, {"a": 1}) == selected(table, EVERYTHING) == [chunk_key(1, 0)]

    def test_true_and_1_are_told_apart_again_and_again(self, table: EntryTable) -> None:
        table.put(
            [entry("a", 1, 1, {"x": True}), entry("b", 2, 1, {"x": 1}), entry("c", 3, 1, {"x": "true"})]
        )
        for _ in range(2):
            assert selected(table, {"x": 1}) == [chunk_key(2, 0)]
            assert selected(table, {"x": True}) == [chunk_key(1, 0)]
            assert selected(table, {"x": "true"}) == [chunk_key(3, 0)]

    def test_many_documents_and_values_at_once(self, table: EntryTable) -> None:
        every = [entry(f"doc {n}", n + 1, 1, {"n": n}) for n in range(25_000)]
        table.put(every)
        assert table.keys([one.doc for one in every]).tolist() == keys_of(*every)
        assert table.documents(keys_of(*every)) == [one.doc for one in every]
        assert selected(table, {"n": {"in": list(range(1_000))}}) == keys_of(*every[:1_000])
        table.put(
            [one.model_copy(update={"seq": one.seq + 50_000, "deleted": one.seq % 2 == 0}) for one in every]
        )
        assert table.counts == (12_500, 12_500)

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(st.tuples(st.integers(0, 5), METADATA, st.integers(0, 3)), max_size=8),
        st.lists(FILTERS, min_size=1, max_size=4),
    )
    def test_filters_select_what_meets_them(
        self,
        table: EntryTable,
        documents: Sequence[tuple[int, dict[str, Any], int]],
        conditions: Sequence[dict[str, Any]],
    ) -> None:
        table.put([entry(f"doc {n}", self._next(), 0, deleted=True) for n in range(6)])
        there: dict[str, Entry] = {}
        for n, metadata, chunks in documents:
            one = entry(f"doc {n}", self._next(), chunks, metadata)
            there.pop(one.doc, None)
            there[one.doc] = one
            table.put([one])
            for condition in conditions:
                wanted = read_filter(condition)
                met = [one for one in there.values() if meets(wanted, flat_values(one.metadata))]
                assert table.select(wanted).tolist() == keys_of(*met)
                assert table.select(wanted).dtype == np.int64

    _seq = 0

    @classmethod
    def _next(cls) -> int:
        EntryTableContract._seq += 1
        return EntryTableContract._seq
