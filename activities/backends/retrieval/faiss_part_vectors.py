"""What all of FAISS's indexes have in common here: vectors by keys, of which some may be gone.

FAISS computes without the GIL, in OpenMP's threads: how many is said of each thread that calls it.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any, Self

import faiss as library
import numpy as np

from activities.backends.retrieval.threads_vectors import threads
from activities.backends.retrieval.vector_math import Measure, among
from activities.retrieval_ports import Keys, Vectors
from goatherd.contracts.retrieval import FaissOptions

faiss: Any = library
"""Its stubs know only a part of it."""

faiss.cvar.distance_compute_blas_threshold = 1_536
"""Of this process: from so many numbers in a batch of queries on, FAISS multiplies matrices. Its own 128,000
has 32 queries of 384 dimensions take five times as long; a query alone is faster without."""

NO_KEY = -1
BLOCK = 4_096
INDEX_FILE = "index.faiss"


def metric_of(measure: Measure) -> int:
    return int(faiss.METRIC_L2 if measure.metric == "l2" else faiss.METRIC_INNER_PRODUCT)


def take_threads() -> None:
    """Before FAISS computes: its caller may be a thread that never called it."""
    faiss.omp_set_num_threads(threads())


class FaissPart:
    """One FAISS index. It knows its keys sorted; a mapped one is never written to: FAISS would end the
    process. What is removed from it is only left out."""

    exact = False
    kind = ""
    key_bytes = 56
    """Of each vector: here, in FAISS's list of keys, and in its table of their places."""
    spare = 0.0
    """What is held beside the vectors, of their bytes, for those that may come."""

    def __init__(self, measure: Measure, index: Any, keys: Keys, longest: float, mapped: bool) -> None:
        self.measure = measure
        self.index = index
        self.keys = keys
        self.longest = longest
        self.mapped = mapped

    @property
    def size(self) -> int:
        return len(self.keys)

    @property
    def held(self) -> int:
        """Vectors in the index, with those that are only left out."""
        return int(self.index.ntotal)

    @property
    def memory_bytes(self) -> int:
        vectors = 0 if self.mapped else self.held * self.measure.dimensions * 4
        return int(vectors * (1 + self.spare)) + self.held * self.key_bytes

    def take(self, keys: Keys) -> Vectors:
        rows = np.empty((len(keys), self.measure.dimensions), np.float32)
        if len(keys):
            self.index.reconstruct_batch(keys, rows)
        return rows

    def add(self, keys: Keys, rows: Vectors, longest: float) -> None:
        """Keys, sorted, that are not there."""
        self.index.add_with_ids(rows, keys)
        self.keys = (
            keys if not len(self.keys) else np.insert(self.keys, np.searchsorted(self.keys, keys), keys)
        )
        self.longest = max(self.longest, longest)

    def remove(self, keys: Keys) -> None:
        """Keys, sorted, that are there."""
        if not len(keys):
            return
        self.keys = self.keys[~among(self.keys, keys)]
        if not self.mapped:
            self._remove(keys)

    def _remove(self, keys: Keys) -> None:
        raise NotImplementedError

    def candidates(
        self, queries: Vectors, n: int, effort: int, allowed: Keys | None
    ) -> tuple[Keys, Vectors | None]:
        raise NotImplementedError

    def write(self, folder: Path) -> None:
        faiss.write_index(self.index, str(folder / INDEX_FILE))


class GuessingPart(FaissPart):
    """One that looks at some vectors only, and whose snapshot is FAISS's own file."""

    map_flag = 0
    """What FAISS maps the file by."""

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
        self._file: IndexFile | None = None

    @classmethod
    def open(
        cls, measure: Measure, options: FaissOptions, folder: Path, longest: float, mapped: bool
    ) -> Self:
        index = faiss.read_index(str(folder / INDEX_FILE), cls.map_flag if mapped else 0)
        made = cls(measure, index, cls.keys_of(index), longest, mapped, options)
        made._file = IndexFile(folder) if mapped else None
        return made

    @staticmethod
    def keys_of(index: Any) -> Keys:
        """All that the index has, sorted."""
        raise NotImplementedError

    def owned(self) -> Self:
        """What is mapped, in memory, without what was removed since."""
        assert self._file is not None
        index = self._file.read()
        made = type(self)(self.measure, index, self.keys_of(index), self.longest, False, self._options)
        made.remove(made.keys[~among(made.keys, self.keys)])
        return made


def moved(source: FaissPart, target: FaissPart) -> None:
    """Adds all that the source has, by blocks."""
    for start in range(0, source.size, BLOCK):
        keys = source.keys[start : start + BLOCK]
        target.add(keys, source.take(keys), source.longest)


class IndexFile:
    """A file of FAISS's that is mapped, to be read again as a whole: also if it was moved or unlinked."""

    def __init__(self, folder: Path) -> None:
        with open(folder / INDEX_FILE, "rb") as file:
            self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def read(self) -> Any:
        """The index, in memory."""
        self._content.seek(0)
        return faiss.read_index(faiss.PyCallbackIOReader(self._content.read))
