"""Anything that may happen to vectors, beside the reference.

An index that is not exact may miss some of the best; but what it gives is there, allowed, scored as it is
now, ordered, and as many as there are. With a filter that leaves few, and while it is small, it is exact too.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from activities.retrieval_ports import Keys, VectorIndex, Vectors
from goatherd.contracts.retrieval import IndexSpec
from tests.activities.retrieval.vector_cases import OpenVectors
from tests.activities.retrieval.vector_reference import VectorReference

DIMENSIONS = 3
KEYS = st.integers(0, 150)
NUMBERS = st.integers(-2, 2)


def _rows(spec: IndexSpec, numbers: list[list[int]]) -> Vectors:
    rows = np.array(numbers, dtype=np.float32).reshape(-1, DIMENSIONS)
    if spec.metric == "cosine":
        rows[~rows.any(axis=1), 0] = 1
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


VECTOR = st.lists(NUMBERS, min_size=DIMENSIONS, max_size=DIMENSIONS)


class VectorMachine(RuleBasedStateMachine):
    """Few different vectors, so that many are equally near, and few keys, so that they come again."""

    opener: OpenVectors
    spec: IndexSpec
    begins_with: int
    """As many as make the index train."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.saved = 0
        self.index: VectorIndex = self.opener(self.spec, None)
        self.reference = VectorReference(self.spec.metric)

    @initialize(begins=st.booleans(), seed=st.integers(0, 9))
    def begin(self, begins: bool, seed: int) -> None:
        if begins:
            rng = np.random.default_rng(seed)
            self._upsert(
                rng.permutation(151)[: self.begins_with],
                _rows(self.spec, rng.integers(-2, 3, (self.begins_with, DIMENSIONS)).tolist()),
            )

    def _upsert(self, keys: Keys, vectors: Vectors) -> None:
        self.index.upsert(keys, vectors)
        self.reference.upsert(keys, vectors)

    @rule(entries=st.lists(st.tuples(KEYS, VECTOR), max_size=12))
    def upsert(self, entries: list[tuple[int, list[int]]]) -> None:
        keys = np.array([key for key, _ in entries], dtype=np.int64)
        self._upsert(keys, _rows(self.spec, [numbers for _, numbers in entries]))

    @rule(keys=st.lists(KEYS, max_size=40))
    def remove(self, keys: list[int]) -> None:
        gone = np.array(keys, dtype=np.int64)
        self.index.remove(gone)
        self.reference.remove(gone)

    @rule()
    def remove_every_other(self) -> None:
        gone = np.array(sorted(self.reference.rows)[::2], dtype=np.int64)
        self.index.remove(gone)
        self.reference.remove(gone)

    @rule()
    def save_and_reopen(self) -> None:
        self.saved += 1
        folder, moved = self.folder / "new", self.folder / f"{self.saved}"
        folder.mkdir()
        self.index.save(folder)
        folder.rename(moved)
        self.index = self.opener(self.spec, moved)

    @rule()
    def save(self) -> None:
        self.saved += 1
        folder = self.folder / f"{self.saved}"
        folder.mkdir()
        self.index.save(folder)
        shutil.rmtree(folder)

    @rule(queries=st.lists(VECTOR, max_size=4), k=st.sampled_from([1, 3, 10, 200]))
    def search(self, queries: list[list[int]], k: int) -> None:
        self._check(_rows(self.spec, queries), k, None)

    @rule(queries=st.lists(VECTOR, max_size=3), k=st.sampled_from([1, 5, 200]), keys=st.sets(KEYS))
    def search_among(self, queries: list[list[int]], k: int, keys: set[int]) -> None:
        self._check(_rows(self.spec, queries), k, np.array(sorted(keys), dtype=np.int64))

    def _check(self, queries: Vectors, k: int, allowed: Keys | None) -> None:
        exact = self.index.exact or allowed is not None or self.index.size <= k
        answers = self.index.search(queries, k, allowed)
        assert len(answers) == len(queries)
        for query, (keys, scores) in zip(queries, answers, strict=True):
            best = self.reference.search(query, k, allowed)
            found = list(zip(keys.tolist(), scores.tolist(), strict=True))
            if exact:
                assert found == best
                continue
            assert len(found) == len(best)
            assert len(set(keys.tolist())) == len(keys)
            assert found == sorted(found, key=lambda hit: (-hit[1], hit[0]))
            assert all(self.reference.score(query, key) == score for key, score in found)

    @invariant()
    def has_what_was_put(self) -> None:
        assert self.index.size == len(self.reference.rows)
        keys = np.array(list(self.reference.rows), dtype=np.int64)
        rows = np.array(list(self.reference.rows.values()), dtype=np.float32).reshape(-1, DIMENSIONS)
        np.testing.assert_array_equal(self.index.vectors(keys), rows)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)
