"""Documents' texts in chunks."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Protocol

from goatherd.contracts.retrieval import Chunking

_WINDOW = 8
"""How many chunks' lengths the splitter is shown at once. Its time grows with the square of what it sees: a
megabyte without a space would take it minutes."""

_SOMETHING = re.compile(r"\S")


class _Splitter(Protocol):
    def chunk_indices(self, text: str) -> list[tuple[int, str]]: ...


def chunks(text: str, chunking: Chunking) -> list[tuple[int, int]]:
    """Where the chunks of a text begin and end, in characters, in their order.

    All of the text is in them but blanks; none is blank, nor longer than `size`, nor repeats more than
    `overlap` of the one before. Splitter `none`: the text as it is, whatever it is.
    """
    if chunking.splitter == "none":
        return [(0, len(text))]
    splitter = _splitter(chunking.splitter, chunking.size, chunking.overlap)
    window = _WINDOW * chunking.size
    spans: list[tuple[int, int]] = []
    covered = at = 0
    while something := _SOMETHING.search(text, at):
        at = something.start()
        shown = text[at : at + window]
        following = at + len(shown)
        for offset, chunk in splitter.chunk_indices(shown):
            if offset and following < len(text) and offset + chunking.size >= window:
                # What is after the window may belong to it: it is cut again, from its own beginning.
                following = at + offset
                break
            start = at + offset + len(chunk) - len(chunk.lstrip())
            end = at + offset + len(chunk.rstrip())
            if start < end > covered:
                if spans and spans[-1][0] == start:
                    spans.pop()  # it begins in blanks before that one, and has all of it
                spans.append((start, end))
                covered = end
        at = following
    return spans


@lru_cache(maxsize=64)
def _splitter(name: str, size: int, overlap: int) -> _Splitter:
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    kind = MarkdownSplitter if name == "markdown" else TextSplitter
    # Blanks are trimmed above: of long blanks, the splitter's own trimming takes seconds a page.
    return kind(size, overlap=overlap, trim=False)
