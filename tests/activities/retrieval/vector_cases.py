"""Vectors to test with, and the kinds of indexes that have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from activities.retrieval_ports import Keys, VectorIndex, Vectors
from goatherd.contracts.retrieval import IndexSpec, Metric

OpenVectors = Callable[[IndexSpec, Path | None], VectorIndex]
METRICS: tuple[Metric, ...] = ("cosine", "ip", "l2")


@dataclass(frozen=True)
class Kind:
    """`exact`: at any size. `trains_at`: from so many vectors on it is what its name says. `recalls`: at
    least, of the best ten."""

    name: str
    opener: OpenVectors
    exact: bool
    options: dict[str, Any] = field(default_factory=dict)
    trains_at: int = 1
    recalls: float = 0.98

    def spec(self, dimensions: int, metric: Metric = "cosine", **changed: Any) -> IndexSpec:
        return IndexSpec.model_validate(
            {"dimensions": dimensions, "metric": metric, **self.options, **changed}
        )

    def open(self, dimensions: int, metric: Metric = "cosine", folder: Path | None = None) -> VectorIndex:
        return self.opener(self.spec(dimensions, metric), folder)


def unit(rows: Vectors) -> Vectors:
    made: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return made


def clustered(many: int, dimensions: int, *, clusters: int = 40, seed: int = 0) -> Vectors:
    """Of length 1, around some centres: as embeddings of texts about a few subjects are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1_000 + dimensions).standard_normal((clusters, dimensions))
    rows = centres[rng.integers(0, clusters, many)] + 0.6 * rng.standard_normal((many, dimensions))
    return unit(rows.astype(np.float32))


def keys_of(many: int, start: int = 0) -> Keys:
    """As chunks of documents have them."""
    return np.arange(start, start + many, dtype=np.int64) << 12


def recall(index: VectorIndex, rows: Vectors, keys: Keys, queries: Vectors, k: int = 10) -> float:
    """How many of the best `k` by the inner product are found. `keys` are sorted. Of equally near ones any
    counts."""
    near = queries.astype(np.float64) @ rows.astype(np.float64).T
    last = np.partition(near, -k, axis=1)[:, -k]
    hits = 0
    for mine, bar, (found, _) in zip(near, last, index.search(queries, k), strict=True):
        places = np.searchsorted(keys, np.unique(found))
        assert np.array_equal(keys[places], np.unique(found))
        hits += int((mine[places] >= bar - 1e-7).sum())
    return hits / (k * len(queries))
