"""What every `VectorIndex` does. The fixture `kind` says which ones are asked."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from activities.backends.retrieval import files_vectors
from activities.retrieval_ports import VectorIndex, Vectors
from goatherd.contracts.retrieval import Metric
from goatherd.errors import Invalid
from tests.activities.retrieval.vector_cases import METRICS, Kind, clustered, keys_of, recall
from tests.activities.retrieval.vector_machine import DIMENSIONS, VectorMachine
from tests.activities.retrieval.vector_reference import VectorReference

NONE = np.empty(0, np.int64)


def same(one: VectorIndex, other: VectorIndex, queries: Vectors, k: int = 10) -> bool:
    pairs = zip(one.search(queries, k), other.search(queries, k), strict=True)
    return all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in pairs)


class VectorContract:
    @pytest.mark.parametrize("metric", METRICS)
    def test_anything_that_may_happen_to_it(
        self, kind: Kind, metric: Metric, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Hundreds of files: waiting for the disk is another test's matter.
        monkeypatch.setattr(files_vectors, "sync", lambda path: None)

        class Machine(VectorMachine):
            opener = staticmethod(kind.opener)
            spec = kind.spec(DIMENSIONS, metric)
            begins_with = max(20, kind.trains_at)

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=20,
                stateful_step_count=20,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )

    def test_an_empty_one_finds_nothing(self, kind: Kind, tmp_path: Path) -> None:
        index = kind.open(4)
        assert (index.size, index.vectors(NONE).shape) == (0, (0, 4))
        queries = clustered(2, 4)
        index.remove(keys_of(3))
        index.upsert(NONE, np.empty((0, 4), np.float32))
        index.save(tmp_path)
        for one in (index, kind.open(4, folder=tmp_path)):
            for allowed in (None, keys_of(3), NONE):
                assert [len(keys) for keys, _ in one.search(queries, 3, allowed)] == [0, 0]
            assert one.search(np.empty((0, 4), np.float32), 3) == []

    def test_emptied_it_is_filled_again(self, kind: Kind) -> None:
        rows, index = clustered(kind.trains_at + 50, 8), kind.open(8)
        keys = keys_of(len(rows))
        for _ in range(2):
            index.upsert(keys, rows)
            assert index.search(rows[:1], 1)[0][0].tolist() == [0]
            index.remove(keys)
            assert index.size == 0
            assert len(index.search(rows[:1], 1)[0][0]) == 0

    @pytest.mark.parametrize(
        "wrong",
        [
            [[1.0, 0.0, float("nan")]],
            [[1.0, 0.0, float("inf")]],
            [[1.0, -float("inf"), float("inf")]],
            [[1e30, 0.0, 0.0]],
            [[1.0, 0.0]],
            [[1.0, 0.0, 0.0, 0.0]],
            [1.0, 0.0, 0.0],
        ],
    )
    def test_what_is_no_vector_is_refused_and_changes_nothing(self, kind: Kind, wrong: list[float]) -> None:
        index = kind.open(3, "ip")
        index.upsert(keys_of(1), np.array([[1, 0, 0]], np.float32))
        bad = np.array(wrong, np.float32)
        with pytest.raises(Invalid):
            index.upsert(keys_of(1), bad)
        with pytest.raises(Invalid):
            index.search(bad, 1)
        assert index.vectors(keys_of(1)).tolist() == [[1, 0, 0]]

    def test_keys_are_as_many_as_vectors_and_not_negative(self, kind: Kind) -> None:
        index = kind.open(3)
        with pytest.raises(Invalid):
            index.upsert(keys_of(2), np.array([[1, 0, 0]], np.float32))
        with pytest.raises(Invalid):
            index.upsert(np.array([-1]), np.array([[1, 0, 0]], np.float32))
        assert index.size == 0

    def test_of_a_key_that_is_not_there_there_is_no_vector(self, kind: Kind) -> None:
        index = kind.open(4)
        index.upsert(keys_of(3), clustered(3, 4))
        index.remove(keys_of(1))
        with pytest.raises(KeyError):
            index.vectors(keys_of(2))

    def test_the_greatest_keys_are_keys_too(self, kind: Kind, tmp_path: Path) -> None:
        rows = clustered(3, 4)
        keys = np.array([2**63 - 1, 0, 2**62], np.int64)
        index = kind.open(4)
        index.upsert(keys, rows)
        index.save(tmp_path)
        for one in (index, kind.open(4, folder=tmp_path)):
            assert [found[0] for found, _ in one.search(rows, 1)] == keys.tolist()

    @pytest.mark.parametrize("metric", METRICS)
    def test_scores_are_as_the_port_says(self, kind: Kind, metric: Metric) -> None:
        rows = clustered(kind.trains_at + 100, 16)
        keys, queries = keys_of(len(rows)), clustered(5, 16, seed=9)
        index, reference = kind.open(16, metric), VectorReference(metric)
        index.upsert(keys, rows)
        reference.upsert(keys, rows)
        for query, (found, scores) in zip(queries, index.search(queries, 5), strict=True):
            assert scores.tolist() == pytest.approx([reference.score(query, key) for key in found.tolist()])
            assert np.all(scores[1:] <= scores[:-1])

    def test_one_query_is_answered_alone_as_in_a_batch(self, kind: Kind) -> None:
        rows = clustered(kind.trains_at + 1_000, 48)
        index = kind.open(48)
        index.upsert(keys_of(len(rows)), rows)
        queries = clustered(64, 48, seed=5)
        together = index.search(queries, 10)
        for query, (keys, scores) in zip(queries, together, strict=True):
            alone = index.search(query[None], 10)[0]
            assert alone[0].tolist() == keys.tolist()
            assert alone[1].tolist() == scores.tolist()

    def test_saved_moved_and_reopened_it_answers_as_before(self, kind: Kind, tmp_path: Path) -> None:
        rows = clustered(kind.trains_at + 600, 24)
        keys, queries = keys_of(len(rows)), clustered(40, 24, seed=5)
        index = kind.open(24)
        index.upsert(keys, rows)
        index.remove(keys[::5])
        (tmp_path / "new").mkdir()
        index.save(tmp_path / "new")
        moved = (tmp_path / "new").rename(tmp_path / "kept")
        again = kind.open(24, folder=moved)
        assert (again.size, again.exact) == (index.size, index.exact)
        assert same(index, again, queries)
        # What is open does not need the folder any more, and can be saved to another.
        shutil.rmtree(moved)
        for one in (index, again):
            one.upsert(keys[:1], rows[:1])
            one.remove(keys[1:3])
        assert same(index, again, queries)
        (tmp_path / "next").mkdir()
        again.save(tmp_path / "next")
        assert same(again, kind.open(24, folder=tmp_path / "next"), queries)

    def test_all_that_is_saved_is_synced(
        self, kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paths: list[Path] = []
        monkeypatch.setattr(files_vectors, "sync", paths.append)
        rows = clustered(kind.trains_at + 100, 8)
        index = kind.open(8)
        index.upsert(keys_of(len(rows)), rows)
        index.save(tmp_path)
        assert sorted(paths) == sorted([tmp_path, *tmp_path.rglob("*")])

    def test_what_is_not_whole_is_not_opened(self, kind: Kind, tmp_path: Path) -> None:
        rows = clustered(kind.trains_at + 100, 8)
        index = kind.open(8)
        index.upsert(keys_of(len(rows)), rows)
        index.save(tmp_path)
        for path in sorted(path for path in tmp_path.iterdir() if path.is_file()):
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])
            with pytest.raises((ValueError, OSError, RuntimeError)):
                kind.open(8, folder=tmp_path)
            path.write_bytes(content)
        with pytest.raises(ValueError, match="dimensions"):
            kind.open(9, folder=tmp_path)
        assert kind.open(8, folder=tmp_path).size == len(rows)

    def test_it_finds_what_is_near_while_it_grows_and_is_thinned(self, kind: Kind) -> None:
        rows, queries = clustered(6_000, 32, clusters=200), clustered(100, 32, clusters=200, seed=5)
        keys, index = keys_of(len(rows)), kind.open(32)
        least = 1.0 if kind.exact else kind.recalls
        index.upsert(keys[:4_000], rows[:4_000])
        assert recall(index, rows[:4_000], keys, queries) >= least
        index.upsert(keys[4_000:], rows[4_000:])
        assert recall(index, rows, keys, queries) >= least
        gone = np.arange(len(rows)) % 3 == 0
        index.remove(keys[gone])
        assert recall(index, rows[~gone], keys[~gone], queries) >= least

    def test_k_are_found_if_there_are_k_allowed(self, kind: Kind) -> None:
        rows, queries = clustered(3_000, 16), clustered(8, 16, seed=5)
        keys, index = keys_of(len(rows)), kind.open(16)
        index.upsert(keys, rows)
        for allowed in (keys[::300], keys[::2], keys[:1], np.append(keys[:4], keys_of(5, start=9_000))):
            there = allowed[np.isin(allowed, keys)]
            assert not any(set(found) - set(there) for found, _ in index.search(queries, 7, allowed))
            assert {len(found) for found, _ in index.search(queries, 7, allowed)} == {min(7, len(there))}
