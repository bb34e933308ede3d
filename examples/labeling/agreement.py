"""How far workers agree beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def cohen_kappa(one: Sequence[str], other: Sequence[str]) -> float:
    """Of two workers over the same items: 1 is always, 0 as often as chance would have it (Cohen, 1960)."""
    items = len(one)
    observed = sum(a == b for a, b in zip(one, other, strict=True)) / items
    mine, theirs = Counter(one), Counter(other)
    expected = sum(mine[label] * theirs[label] for label in mine) / items**2
    return _beyond(observed, expected)


def fleiss_kappa(votes: Sequence[Sequence[str]]) -> float:
    """Of several workers: for each item its labels, always the same number of them (Fleiss, 1971)."""
    items, raters = len(votes), len(votes[0])
    total: Counter[str] = Counter()
    observed = 0.0
    for labels in votes:
        counts = Counter(labels)
        total.update(counts)
        observed += sum(count * (count - 1) for count in counts.values()) / (raters * (raters - 1))
    expected = sum((count / (items * raters)) ** 2 for count in total.values())
    return _beyond(observed / items, expected)


def _beyond(observed: float, expected: float) -> float:
    # Where there is but one label, nobody could have disagreed.
    return 1.0 if expected == 1 else (observed - expected) / (1 - expected)
