"""FAISS's flat index with ids of its own (IndexIDMap2): exact, and ids do not shift when others are removed.

A snapshot is the bare numbers in the order of their keys, so that it is written, and mapped, without ever
being in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from activities.backends.retrieval.faiss_part_vectors import BLOCK, NO_KEY, FaissPart, faiss, metric_of
from activities.backends.retrieval.files_vectors import mapped_rows, read_keys, read_rows, write_rows
from activities.backends.retrieval.vector_math import Measure, among, longest_of
from activities.retrieval_ports import Keys, Vectors


class FlatPart(FaissPart):
    """Compares with all: as fast as the memory is read."""

    exact = True
    kind = "flat"

    @classmethod
    def empty(cls, measure: Measure) -> FlatPart:
        index = faiss.IndexIDMap2(faiss.IndexFlat(measure.dimensions, metric_of(measure)))
        return cls(measure, index, np.empty(0, np.int64), 0.0, False)

    @classmethod
    def open(cls, measure: Measure, folder: Path) -> FlatPart:
        """Raises ValueError: the files do not fit each other."""
        keys = read_keys(folder)
        if not len(keys):
            return cls.empty(measure)
        flat = faiss.IndexFlat(measure.dimensions, metric_of(measure))
        index = faiss.IndexIDMap2(flat)
        # Read to where they stay: no second copy, and no room for twice as many.
        flat.codes.resize(len(keys) * measure.dimensions * 4)
        rows = faiss.rev_swig_ptr(flat.get_xb(), len(keys) * measure.dimensions)
        rows = rows.reshape(len(keys), measure.dimensions)
        read_rows(folder, rows)
        flat.ntotal = len(keys)
        faiss.copy_array_to_vector(keys, index.id_map)
        index.ntotal = len(keys)
        index.construct_rev_map()
        return cls(measure, index, keys, longest_of(rows), False)

    def _remove(self, keys: Keys) -> None:
        self.index.remove_ids(keys)

    def candidates(
        self, queries: Vectors, n: int, effort: int, allowed: Keys | None
    ) -> tuple[Keys, Vectors | None]:
        near, keys = self.index.search(queries, n)
        return keys, near if self.measure.metric != "l2" else -near

    def write(self, folder: Path) -> None:
        write_flat(folder, [self])


class MappedFlatPart(FaissPart):
    """The numbers of a snapshot, compared with by what `IndexFlat` compares with."""

    exact = True
    kind = "flat"
    key_bytes = 16

    def __init__(self, measure: Measure, folder: Path) -> None:
        keys = read_keys(folder)
        super().__init__(measure, None, keys, 0.0, True)
        self._places = keys
        self._rows: Any = mapped_rows(folder, len(keys), measure.dimensions)
        self.longest = longest_of(self._rows)

    @property
    def held(self) -> int:
        return len(self._places)

    def take(self, keys: Keys) -> Vectors:
        rows: Vectors = self._rows[np.searchsorted(self._places, keys)]
        return rows

    def candidates(
        self, queries: Vectors, n: int, effort: int, allowed: Keys | None
    ) -> tuple[Keys, Vectors | None]:
        near, places = faiss.knn(queries, self._rows, min(n, self.held), metric=metric_of(self.measure))
        keys = np.where(places < 0, NO_KEY, self._places[places])
        return keys, near if self.measure.metric != "l2" else -near


def write_flat(folder: Path, parts: Sequence[FaissPart]) -> None:
    """What a flat index of all these parts is opened from."""
    keys = np.sort(np.concatenate([part.keys for part in parts]))
    with write_rows(folder, keys) as rows_file:
        for start in range(0, len(keys), BLOCK):
            block = keys[start : start + BLOCK]
            rows = np.empty((len(block), parts[0].measure.dimensions), np.float32)
            for part in parts:
                mine = among(block, part.keys)
                rows[mine] = part.take(block[mine])
            rows_file.write(rows.astype("<f4", copy=False).tobytes())
