"""ScaNN by the contract, and what only it can get wrong."""

from __future__ import annotations

import numpy as np
import pytest

from activities.backends.retrieval import search_vectors
from activities.backends.retrieval.scann_vectors import open_vectors
from tests.activities.retrieval.contract_vectors import VectorContract
from tests.activities.retrieval.vector_cases import Kind, clustered, keys_of, recall

pytest.importorskip("scann")

SCANN = Kind("scann", open_vectors, False, {"scann": {"leaves": 3}}, trains_at=117)
DEFAULT = Kind("default", open_vectors, False, trains_at=10_000)


class TestScannVectors(VectorContract):
    @pytest.fixture
    def kind(self) -> Kind:
        return SCANN


def test_it_compares_with_all_until_there_are_enough_to_train_with() -> None:
    rows, index = clustered(12_000, 32, clusters=500), DEFAULT.open(32)
    exact = []
    index.upsert(keys_of(9_999), rows[:9_999])
    exact.append(index.exact)
    index.upsert(keys_of(2_001, 9_999), rows[9_999:])
    exact.append(index.exact)
    assert recall(index, rows, keys_of(12_000), clustered(100, 32, clusters=500, seed=5)) >= 0.98
    index.remove(keys_of(9_000))
    exact.append(index.exact)
    assert exact == [True, False, True]
    assert recall(index, rows[9_000:], keys_of(3_000, 9_000), clustered(50, 32, seed=5)) == 1.0


@pytest.mark.parametrize("every", [2, 10, 200])
def test_with_a_filter_that_leaves_many_no_hit_is_lost(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_vectors, "FEW", 5)
    rows, queries = clustered(3_000, 16), clustered(20, 16, seed=5)
    keys, index = keys_of(len(rows)), SCANN.open(16)
    index.upsert(keys, rows)
    index.remove(keys[:600])
    allowed = keys[::every]
    there = allowed[allowed >= keys[600]]
    best = np.argsort(-(queries @ index.vectors(there).T), axis=1)[:, :10]
    found = [mine.tolist() for mine, _ in index.search(queries, 10, allowed)]
    assert all(len(mine) == 10 and set(mine) <= set(there.tolist()) for mine in found)
    hits = sum(len(set(there[near].tolist()) & set(mine)) for near, mine in zip(best, found, strict=True))
    assert hits >= 0.98 * sum(map(len, found))


def test_vectors_are_there_once() -> None:
    rows, index = clustered(3_000, 256), SCANN.open(256)
    index.upsert(keys_of(3_000), rows)
    assert rows.nbytes < index.memory_bytes < 1.25 * rows.nbytes
