"""The likeliest spans of a text, by how likely each token is to be a beginning or an end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `first` to `last`, both in it."""

    first: int
    last: int
    score: float


def probabilities(logits: np.ndarray[Any, Any], allowed: np.ndarray[Any, np.dtype[np.bool_]]) -> Numbers:
    """Softmax over the tokens that are allowed; of the others 0. One at least is allowed."""
    scores = np.where(allowed, logits.astype(np.float64), -np.inf)
    raised = np.exp(scores - scores.max())
    result: Numbers = raised / raised.sum()
    return result


def best_spans(begin: Numbers, end: Numbers, *, longest: int, most: int) -> list[Span]:
    """The likeliest spans of `longest` tokens at most, the best first.

    Args:
        begin, end: for each token the probability that the span begins or ends with it.
        most: how many; fewer are given where no other span has a chance.
    """
    size = len(begin)
    # One row a length: the score of the span of that length that begins at each token.
    scores = np.zeros((min(longest, size), size))
    for more in range(len(scores)):
        scores[more, : size - more] = begin[: size - more] * end[more:]
    flat = scores.ravel()
    most = min(most, int((flat > 0).sum()))
    if not most:
        return []
    places = np.argpartition(-flat, most - 1)[:most]
    # Of equals the first in the text, and of these the shortest: the same each time.
    spans = [Span(int(n % size), int(n % size + n // size), float(flat[n])) for n in places]
    return sorted(spans, key=lambda span: (-span.score, span.first, span.last))
