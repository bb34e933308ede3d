"""Vectors found by ScaNN: a tree of partitions, and codes of four bits for each two numbers.

ScaNN has the codes alone. It proposes; the vectors themselves, which are kept here once, decide. Until there
are enough to train with, and with a filter that leaves few, all are compared. Training happens in the call
that makes it necessary; meanwhile there are two copies of the vectors.

ScaNN trains in as many threads as OMP_NUM_THREADS says, by default on all cores, and searches in the thread
that calls.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from activities.backends.retrieval.files_vectors import synced
from activities.backends.retrieval.rows_vectors import Rows
from activities.backends.retrieval.search_vectors import exhaustive, search
from activities.backends.retrieval.threads_vectors import threads
from activities.backends.retrieval.vector_math import (
    Measure,
    among,
    checked_keys,
    checked_vectors,
    lasting,
)
from activities.retrieval_ports import Keys, VectorIndex, Vectors
from goatherd.contracts.retrieval import IndexSpec

_ENOUGH = 10_000
"""Fewer are compared with one by one as fast."""
_LEAST = 39
"""Vectors a partition."""
_GROWN = 4
"""Trained anew when there are so many times the vectors that it was trained for."""
_SAMPLE = 50_000
_ABOUT = "vectors.json"
_SEARCHER = "scann"


def open_vectors(spec: IndexSpec, folder: Path | None) -> VectorIndex:
    """Raises ValueError, OSError or RuntimeError if what is in the folder is not whole."""
    vectors = ScannVectors(spec)
    if folder is not None:
        vectors.load(folder)
    return vectors


class ScannVectors:
    """A `VectorIndex`. ScaNN's numbers are the places in `Rows`: both change in the same way."""

    def __init__(self, spec: IndexSpec) -> None:
        self._options = spec.scann
        self._measure = Measure(spec.metric, spec.dimensions)
        self._rows = Rows(spec.dimensions)
        self._scann: Any = None
        self._trained_for = 0
        self._leaves = 0

    # -- what is there

    @property
    def size(self) -> int:
        return self._rows.size

    @property
    def exact(self) -> bool:
        return self._scann is None

    @property
    def memory_bytes(self) -> int:
        codes = 0 if self._scann is None else self.size * (self._measure.dimensions // 4 + 32)
        return self._rows.memory_bytes + codes

    def vectors(self, keys: Keys) -> Vectors:
        """Raises KeyError: one is not there."""
        wanted = checked_keys(keys)
        if not among(wanted, self._rows.keys).all():
            raise KeyError("a key that is not there")
        return self._rows.take(wanted)

    # -- changing it

    def upsert(self, keys: Keys, vectors: Vectors) -> None:
        rows = checked_vectors(vectors, self._measure.dimensions)
        only, rows = lasting(checked_keys(keys), rows)
        if not len(only):
            return
        places = self._rows.put(only, rows)
        if self._scann is not None:
            self._scann.upsert(places, np.ascontiguousarray(rows), len(rows))
        self._evolve()

    def remove(self, keys: Keys) -> None:
        only = np.unique(checked_keys(keys))
        emptied = self._rows.drop(only[among(only, self._rows.keys)])
        if self._scann is not None and emptied:
            if self.size < self._enough // 2:
                self._scann = None
            else:
                self._scann.delete(emptied)

    @property
    def _enough(self) -> int:
        return _ENOUGH if self._options.leaves is None else _LEAST * self._options.leaves

    def _evolve(self) -> None:
        if self.size < self._enough:
            return
        if self._scann is None or self.size >= _GROWN * self._trained_for:
            self._train()

    def _train(self) -> None:
        from scann.scann_ops.py import scann_ops_pybind

        self._scann = None
        leaves = self._options.leaves or int(self.size**0.5)
        distance = "squared_l2" if self._measure.metric == "l2" else "dot_product"
        builder = (
            scann_ops_pybind.builder(self._rows.all(), 10, distance)
            # Not with SOAR, which finds as many in half of the partitions: ScaNN 1.4 corrupts its memory when
            # vectors of such a tree are replaced or removed.
            .tree(leaves, leaves, training_sample_size=_SAMPLE, min_partition_size=1)
            .score_ah(2, anisotropic_quantization_threshold=0.2)
            .set_n_training_threads(threads())
        )
        self._scann = builder.build().searcher
        self._trained_for, self._leaves = self.size, leaves

    # -- searching

    def search(self, queries: Vectors, k: int, allowed: Keys | None = None) -> list[tuple[Keys, Vectors]]:
        rows = checked_vectors(queries, self._measure.dimensions)
        only = None if allowed is None else checked_keys(allowed)
        if self._scann is None:
            keys = self.keys if only is None else only[among(only, self.keys)]
            found = exhaustive(self, self._measure, rows, min(k, len(keys)), keys)
        else:
            found = search(self, self._measure, rows, k, only)
        return [(keys, self._measure.scores(near)) for keys, near in found]

    @property
    def keys(self) -> Keys:
        return self._rows.keys

    @property
    def longest(self) -> float:
        return self._rows.longest

    def take(self, keys: Keys) -> Vectors:
        return self._rows.take(keys)

    def candidates(
        self, queries: Vectors, n: int, effort: int, allowed: Keys | None
    ) -> tuple[Keys, Vectors | None]:
        n = max(n, self._options.reorder) << effort
        leaves = (self._options.leaves_to_search or self._usual_leaves) << 2 * effort
        if allowed is not None:
            # ScaNN knows no filter: only some of what it finds count.
            n = n * 2 * self.size // len(allowed)
            leaves = leaves * self.size // len(allowed)
        n, leaves = min(n, self.size), min(leaves, self._leaves)
        places, far = self._scann.search_batched(queries, n, n, leaves, False, 0)
        return np.where(np.isnan(far), -1, self._rows.at(places)), None

    @property
    def _usual_leaves(self) -> int:
        """So many that 98 of 100 are found of real embeddings, which have neighbours in most partitions."""
        return max(8, int(0.95 * self._leaves**0.94))

    # -- keeping it

    def save(self, folder: Path) -> None:
        self._rows.save(folder)
        if self._scann is not None:
            (folder / _SEARCHER).mkdir()
            # Relative: the folder is moved.
            self._scann.serialize(str(folder / _SEARCHER), True)
        about = {
            "metric": self._measure.metric,
            "dimensions": self._measure.dimensions,
            "trained_for": self._trained_for,
            "leaves": self._leaves,
        }
        (folder / _ABOUT).write_text(json.dumps(about))
        synced(folder)

    def load(self, folder: Path) -> None:
        """Begins with what `save` wrote."""
        about = json.loads((folder / _ABOUT).read_text())
        if (about["metric"], about["dimensions"]) != (self._measure.metric, self._measure.dimensions):
            raise ValueError(f"{folder}: vectors of {about['dimensions']} dimensions, {about['metric']}")
        self._rows = Rows.open(folder, self._measure.dimensions)
        self._trained_for, self._leaves = about["trained_for"], about["leaves"]
        saved = folder.absolute() / _SEARCHER
        if saved.is_dir():
            from scann.scann_ops.py import scann_ops_pybind

            self._scann = scann_ops_pybind.load_searcher(str(saved)).searcher
            if self._scann.size() != self.size:
                raise ValueError(f"{folder}: {self._scann.size()} codes of {self.size} vectors")
