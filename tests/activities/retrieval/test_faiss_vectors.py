"""FAISS: every kind of its indexes by the contract, and what only it can get wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from activities.backends.retrieval import faiss_vectors, search_vectors
from activities.backends.retrieval.faiss_ivf_vectors import IvfPart
from activities.backends.retrieval.faiss_part_vectors import faiss
from activities.backends.retrieval.faiss_vectors import open_vectors
from goatherd.contracts.retrieval import Metric
from tests.activities.retrieval.contract_vectors import VectorContract
from tests.activities.retrieval.vector_cases import METRICS, Kind, clustered, keys_of, recall, unit

FLAT = Kind("flat", open_vectors, True)
IVF = Kind("ivf", open_vectors, False, {"faiss": {"kind": "ivf", "nlist": 3, "nprobe": 2}}, 117, recalls=0.7)
"""So small that it is trained at once; two of three lists lose something."""
IVF_DEFAULT = Kind("ivf-default", open_vectors, False, {"faiss": {"kind": "ivf"}}, 10_000)
HNSW = Kind("hnsw", open_vectors, False, {"faiss": {"kind": "hnsw"}})


def mapped(kind: Kind) -> Kind:
    options = {"faiss": {**kind.options.get("faiss", {}), "memory_mapped": True}}
    return Kind(f"{kind.name}-mapped", open_vectors, kind.exact, options, kind.trains_at, kind.recalls)


KINDS = [FLAT, IVF, HNSW, mapped(FLAT), mapped(IVF), mapped(HNSW)]


class TestFaissVectors(VectorContract):
    @pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
    def kind(self, request: pytest.FixtureRequest) -> Kind:
        made: Kind = request.param
        return made


@pytest.mark.parametrize("kind", [IVF, HNSW, mapped(IVF), mapped(HNSW)], ids=lambda kind: kind.name)
class TestAFilterThatLeavesMany:
    """The engine is asked with a selector, as it is where there are tens of thousands."""

    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(search_vectors, "FEW", 5)

    @pytest.mark.parametrize("every", [2, 10, 200])
    def test_no_hit_is_lost(self, kind: Kind, every: int, tmp_path: Path) -> None:
        rows, queries = clustered(3_000, 16), clustered(20, 16, seed=5)
        keys, index = keys_of(len(rows)), kind.open(16)
        index.upsert(keys, rows)
        index.save(tmp_path)
        index.remove(keys[: len(keys) // 5])
        allowed = keys[::every]
        there = allowed[allowed >= keys[len(keys) // 5]]
        best = np.argsort(-(queries @ index.vectors(there).T), axis=1)[:, :10]
        found = [mine.tolist() for mine, _ in index.search(queries, 10, allowed)]
        assert all(len(mine) == min(10, len(there)) and set(mine) <= set(there.tolist()) for mine in found)
        hits = sum(len(set(there[near].tolist()) & set(mine)) for near, mine in zip(best, found, strict=True))
        assert hits >= kind.recalls * sum(map(len, found))


@pytest.mark.parametrize("kind", [FLAT, mapped(FLAT)], ids=lambda kind: kind.name)
class TestExactness:
    @pytest.mark.parametrize("metric", METRICS)
    def test_of_thousands_that_are_equal_the_smallest_keys_are_found(
        self, kind: Kind, metric: Metric, tmp_path: Path
    ) -> None:
        rows = np.repeat(clustered(3, 20), 3_000, axis=0)
        keys = np.random.default_rng(3).permutation(keys_of(len(rows)))
        index = kind.open(20, metric)
        index.upsert(keys, rows)
        index.save(tmp_path)
        for k in (1, 10, 700):
            for at, (found, scores) in enumerate(index.search(rows[::3_000], k)):
                assert found.tolist() == np.sort(keys[at * 3_000 : (at + 1) * 3_000])[:k].tolist()
                assert len(set(scores.tolist())) == 1

    @pytest.mark.parametrize("batch", [1, 40])
    def test_small_distances_far_from_the_origin_are_told_apart(self, kind: Kind, batch: int) -> None:
        rng = np.random.default_rng(0)
        rows = (1_000 + 0.001 * rng.standard_normal((2_000, 64))).astype(np.float32)
        queries = (1_000 + 0.001 * rng.standard_normal((batch, 64))).astype(np.float32)
        index = kind.open(64, "l2")
        index.upsert(keys_of(len(rows)), rows)
        for query, (found, _) in zip(queries, index.search(queries, 5), strict=True):
            far = ((rows.astype(np.float64) - query) ** 2).sum(axis=1)
            assert found.tolist() == (np.argsort(far.astype(np.float32), kind="stable")[:5] << 12).tolist()

    def test_what_was_equal_to_the_last_that_counts_is_not_left_to_chance(self, kind: Kind) -> None:
        rows = unit(np.random.default_rng(0).integers(-1, 2, (5_000, 6)).astype(np.float32) + 0.5)
        index = kind.open(6)
        index.upsert(keys_of(len(rows)), rows)
        for batch in (1, 7, 300):
            found = index.search(rows[:batch], 20)[0][0]
            near = (rows.astype(np.float64) @ rows[0].astype(np.float64)).astype(np.float32)
            assert found.tolist() == (np.lexsort((np.arange(len(rows)), -near))[:20] << 12).tolist()


def test_lists_are_made_when_there_are_enough_vectors_and_again_when_it_has_grown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    train = IvfPart.trained.__func__  # type: ignore[attr-defined]

    def trained(cls: type, measure: object, options: object, sources: list[object]) -> object:
        made = train(cls, measure, options, sources)
        sizes.append(made.size)
        return made

    monkeypatch.setattr(IvfPart, "trained", classmethod(trained))
    rows, index = clustered(2_000, 8), IVF.open(8)
    exact = []
    for start in range(0, 2_000, 100):
        index.upsert(keys_of(100, start), rows[start : start + 100])
        exact.append(index.exact)
    assert exact == [True] + [False] * 19
    assert sizes == [200, 800]


def test_auto_is_exact_until_it_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_vectors, "AUTO_FLAT", 11_000)
    rows, index = clustered(12_000, 16), FLAT.open(16)
    exact = []
    for part in (slice(0, 11_000), slice(11_000, 12_000)):
        index.upsert(keys_of(12_000)[part], rows[part])
        exact.append(index.exact)
    assert exact == [True, False]
    assert recall(index, rows, keys_of(12_000), clustered(50, 16, seed=5)) >= 0.98


def test_default_lists_find_what_is_near() -> None:
    rows, queries = clustered(12_000, 32, clusters=500), clustered(100, 32, clusters=500, seed=5)
    index = IVF_DEFAULT.open(32)
    index.upsert(keys_of(len(rows)), rows)
    assert not index.exact
    assert recall(index, rows, keys_of(len(rows)), queries) >= 0.98


def test_a_graph_is_built_anew_when_too_much_of_it_is_left_out() -> None:
    rows, index = clustered(1_500, 16), HNSW.open(16)
    full = index.memory_bytes
    index.upsert(keys_of(1_500), rows)
    full = index.memory_bytes
    index.remove(keys_of(400))
    assert index.memory_bytes == full
    index.remove(keys_of(1_000))
    assert index.memory_bytes < full / 2
    assert recall(index, rows[1_000:], keys_of(500, 1_000), clustered(50, 16, seed=5)) == 1.0


@pytest.mark.parametrize("kind", [FLAT, IVF, HNSW], ids=lambda kind: kind.name)
def test_mapped_vectors_take_no_memory_until_they_are_changed(kind: Kind, tmp_path: Path) -> None:
    rows = clustered(2_000, 256)
    plain, index = kind.open(256), mapped(kind).open(256)
    for one in (plain, index):
        one.upsert(keys_of(2_000), rows)
    assert index.memory_bytes == plain.memory_bytes >= rows.nbytes
    index.save(tmp_path)
    again = mapped(kind).open(256, folder=tmp_path)
    assert max(index.memory_bytes, again.memory_bytes) < rows.nbytes / 10
    again.upsert(keys_of(500), rows[:500])
    assert rows.nbytes / 4 < again.memory_bytes < rows.nbytes / 2


@pytest.mark.parametrize(("said", "threads"), [("1", 1), ("2", 2)])
def test_as_many_threads_compute_as_is_said_whoever_calls(
    said: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    index = FLAT.open(4)
    index.upsert(keys_of(3), clustered(3, 4))

    def search() -> int:
        index.search(clustered(1, 4), 1)
        return int(faiss.omp_get_max_threads())

    for _ in range(2):
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(search).result() == threads
