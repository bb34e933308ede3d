"""Which pieces of a text show why it was found."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from activities.backends.retrieval.highlights import LENGTH, PIECES, highlights

MARKS = str.maketrans("", "", "\x02\x03")


def of(text: str, *words: str) -> tuple[str, ...]:
    pattern = "|".join(words)
    return highlights(text, [match.span() for match in re.finditer(pattern, text)])


def test_a_short_text_is_one_piece() -> None:
    assert of("One goat, one sheep.", "goat", "sheep") == ("One \x02goat\x03, one \x02sheep\x03.",)


def test_where_nothing_was_found_there_is_no_piece() -> None:
    assert of("One goat.", "cow") == of("", "cow") == ()


def test_pieces_are_cut_between_words_around_what_was_found() -> None:
    (piece,) = of(f"{'hill ' * 100}goat {'river ' * 100}", "goat")
    assert piece.startswith("hill ")
    assert piece.endswith(" river")
    assert " \x02goat\x03 " in piece
    assert LENGTH - 50 <= len(piece.translate(MARKS)) <= LENGTH


def test_those_with_the_most_different_words_are_shown_in_the_order_of_the_text() -> None:
    far = "hill " * 60
    text = f"goat {far}goat goat {far}sheep goat {far}goat {far}goat sheep cow {far}"
    pieces = of(text, "goat", "sheep", "cow")
    assert [re.findall("\x02(.*?)\x03", piece) for piece in pieces] == [
        ["goat", "goat"],
        ["sheep", "goat"],
        ["goat", "sheep", "cow"],
    ]


def test_marks_that_the_text_itself_has_are_blanks() -> None:
    assert of("a\x02b\x03 goat", "goat") == ("a b  \x02goat\x03",)


def test_a_word_longer_than_a_piece_is_shown_whole() -> None:
    assert of(f"see {'x' * 400} there", "x+") == (f"\x02{'x' * 400}\x03",)


@given(st.text(alphabet="ab \n", max_size=2_000))
def test_pieces_are_parts_of_the_text_that_do_not_overlap(text: str) -> None:
    spans = [match.span() for match in re.finditer(r"a[ab]*", text)]
    pieces = highlights(text, spans)
    assert len(pieces) <= PIECES
    assert bool(pieces) == bool(spans)
    at = 0
    for piece in pieces:
        assert "\x02" in piece
        plain = piece.translate(MARKS)
        start = text.find(plain, at)
        assert start >= 0
        at = start + len(plain)
