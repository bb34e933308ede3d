"""Spans by their scores: against all spans there are, written out."""

from __future__ import annotations

import numpy as np
import pytest

from activities.backends.hf.spans import Span, best_spans, probabilities


@pytest.mark.parametrize("seed", range(20))
def test_best_spans_are_the_best_of_all(seed: int) -> None:
    luck = np.random.default_rng(seed)
    size, longest, most = int(luck.integers(1, 30)), int(luck.integers(1, 40)), int(luck.integers(1, 40))
    begin, end = luck.random(size), luck.random(size)
    every = [
        Span(first, last, float(begin[first] * end[last]))
        for first in range(size)
        for last in range(first, min(size, first + longest))
    ]
    wanted = sorted(every, key=lambda span: (-span.score, span.first, span.last))[:most]
    assert best_spans(begin, end, longest=longest, most=most) == wanted


def test_tokens_without_a_chance_are_in_no_span() -> None:
    begin = np.array([0.0, 0.7, 0.0])
    assert best_spans(begin, begin, longest=3, most=9) == [Span(1, 1, 0.7 * 0.7)]
    assert best_spans(begin * 0, begin, longest=3, most=9) == []


def test_probabilities_are_among_those_allowed() -> None:
    got = probabilities(np.array([900.0, 1.0, 1.0, 700.0]), np.array([False, True, True, False]))
    assert got.tolist() == [0, 0.5, 0.5, 0]
