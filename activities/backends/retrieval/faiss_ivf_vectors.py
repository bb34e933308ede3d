"""FAISS's inverted lists: a vector is in the list of the nearest of some trained centres, and a search looks
at a few of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from activities.backends.retrieval.faiss_part_vectors import (
    BLOCK,
    FaissPart,
    GuessingPart,
    faiss,
    metric_of,
    moved,
)
from activities.backends.retrieval.vector_math import Measure
from activities.retrieval_ports import Keys, Vectors
from goatherd.contracts.retrieval import FaissOptions

_LEAST = 39
"""Vectors a centre that FAISS wants to train with."""
_MOST = 50
_SMALLEST = 10_000
"""Of the default: fewer are compared with one by one as fast."""


def enough(options: FaissOptions) -> int:
    """From so many vectors on there are lists."""
    return _SMALLEST if options.nlist is None else _LEAST * options.nlist


class IvfPart(GuessingPart):
    """Keys are found in the lists by a table of FAISS's, so that one can be removed without a search."""

    kind = "ivf"

    map_flag = faiss.IO_FLAG_MMAP

    @classmethod
    def trained(cls, measure: Measure, options: FaissOptions, sources: Sequence[FaissPart]) -> IvfPart:
        """With lists for what the sources have, and all of that in them."""
        size = sum(source.size for source in sources)
        nlist = options.nlist or max(1, min(int(4 * size**0.5), size // _LEAST))
        flat = faiss.IndexFlat(measure.dimensions, metric_of(measure))
        index = faiss.IndexIVFFlat(flat, measure.dimensions, nlist, metric_of(measure))
        index.cp.spherical = measure.metric != "l2"
        index.cp.max_points_per_centroid = _MOST
        index.train(_sample(sources, nlist * _MOST))
        _make_room(index, sources)
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        made = cls(measure, index, np.empty(0, np.int64), 0.0, False, options)
        for source in sources:
            moved(source, made)
        made.spare = 0.0
        return made

    @staticmethod
    def keys_of(index: Any) -> Keys:
        lists = index.invlists
        keys = [
            faiss.rev_swig_ptr(lists.get_ids(at), lists.list_size(at)).copy()
            for at in range(index.nlist)
            if lists.list_size(at)
        ]
        return np.sort(np.concatenate(keys)) if keys else np.empty(0, np.int64)

    def add(self, keys: Keys, rows: Vectors, longest: float) -> None:
        super().add(keys, rows, longest)
        # Each list grows by doubling. Trained or opened, it has room for what it has.
        self.spare = 0.9

    def _remove(self, keys: Keys) -> None:
        self.index.remove_ids(faiss.IDSelectorArray(len(keys), faiss.swig_ptr(keys)))

    def candidates(
        self, queries: Vectors, n: int, effort: int, allowed: Keys | None
    ) -> tuple[Keys, Vectors | None]:
        nlist = int(self.index.nlist)
        nprobe = self._options.nprobe or _usual_lists(nlist)
        if allowed is not None:
            # Those that are nearest of a few lie in more distant lists.
            nprobe = nprobe * self.size // len(allowed)
        parameters = faiss.SearchParametersIVF(
            sel=None if allowed is None else faiss.IDSelectorBatch(allowed),
            nprobe=min(nlist, nprobe << 2 * effort),
        )
        _, keys = self.index.search(queries, n, params=parameters)
        return keys, None


def _make_room(index: Any, sources: Sequence[FaissPart]) -> None:
    """In each list for what will be in it: growing, it would take twice as much."""
    counts = np.zeros(index.nlist, np.int64)
    for source in sources:
        for start in range(0, source.size, BLOCK):
            rows = source.take(source.keys[start : start + BLOCK])
            counts += np.bincount(index.quantizer.assign(rows, 1).ravel(), minlength=index.nlist)
    for at, count in enumerate(counts.tolist()):
        index.invlists.resize(at, count)
        index.invlists.resize(at, 0)


def _usual_lists(nlist: int) -> int:
    """So many that 98 of 100 are found of real embeddings (MiniLM, 1,000 to 30,000 sentences), which have
    neighbours in half of the lists. What has clear clusters does with a tenth of it."""
    return max(8, int(1.2 * nlist**0.88))


def _sample(sources: Sequence[FaissPart], most: int) -> Vectors:
    """Evenly of all: those that came together are often alike."""
    size = sum(source.size for source in sources)
    step = max(1, size // most)
    return np.concatenate([source.take(source.keys[::step].copy()) for source in sources if source.size])
