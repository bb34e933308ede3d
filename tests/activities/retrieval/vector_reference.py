"""A `VectorIndex` as the port describes it, in a dictionary and sums without rounding."""

from __future__ import annotations

import math

import numpy as np

from activities.retrieval_ports import Keys, Vectors
from goatherd.contracts.retrieval import Metric


class VectorReference:
    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.rows: dict[int, Vectors] = {}

    def upsert(self, keys: Keys, vectors: Vectors) -> None:
        self.rows.update(zip(keys.tolist(), vectors, strict=True))

    def remove(self, keys: Keys) -> None:
        for key in keys.tolist():
            self.rows.pop(key, None)

    def score(self, query: Vectors, key: int) -> float:
        pairs = list(zip(query.tolist(), self.rows[key].tolist(), strict=True))
        if self.metric == "l2":
            square = np.float32(math.fsum((a - b) ** 2 for a, b in pairs))
            return float(np.float32(1) / (np.float32(1) + square))
        return float(np.float32(math.fsum(a * b for a, b in pairs)))

    def search(self, query: Vectors, k: int, allowed: Keys | None = None) -> list[tuple[int, float]]:
        keys = [key for key in (self.rows if allowed is None else allowed.tolist()) if key in self.rows]
        return sorted(((key, self.score(query, key)) for key in keys), key=lambda hit: (-hit[1], hit[0]))[:k]
