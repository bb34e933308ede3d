"""How texts are cut in chunks."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.backends.retrieval.chunker import chunks
from goatherd.contracts.retrieval import Chunking

PLAIN = ["a", "word ", "Hills. ", "Is it? ", "\n", "\r\n", "\n\n", "\r\n\r\n", " " * 70, "\t", "\u00a0"]
MARKDOWN = ["# Head\n", "## Head\r\n\r\n", "- item\n", "    code\n", "```\n", "> said ", "| a |\n|---|\n"]
FAMILY = "👩\u200d👩\u200d👧\u200d👦"
OTHERS = [FAMILY, "🇩🇪", "e\u0301", "\u0301" * 60, "漢字かな", "ไทยไม่มีช่องว่าง", "𝔘𝔫𝔦", "\u200b"]
PIECES = st.sampled_from([*PLAIN, *MARKDOWN, *OTHERS, "\u3000", "\x00", "***", "x" * 130])
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=40)), max_size=120).map("".join)


@st.composite
def chunkings(draw: st.DrawFn) -> Chunking:
    size = draw(st.integers(50, 200))
    return Chunking(
        splitter=draw(st.sampled_from(["text", "markdown"])),
        size=size,
        overlap=draw(st.integers(0, size // 2)),
    )


def holds(text: str, chunking: Chunking) -> list[tuple[int, int]]:
    """The spans, after all that is promised of them has been looked at."""
    spans = chunks(text, chunking)
    before_start, before_end = -1, 0
    for start, end in spans:
        assert start > before_start
        assert end > before_end
        assert end - start <= chunking.size
        assert before_end - start <= chunking.overlap
        assert not text[before_end:start].strip()
        assert text[start:end] == text[start:end].strip() != ""
        before_start, before_end = start, end
    assert not text[before_end:].strip()
    return spans


@settings(max_examples=300, deadline=None)
@given(TEXTS, chunkings())
def test_all_of_a_text_is_in_chunks_of_at_most_the_size_that_overlap_as_they_may(
    text: str, chunking: Chunking
) -> None:
    holds(text, chunking)


def test_paragraphs_and_sentences_are_kept_whole() -> None:
    first = "Goats climb hills. They eat grass, and bark."
    second = "The herd follows a leader. At night it rests."
    text = f"{first}\r\n\r\n{second}"
    spans = holds(text, Chunking(size=50, overlap=0))
    assert [text[start:end] for start, end in spans] == [first, second]


def test_a_chunk_repeats_the_end_of_the_one_before() -> None:
    text = " ".join(f"Sentence {n} is here." for n in range(40))
    spans = holds(text, Chunking(size=100, overlap=30))
    repeated = [before[1] - after[0] for before, after in pairwise(spans)]
    assert all(0 < some <= 30 for some in repeated)


def test_markdown_is_cut_at_its_headings() -> None:
    text = "# One\n\nGoats climb.\n\n# Two\n\nSheep follow the goats, mostly.\n"
    spans = holds(text, Chunking(splitter="markdown", size=50, overlap=0))
    assert [text[start:end] for start, end in spans] == [
        "# One\n\nGoats climb.",
        "# Two\n\nSheep follow the goats, mostly.",
    ]


def test_a_long_text_is_cut_as_its_parts_would_be() -> None:
    paragraph = "Goats climb hills, where nobody follows. They eat what they find there."
    text = "\n\n".join([paragraph] * 1_000)
    spans = holds(text, Chunking(size=100, overlap=0))
    assert {text[start:end] for start, end in spans} == {paragraph}


def test_where_characters_take_several_bytes_spans_are_of_characters() -> None:
    text = "😀 hé " * 100
    assert {text[start] for start, _ in holds(text, Chunking(size=50, overlap=0))} <= {"😀", "h"}


@pytest.mark.parametrize("text", ["", " ", "\r\n\t\u3000" * 500])
def test_blank_texts_have_no_chunks(text: str) -> None:
    assert chunks(text, Chunking()) == []
    assert chunks(text, Chunking(splitter="markdown")) == []


@pytest.mark.parametrize("text", ["", " \n", "a text " * 10_000])
def test_without_a_splitter_a_text_is_one_chunk_as_it_is(text: str) -> None:
    assert chunks(text, Chunking(splitter="none")) == [(0, len(text))]


@pytest.mark.parametrize("splitter", ["text", "markdown"])
@pytest.mark.parametrize("size", [50, 1_000, 32_000])
@pytest.mark.parametrize(
    "piece",
    ["a", "漢字", FAMILY, "\u0301", " \n", "\n", "`", "[", "> ", "word ", "x" + " " * 200],
    ids=["letter", "han", "emoji", "mark", "blanks", "lines", "ticks", "brackets", "quotes", "words", "gaps"],
)
def test_a_megabyte_of_anything_is_cut_in_seconds(splitter: str, size: int, piece: str) -> None:
    text = piece * ((1 << 20) // len(piece.encode()))
    begun = time.process_time()
    holds(text, Chunking.model_validate({"splitter": splitter, "size": size, "overlap": size // 4}))
    assert time.process_time() - begun < 30
