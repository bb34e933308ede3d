"""Lists of hits joined by their ranks: weighted reciprocal rank fusion.

A hit's score is the sum, over the lists that have it, of weight / (constant + rank), ranks from 1. Scores of
the lists themselves play no part: those of words and those of vectors have nothing in common.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fused:
    """`ranks`: where it stands in each list, None where it does not."""

    key: int
    score: float
    ranks: tuple[int | None, ...]


def candidates_for(k: int) -> int:
    """How many of each list are joined, if nobody says."""
    return max(100, 4 * k)


def fuse(lists: Sequence[Sequence[int]], weights: Sequence[float], constant: int) -> list[Fused]:
    """All keys of the lists, each of which has a key once, best first.

    A list of weight 0 is left out, and what only it has. Of equal scores the one that is further up in the
    first list is better, then in the second, and so on.
    """
    ranks: dict[int, list[int | None]] = {}
    for place, (keys, weight) in enumerate(zip(lists, weights, strict=True)):
        if weight == 0:
            continue
        for rank, key in enumerate(keys, 1):
            ranks.setdefault(key, [None] * len(lists))[place] = rank
    found = [Fused(key, _score(has, weights, constant), tuple(has)) for key, has in ranks.items()]
    return sorted(found, key=_order)


def _score(ranks: Sequence[int | None], weights: Sequence[float], constant: int) -> float:
    # The exact sum, rounded once: equal sums are equal in whatever order the lists come.
    return math.fsum(
        weight / (constant + rank) for rank, weight in zip(ranks, weights, strict=True) if rank is not None
    )


def _order(one: Fused) -> tuple[float, list[float], int]:
    return -one.score, [math.inf if rank is None else rank for rank in one.ranks], one.key
