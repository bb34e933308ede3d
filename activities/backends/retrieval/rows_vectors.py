"""Vectors in memory by place, as ScaNN numbers them: new ones at the end, and the last one fills a gap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from activities.backends.retrieval.files_vectors import read_keys, read_rows, write_rows
from activities.backends.retrieval.vector_math import among, longest_of
from activities.retrieval_ports import Keys, Vectors

Places = NDArray[np.int64]

_BLOCK = 4_096


class Rows:
    """One matrix, which grows where it is: the C library moves its pages, not their content."""

    def __init__(self, dimensions: int) -> None:
        self.size = 0
        self.longest = 0.0
        self.keys: Keys = np.empty(0, np.int64)
        """Sorted."""
        self._places: Places = np.empty(0, np.int64)
        """Of `keys`, in their order."""
        self._by_place: Keys = np.empty(0, np.int64)
        self._rows: Vectors = np.empty((0, dimensions), np.float32)

    @property
    def memory_bytes(self) -> int:
        return self._rows.nbytes + self._by_place.nbytes + 16 * self.size

    def all(self) -> Vectors:
        """By place. Not to be kept: the memory moves."""
        return self._rows[: self.size]

    def take(self, keys: Keys) -> Vectors:
        """A copy of the vectors of keys that are there."""
        rows: Vectors = self._rows[self.places(keys)]
        return rows

    def places(self, keys: Keys) -> Places:
        """Of keys that are there."""
        found: Places = self._places[np.searchsorted(self.keys, keys)]
        return found

    def at(self, places: Places) -> Keys:
        found: Keys = self._by_place[places]
        return found

    def put(self, keys: Keys, rows: Vectors) -> list[int | None]:
        """Keys, sorted. Gives the place of each that is replaced, and None for each that is new."""
        there = among(keys, self.keys)
        replaced = self.places(keys[there])
        self._rows[replaced] = rows[there]
        fresh = keys[~there]
        start, end = self.size, self.size + len(fresh)
        self._grow(end)
        self._rows[start:end] = rows[~there]
        self._by_place[start:end] = fresh
        spots = np.searchsorted(self.keys, fresh)
        self.keys = np.insert(self.keys, spots, fresh)
        self._places = np.insert(self._places, spots, np.arange(start, end))
        self.size = end
        self.longest = max(self.longest, longest_of(rows))
        olds = iter(replaced.tolist())
        return [next(olds) if known else None for known in there.tolist()]

    def drop(self, keys: Keys) -> list[int]:
        """Keys, sorted, that are there. Gives the places that were emptied, one after the other: into each
        went what was then the last."""
        emptied = []
        for spot in np.searchsorted(self.keys, keys).tolist():
            place, last = int(self._places[spot]), self.size - 1
            emptied.append(place)
            if place != last:
                mover = self._by_place[last]
                self._rows[place] = self._rows[last]
                self._by_place[place] = mover
                self._places[np.searchsorted(self.keys, mover)] = place
            self.size = last
        left = ~among(self.keys, keys)
        self.keys, self._places = self.keys[left], self._places[left]
        if self.size < len(self._rows) // 2:
            self._resize(self.size)
        return emptied

    def _grow(self, size: int) -> None:
        if size > len(self._rows):
            self._resize(size + size // 16)

    def _resize(self, size: int) -> None:
        # In place. Nobody else has a view of these.
        self._rows.resize((size, self._rows.shape[1]), refcheck=False)
        self._by_place.resize(size, refcheck=False)

    def save(self, folder: Path) -> None:
        with write_rows(folder, self._by_place[: self.size]) as file:
            for start in range(0, self.size, _BLOCK):
                block = self._rows[start : min(start + _BLOCK, self.size)]
                file.write(block.astype("<f4", copy=False).tobytes())

    @classmethod
    def open(cls, folder: Path, dimensions: int) -> Rows:
        """Raises ValueError: the files do not fit each other."""
        made = cls(dimensions)
        made._by_place = read_keys(folder)
        made._rows = np.empty((len(made._by_place), dimensions), np.float32)
        read_rows(folder, made._rows)
        made.size = len(made._by_place)
        made._places = np.argsort(made._by_place)
        made.keys = made._by_place[made._places]
        made.longest = longest_of(made._rows)
        return made
