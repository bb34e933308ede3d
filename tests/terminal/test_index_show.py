"""Hits, indexes and documents as a person sees them."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator
from typing import Any

from goatherd.terminal._index_hits import explained, marked, pieces, print_hits
from goatherd.terminal._index_show import print_document, print_index, print_indexes
from tests.terminal.index_server import FakeIndex


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True

    def plain(self) -> str:
        """Without colours, which are the only sequences that may be there."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.getvalue())


def hit(**fields: Any) -> dict[str, Any]:
    return {
        "id": "docs/tasks.md",
        "chunk": 2,
        "score": 0.0325,
        "text": "A worker takes a subtask.",
        "start": 1_000,
        "end": 1_025,
        "metadata": {"title": "Tasks"},
    } | fields


def test_found_words_stand_out() -> None:
    text = marked("a \x02worker\x03 takes\n\n a \x02subtask\x03")
    assert text.plain == "a worker takes a subtask"
    assert [text.plain[span.start : span.end] for span in text.spans if span.style] == ["worker", "subtask"]


def test_what_is_marked_wrongly_is_shown_without_marks() -> None:
    assert marked("\x03a \x02b \x02c\x03 \x02d\x1b[2J").plain == "a b c d[2J"


def test_a_hit_without_words_shows_how_its_chunk_begins() -> None:
    (piece,) = pieces(hit(text="word " * 200))
    assert piece.plain.endswith("…")
    assert len(piece.plain) < 330


def test_hits_on_a_terminal() -> None:
    out = Tty()
    ranks = {"dense": {"rank": 1, "score": 0.61234}, "lexical": None}
    hits = [hit(highlights=["takes a \x02subtask\x03"], explain=ranks)]
    print_hits({"hits": hits, "mode": "hybrid", "exact": False, "took_ms": 12.3}, out)
    said = out.plain()
    assert "docs/tasks.md  Tasks  1,000–1,025  0.0325  by meaning 1 (0.612), by words –" in said
    assert "    takes a subtask" in said
    assert "\x02" not in said
    assert "1 hit · hybrid · 12 ms · nearer ones may have been missed" in said


def test_nothing_found_is_said() -> None:
    out = Tty()
    print_hits({"hits": [], "mode": "lexical", "exact": True}, out)
    assert "Nothing found · lexical" in out.plain()
    print_hits({"hits": [], "mode": "lexical", "exact": True, "complete": False}, out)
    assert "Nothing found · lexical · some are left out, as they changed meanwhile" in out.plain()


def test_ranks_are_explained() -> None:
    ranks = {"dense": {"rank": 12, "score": 0.5}, "lexical": {"rank": 1, "score": 8.25}}
    assert explained(ranks) == "by meaning 12 (0.500), by words 1 (8.250)"


async def test_indexes_are_a_table() -> None:
    async def indexes() -> AsyncIterator[dict[str, Any]]:
        yield FakeIndex().shown(listed=True)

    out = Tty()
    await print_indexes(indexes(), out)
    assert [line.split() for line in out.plain().splitlines()] == [
        ["index", "state", "model", "backend", "metric"],
        ["docs", "ready", "minilm", "faiss", "cosine"],
    ]


def test_an_index_is_shown_with_what_is_in_it() -> None:
    fake = FakeIndex(docs={"a": {}, "b": {}}, pending=["b"])
    out = Tty()
    print_index(fake.shown(), out)
    said = out.plain()
    assert "documents 2" in said
    assert "2 chunks; 1 pending, 0 failed" in said
    assert "minilm, 384 dimensions, cosine" in said
    assert "faiss kind=auto" in said


def test_a_document_is_shown_without_steering_the_terminal() -> None:
    document = {
        "id": "a.md",
        "status": "failed",
        "updated_at": "2026-11-22T12:00:00.000Z",
        "metadata": {"title": "A", "tags": ["x"], "load_digest": "123"},
        "error": {"code": "x", "message": "The model could not."},
        "text": "Hello \x1b]0;goat\x07world",
    }
    out = Tty()
    print_document(document, out)
    said = out.plain()
    assert "title: A" in said
    assert 'tags: ["x"]' in said
    assert "load_digest" not in said
    assert "The model could not." in said
    assert "Hello ]0;goatworld" in said
