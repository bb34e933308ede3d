"""FAISS's graph of neighbours (HNSW): nothing can be taken out of it.

What is removed stays as a node that searches pass through and leave out, by a key that is none, until there
are too many of these: then the graph is built anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activities.backends.retrieval.faiss_part_vectors import (
    NO_KEY,
    FaissPart,
    GuessingPart,
    faiss,
    metric_of,
    moved,
)
from activities.backends.retrieval.vector_math import Measure
from activities.retrieval_ports import Keys, Vectors
from goatherd.contracts.retrieval import FaissOptions

_FEW_DEAD = 64


class HnswPart(GuessingPart):
    """Quick for single queries; slow to build, and larger by its links."""

    kind = "hnsw"

    map_flag = faiss.IO_FLAG_MMAP_IFC

    @classmethod
    def of(cls, measure: Measure, options: FaissOptions, sources: Sequence[FaissPart]) -> HnswPart:
        """Of all that the sources have."""
        graph = faiss.IndexHNSWFlat(measure.dimensions, options.m, metric_of(measure))
        graph.hnsw.efConstruction = options.ef_construction
        index = faiss.IndexIDMap2(graph)
        made = cls(measure, index, np.empty(0, np.int64), 0.0, False, options)
        for source in sources:
            moved(source, made)
        return made

    @staticmethod
    def keys_of(index: Any) -> Keys:
        every = faiss.vector_to_array(index.id_map)
        return np.sort(every[every >= 0])

    @property
    def crowded(self) -> bool:
        """With too many that are left out."""
        dead = self.held - self.size
        return not self.mapped and dead > max(_FEW_DEAD, self.size // 2)

    @property
    def memory_bytes(self) -> int:
        graph = faiss.downcast_index(self.index.index).hnsw
        links = int(graph.neighbors.size()) * 4 + self.held * 12
        return super().memory_bytes + (0 if self.mapped else links)

    def _remove(self, keys: Keys) -> None:
        every: NDArray[np.int64] = faiss.rev_swig_ptr(self.index.id_map.data(), self.held)
        every[np.isin(every, keys)] = NO_KEY

    def candidates(
        self, queries: Vectors, n: int, effort: int, allowed: Keys | None
    ) -> tuple[Keys, Vectors | None]:
        selector: Any = None
        if allowed is not None:
            selector = faiss.IDSelectorBatch(allowed)
        elif self.held > self.size and not self.mapped:
            selector = faiss.IDSelectorRange(0, np.iinfo(np.int64).max)
        ef = max(self._options.ef_search, n) << 2 * effort
        if allowed is not None:
            # Of what it visits only some count.
            ef = min(self.size, ef * self.size // len(allowed))
        parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=ef)
        _, keys = self.index.search(queries, n, params=parameters)
        return keys, None
