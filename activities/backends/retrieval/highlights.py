"""The pieces of a text that show why it was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

START, END = "\u0002", "\u0003"
"""Around each word that was found."""

PIECES = 3
LENGTH = 150
"""Of a piece, in characters, about: it begins and ends where a blank is near."""

_NEAR = 25
_NO_MARKS = str.maketrans({START: " ", END: " "})

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Gap:
    """A part of the text that no piece was taken of yet, with the words that were found there."""

    low: int
    high: int
    found: Sequence[Span]


def highlights(text: str, found: Sequence[Span]) -> tuple[str, ...]:
    """Up to three pieces of the text, in its order, those first chosen that have the most different words.

    `found`: where the words that were found begin and end, in order.
    """
    # The text cannot be taken for marks of ours.
    text = text.translate(_NO_MARKS)
    pieces: list[Span] = []
    gaps = [_Gap(0, len(text), found)] if found else []
    while gaps and len(pieces) < PIECES:
        gap, (_, words) = max(((gap, _densest(text, gap.found)) for gap in gaps), key=lambda one: one[1][0])
        gaps.remove(gap)
        start, end = _piece(text, gap, words)
        pieces.append((start, end))
        before = _Gap(gap.low, start, [word for word in gap.found if word[1] <= start])
        after = _Gap(end, gap.high, [word for word in gap.found if word[0] >= end])
        gaps += [part for part in (before, after) if part.found]
    return tuple(_marked(text, piece, found) for piece in sorted(pieces))


def _densest(text: str, found: Sequence[Span]) -> tuple[tuple[int, int], Span]:
    """From the first to the last word of those within a piece's length that are the most different ones;
    before that, how many different ones they are, and how many."""
    best, most = found[0], (0, 0)
    inside: Counter[str] = Counter()
    first = 0
    for start, end in found:
        inside[text[start:end].lower()] += 1
        while end - found[first][0] > LENGTH and found[first][0] < start:
            gone = text[slice(*found[first])].lower()
            inside[gone] -= 1
            if not inside[gone]:
                del inside[gone]
            first += 1
        count = (len(inside), inside.total())
        if count > most:
            best, most = (found[first][0], end), count
    return most, best


def _piece(text: str, gap: _Gap, words: Span) -> Span:
    """The words with what stands around them."""
    start, end = words
    low = max(start - max(LENGTH - (end - start), 0) // 2, gap.low)
    high = min(max(low + LENGTH, end), gap.high)
    low = max(min(low, high - LENGTH), gap.low)
    return _begin(text, low, start), _end(text, high, end)


def _begin(text: str, low: int, start: int) -> int:
    """`low`, or where the next word begins, if that is near."""
    if low == 0 or text[low - 1].isspace():
        return low
    for at in range(low, min(low + _NEAR, start)):
        if text[at].isspace():
            return at + 1
    return low


def _end(text: str, high: int, end: int) -> int:
    if high == len(text) or text[high].isspace():
        return high
    for at in range(high, max(high - _NEAR, end), -1):
        if text[at - 1].isspace():
            return at - 1
    return high


def _marked(text: str, piece: Span, found: Sequence[Span]) -> str:
    parts: list[str] = []
    at, stop = piece
    for start, end in found:
        if start >= at and end <= stop:
            parts += text[at:start], START, text[start:end], END
            at = end
    return "".join([*parts, text[at:stop]]).strip()
