"""How near vectors are, computed so that the same two give the same number every time.

Engines score in float32, in an order of their own: the same vector scores a little differently alone, in a
batch, or at another place. So they only propose. What is given out is computed anew, in float64, rounded once
to float32; those that are then equal stand in the order of their keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from activities.retrieval_ports import Keys, Vectors
from goatherd.contracts.retrieval import Metric
from goatherd.errors import Invalid

Ranked = tuple[Keys, Vectors]
"""Keys and how near they are, best first."""

_LONGEST = 1e18
"""A vector's length squared, and the inner product of two, must be numbers of float32."""
_UNIT = 2.0**-24


def checked_vectors(vectors: Vectors, dimensions: int) -> Vectors:
    """As rows of float32.

    Raises:
        Invalid: of another length, or with NaN or infinity, or too long to be compared in float32.
    """
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != dimensions:
        raise Invalid(f"vectors have {dimensions} dimensions here, not {'x'.join(map(str, rows.shape[1:]))}")
    with np.errstate(over="ignore", invalid="ignore"):
        longest = longest_of(rows)
    if not longest < _LONGEST:
        raise Invalid("a vector has NaN, infinity or numbers that are too large")
    return rows


def checked_keys(keys: Keys) -> Keys:
    made = np.ascontiguousarray(keys, dtype=np.int64)
    if made.ndim != 1 or (made.size and int(made.min()) < 0):
        raise Invalid("keys are a list of numbers from 0")
    return made


def longest_of(rows: Vectors) -> float:
    """The greatest length; NaN or infinity if any has such."""
    if not len(rows):
        return 0.0
    # By blocks: no second copy of all of them.
    squares = [
        np.einsum("ij,ij->i", block, block, dtype=np.float64).max()
        for block in (rows[start : start + 4096] for start in range(0, len(rows), 4096))
    ]
    return float(np.sqrt(np.max(squares)))


def lasting(keys: Keys, vectors: Vectors) -> tuple[Keys, Vectors]:
    """Of two of one key only the later one; sorted by key."""
    if len(keys) != len(vectors):
        raise Invalid("not as many keys as vectors")
    if len(keys) < 2 or bool(np.all(keys[1:] > keys[:-1])):
        return keys, vectors
    only, backwards = np.unique(keys[::-1], return_index=True)
    return only, vectors[len(keys) - 1 - backwards]


def among(keys: Keys, sorted_keys: Keys) -> NDArray[np.bool_]:
    """Which of `keys` are in `sorted_keys`."""
    if not len(sorted_keys):
        return np.zeros(keys.shape, dtype=np.bool_)
    places = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    found: NDArray[np.bool_] = sorted_keys[places] == keys
    return found


def ranked(keys: Keys, near: Vectors, k: int) -> Ranked:
    """The best `k`; equal ones by key."""
    order = np.lexsort((keys, -near))[:k]
    return keys[order], near[order]


@dataclass(frozen=True, slots=True)
class Measure:
    """Nearness by one metric: the inner product, or the negative of the squared distance."""

    metric: Metric
    dimensions: int

    def near(self, query: Vectors, rows: Vectors) -> Vectors:
        """Exactly, each row for itself."""
        wide = rows.astype(np.float64)
        if self.metric == "l2":
            wide -= query
            wide *= wide
            np.negative(wide, out=wide)
        else:
            wide *= query
        made: Vectors = wide.sum(axis=1).astype(np.float32)
        return made

    def roughly(self, queries: Vectors, rows: Vectors) -> Vectors:
        """All with all, quickly: off by `slack` at most."""
        products: Vectors = queries @ rows.T
        if self.metric != "l2":
            return products
        products *= 2
        products -= np.einsum("ij,ij->i", queries, queries)[:, None]
        products -= np.einsum("ij,ij->i", rows, rows)[None, :]
        return products

    def slack(self, query: Vectors, longest: float) -> float:
        """The most that float32 can be wrong by, whatever the order of its sums, with rows no longer than
        `longest`."""
        length = float(np.linalg.norm(query.astype(np.float64)))
        most = (length + longest) ** 2 if self.metric == "l2" else length * longest
        return 2 * _UNIT * (self.dimensions + 4) * most

    def best(self, query: Vectors, keys: Keys, rows: Vectors, k: int, longest: float) -> Ranked:
        """The best `k` of these rows."""
        if len(rows) > 2 * k + 32:
            rough = self.roughly(query[None], rows)[0]
            bar = np.partition(rough, len(rough) - k)[len(rough) - k] - 2 * self.slack(query, longest)
            good = np.flatnonzero(rough >= bar)
            keys, rows = keys[good], rows[good]
        return ranked(keys, self.near(query, rows), k)

    def scores(self, near: Vectors) -> Vectors:
        """As the port has them: the higher the nearer."""
        if self.metric != "l2":
            return near
        made: Vectors = np.float32(1) / (np.float32(1) - near)
        return made
