"""Vectors found by FAISS: exactly (`flat`), by inverted lists (`ivf`) or by a graph of neighbours (`hnsw`).

Training, and building a graph anew, happen in the call that makes them necessary, and take seconds for each
hundred thousand vectors; meanwhile there are two copies of these. At all other times there is one.

Memory-mapped, what was saved last is read from its file, which may be moved or unlinked but not changed, and
what came since is in memory, compared with one by one, until the next `save`. That reads and writes all of
it; a flat one by small pieces, the others in memory.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from activities.backends.resting import give_back
from activities.backends.retrieval.faiss_flat_vectors import FlatPart, MappedFlatPart, write_flat
from activities.backends.retrieval.faiss_hnsw_vectors import HnswPart
from activities.backends.retrieval.faiss_ivf_vectors import IvfPart, enough
from activities.backends.retrieval.faiss_part_vectors import FaissPart, moved, take_threads
from activities.backends.retrieval.files_vectors import synced
from activities.backends.retrieval.search_vectors import search
from activities.backends.retrieval.vector_math import (
    Measure,
    among,
    checked_keys,
    checked_vectors,
    lasting,
    longest_of,
    ranked,
)
from activities.retrieval_ports import Keys, VectorIndex, Vectors
from goatherd.contracts.retrieval import IndexSpec

AUTO_FLAT = 200_000
"""`auto` compares with all vectors, up to so many."""
_GROWN = 4
"""Lists are trained anew when there are so many times the vectors that they were trained for."""
_ABOUT = "vectors.json"


def open_vectors(spec: IndexSpec, folder: Path | None) -> VectorIndex:
    """Raises ValueError, OSError or RuntimeError if what is in the folder is not whole."""
    vectors = FaissVectors(spec)
    if folder is not None:
        vectors.load(folder)
    return vectors


class FaissVectors:
    """A `VectorIndex` of up to two parts: what is mapped, and what is in memory."""

    def __init__(self, spec: IndexSpec) -> None:
        self._options = spec.faiss
        self._measure = Measure(spec.metric, spec.dimensions)
        self._mapped: FaissPart | None = None
        self._held: FaissPart = FlatPart.empty(self._measure)
        self._trained_for = 0

    # -- what is there

    @property
    def size(self) -> int:
        return sum(part.size for part in self._parts)

    @property
    def exact(self) -> bool:
        return all(part.exact for part in self._parts)

    @property
    def memory_bytes(self) -> int:
        return sum(part.memory_bytes for part in self._parts)

    @property
    def _parts(self) -> list[FaissPart]:
        return [self._held] if self._mapped is None else [self._mapped, self._held]

    def vectors(self, keys: Keys) -> Vectors:
        """Raises KeyError: one is not there."""
        wanted = checked_keys(keys)
        rows = np.empty((len(wanted), self._measure.dimensions), np.float32)
        seen = 0
        for part in self._parts:
            mine = among(wanted, part.keys)
            rows[mine] = part.take(wanted[mine])
            seen += int(mine.sum())
        if seen != len(wanted):
            raise KeyError("a key that is not there")
        return rows

    # -- changing it

    def upsert(self, keys: Keys, vectors: Vectors) -> None:
        take_threads()
        rows = checked_vectors(vectors, self._measure.dimensions)
        only, rows = lasting(checked_keys(keys), rows)
        self._remove(only)
        if len(only):
            self._held.add(only, rows, longest_of(rows))
        self._evolve()

    def remove(self, keys: Keys) -> None:
        take_threads()
        self._remove(np.unique(checked_keys(keys)))
        self._evolve()

    def _remove(self, keys: Keys) -> None:
        for part in self._parts:
            part.remove(keys[among(keys, part.keys)])

    def _evolve(self) -> None:
        """What is in memory becomes of the kind that its size asks for. Beside what is mapped it is compared
        with one by one: `save` joins them."""
        if self._mapped is None:
            made = self._fitting([self._held])
            if made is not None:
                self._held = made
                give_back()

    def _fitting(self, sources: list[FaissPart]) -> FaissPart | None:
        """One part with all that the sources have, if it should be of another kind, or trained or built anew.
        None: they are good as they are."""
        size = sum(source.size for source in sources)
        alone = sources[0] if len(sources) == 1 else None
        kind = self._options.kind
        if kind == "hnsw" and size:
            if isinstance(alone, HnswPart) and not alone.crowded:
                return None
            return HnswPart.of(self._measure, self._options, sources)
        if (kind == "ivf" or (kind == "auto" and size > AUTO_FLAT)) and size >= enough(self._options):
            if isinstance(alone, IvfPart) and size < _GROWN * self._trained_for:
                return None
            self._trained_for = size
            return IvfPart.trained(self._measure, self._options, sources)
        return None

    # -- searching

    def search(self, queries: Vectors, k: int, allowed: Keys | None = None) -> list[tuple[Keys, Vectors]]:
        take_threads()
        rows = checked_vectors(queries, self._measure.dimensions)
        only = None if allowed is None else checked_keys(allowed)
        found = [search(part, self._measure, rows, k, only) for part in self._parts if part.size]
        answers = []
        for at in range(len(rows)):
            keys = np.concatenate([part[at][0] for part in found] or [np.empty(0, np.int64)])
            near = np.concatenate([part[at][1] for part in found] or [np.empty(0, np.float32)])
            keys, near = ranked(keys, near, k)
            answers.append((keys, self._measure.scores(near)))
        return answers

    # -- keeping it

    def save(self, folder: Path) -> None:
        take_threads()
        sources = self._parts
        if isinstance(self._mapped, IvfPart | HnswPart):
            whole = self._mapped.owned()
            moved(self._held, whole)
            sources = [whole]
        if self._options.memory_mapped:
            made = self._fitting(sources)
            sources = sources if made is None else [made]
        if len(sources) == 1:
            kind = sources[0].kind
            sources[0].write(folder)
        else:
            kind = FlatPart.kind
            write_flat(folder, sources)
        about = {
            "kind": kind,
            "metric": self._measure.metric,
            "dimensions": self._measure.dimensions,
            "size": self.size,
            "trained_for": self._trained_for,
            "longest": max(source.longest for source in sources),
        }
        (folder / _ABOUT).write_text(json.dumps(about))
        synced(folder)
        if self._options.memory_mapped:
            self.load(folder)

    def load(self, folder: Path) -> None:
        """Begins with what `save` wrote. Nothing that was there before remains."""
        about = json.loads((folder / _ABOUT).read_text())
        if (about["metric"], about["dimensions"]) != (self._measure.metric, self._measure.dimensions):
            raise ValueError(f"{folder}: vectors of {about['dimensions']} dimensions, {about['metric']}")
        mapped = self._options.memory_mapped and about["size"] > 0
        part: FaissPart
        if about["kind"] == FlatPart.kind:
            kept = MappedFlatPart if mapped else FlatPart.open
            part = kept(self._measure, folder)
        else:
            kinds = IvfPart if about["kind"] == IvfPart.kind else HnswPart
            part = kinds.open(self._measure, self._options, folder, about["longest"], mapped)
        if part.size != about["size"]:
            raise ValueError(f"{folder}: {part.size} vectors, not {about['size']}")
        self._trained_for = about["trained_for"]
        self._mapped = part if mapped else None
        self._held = FlatPart.empty(self._measure) if mapped else part
