"""Texts to be spoken, cut where speech pauses."""

from __future__ import annotations

import re

MOST_CHARS = 20_000
"""Of one text: some half an hour of speech."""

_SENTENCE = re.compile(r"(?<=[.!?…。！？])\s+|\n+")
_CLAUSE = re.compile(r"(?<=[,;:，、；：])\s*|\s+")


def pieces(text: str, most: int) -> list[str]:
    """The text in pieces of at most `most` characters: whole sentences, or clauses and words of one that is
    longer. A text that is short enough is one piece, as it is."""
    if len(text) <= most:
        return [text]
    found: list[str] = []
    for sentence in _SENTENCE.split(text):
        parts = [sentence] if len(sentence) <= most else _CLAUSE.split(sentence)
        for part in parts:
            if found and len(found[-1]) + 1 + len(part) <= most:
                found[-1] = f"{found[-1]} {part}".strip()
            else:
                # A word that is longer than all of it is cut anywhere.
                found += [part[start : start + most] for start in range(0, len(part), most)]
    return [one for one in found if one]
