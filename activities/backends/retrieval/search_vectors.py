"""A search in one part of an index: an engine proposes, exact arithmetic decides, and nothing is lost.

An engine's answer is not enough if fewer are found than there are, or, where the engine is exact, if the best
that it left out may be as near as the last one taken: of equal ones those with the smaller keys count, and
float32 is not that exact. Then more is asked for, and at last all vectors are looked at.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from activities.backends.retrieval.vector_math import Measure, Ranked, among, ranked
from activities.retrieval_ports import Keys, Vectors

FEW = 20_000
"""So many vectors are looked at one by one sooner than an approximate engine is asked with a filter."""
_BLOCK = 4_096
_EFFORTS = 4


class Part(Protocol):
    """Vectors by keys, with an engine that knows the nearest ones."""

    @property
    def exact(self) -> bool:
        """Whether `candidates` are the nearest ones, but for the slack of float32."""

    @property
    def longest(self) -> float:
        """No vector is longer."""

    @property
    def keys(self) -> Keys:
        """Sorted, of all that are there."""

    def take(self, keys: Keys) -> Vectors:
        """A copy of the vectors of keys that are there."""

    def candidates(
        self, queries: Vectors, n: int, effort: int, allowed: Keys | None
    ) -> tuple[Keys, Vectors | None]:
        """For each query up to `n` keys, in rows filled up with -1, best first; keys that are no more may be
        among them. If the engine is exact, with how near it thinks they are. `effort`: from 0, the higher the
        more is looked at. Of `allowed`, sorted, others may be among them too."""


def search(part: Part, measure: Measure, queries: Vectors, k: int, allowed: Keys | None) -> list[Ranked]:
    """For each query the best `k`; all that there are, if these are fewer."""
    keys = part.keys if allowed is None else allowed[among(allowed, part.keys)]
    wanted = min(k, len(keys))
    if wanted == 0 or (allowed is not None and (part.exact or len(keys) <= FEW)):
        return exhaustive(part, measure, queries, wanted, keys)
    found: dict[int, Ranked] = {}
    open_ = list(range(len(queries)))
    n = wanted + 32 + wanted // 8
    for effort in range(2 if part.exact else _EFFORTS):
        if not open_ or n >= len(part.keys):
            break
        asked = queries[open_]
        proposed, near = part.candidates(asked, n, effort, None if allowed is None else keys)
        answers = _decided(part, measure, asked, wanted, proposed, near, keys)
        found.update((open_[at], answer) for at, answer in answers.items())
        open_ = [query for at, query in enumerate(open_) if at not in answers]
        n *= 8 if part.exact else 2
    if open_:
        found.update(zip(open_, exhaustive(part, measure, queries[open_], wanted, keys), strict=True))
    return [found[at] for at in range(len(queries))]


def _decided(
    part: Part,
    measure: Measure,
    queries: Vectors,
    wanted: int,
    proposed: Keys,
    near: Vectors | None,
    keys: Keys,
) -> dict[int, Ranked]:
    """Those queries' answers that are sure, by their places."""
    good = among(proposed, keys)
    ends = np.concatenate([[0], np.cumsum(good.sum(axis=1))])
    flat = proposed[good]
    rows = part.take(flat)
    answers: dict[int, Ranked] = {}
    for at, query in enumerate(queries):
        mine = slice(int(ends[at]), int(ends[at + 1]))
        if mine.stop - mine.start < wanted:
            continue
        best = measure.best(query, flat[mine], rows[mine], wanted, part.longest)
        if near is not None and proposed[at, -1] >= 0:
            left_out = float(near[at, -1]) + measure.slack(query, part.longest)
            if not float(best[1][-1]) > left_out:
                continue
        answers[at] = best
    return answers


def exhaustive(part: Part, measure: Measure, queries: Vectors, k: int, keys: Keys) -> list[Ranked]:
    """The best of `keys`, sorted, all of which are there."""
    if k == 0 or not len(queries):
        return [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
    kept = [_Kept(k, 2 * measure.slack(query, part.longest)) for query in queries]
    for start in range(0, len(keys), _BLOCK):
        block = keys[start : start + _BLOCK]
        rough = measure.roughly(queries, part.take(block))
        for one, near in zip(kept, rough, strict=True):
            one.see(block, near)
    return [_settled(part, measure, query, one, k) for query, one in zip(queries, kept, strict=True)]


def _settled(part: Part, measure: Measure, query: Vectors, kept: _Kept, k: int) -> Ranked:
    keys = kept.good()
    # Where thousands are equally near, these are many.
    near = [
        measure.near(query, part.take(keys[start : start + _BLOCK])) for start in range(0, len(keys), _BLOCK)
    ]
    return ranked(keys, np.concatenate(near), k)


class _Kept:
    """What may be among the best `k` of what was seen."""

    def __init__(self, k: int, slack: float) -> None:
        self._k = k
        self._slack = slack
        self._bar = -np.inf
        self._keys: list[Keys] = []
        self._near: list[Vectors] = []
        self._many = 0

    def see(self, keys: Keys, near: Vectors) -> None:
        good = np.flatnonzero(near >= self._bar)
        if not len(good):
            return
        self._keys.append(keys[good])
        self._near.append(near[good])
        self._many += len(good)
        if self._many >= self._k:
            self._sift()

    def _sift(self) -> None:
        near = np.concatenate(self._near)
        self._bar = float(np.partition(near, len(near) - self._k)[len(near) - self._k]) - self._slack
        good = np.flatnonzero(near >= self._bar)
        self._keys, self._near = [np.concatenate(self._keys)[good]], [near[good]]
        self._many = len(good)

    def good(self) -> Keys:
        return np.concatenate(self._keys)
