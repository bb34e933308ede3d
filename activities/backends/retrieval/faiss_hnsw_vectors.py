"""FAISS's graph of neighbours (HNSW): nothing can be taken out of it.

What is removed stays as a node that searches pass through and leave out, by a key that is none, until there
are too many of these: then the graph is built anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activities.backends.retrieval.faiss_part_vectors import (
    INDEX_FILE,
    NO_KEY,
    FaissPart,
    IndexFile,
    faiss,
    metric_of,
    moved,
)
from activities.backends.retrieval.vector_math import Measure, among
from activities.retrieval_ports import Keys, Vectors
from goatherd.contracts.retrieval import FaissOptions

_FEW_DEAD = 64


class HnswPart(FaissPart):
    """Quick for single queries; slow to build, and larger by its links."""

    kind = "hnsw"

    def __init__(
        self,
        measure: Measure,
        index: Any,
        keys: Keys,
        longest: float,
        mapped: bool,
        options: FaissOptions,
    ) -> None:
        super().__init__(measure, index, keys, longest, mapped)
        self._options = options
        self._graph = faiss.downcast_index(index.index).hnsw

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

    @classmethod
    def open(
        cls, measure: Measure, options: FaissOptions, folder: Path, longest: float, mapped: bool
    ) -> HnswPart:
        index = faiss.read_index(str(folder / INDEX_FILE), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
        made = cls._of(measure, options, index, longest, mapped)
        made._file = IndexFile(folder) if mapped else None
        return made

    _file: IndexFile | None = None

    @classmethod
    def _of(
        cls, measure: Measure, options: FaissOptions, index: Any, longest: float, mapped: bool
    ) -> HnswPart:
        every = faiss.vector_to_array(index.id_map)
        return cls(measure, index, np.sort(every[every >= 0]), longest, mapped, options)

    def owned(self) -> HnswPart:
        """What is mapped, in memory, without what was removed since."""
        assert self._file is not None
        made = self._of(self.measure, self._options, self._file.read(), self.longest, False)
        made.remove(made.keys[~among(made.keys, self.keys)])
        return made

    @property
    def crowded(self) -> bool:
        """With too many that are left out."""
        dead = self.held - self.size
        return not self.mapped and dead > max(_FEW_DEAD, self.size // 2)

    @property
    def memory_bytes(self) -> int:
        links = int(self._graph.neighbors.size()) * 4 + self.held * 12
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
