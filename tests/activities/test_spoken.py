from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from activities.backends.spoken import pieces


def test_short_text_is_as_it_is() -> None:
    assert pieces(" One.  Two \n", 20) == [" One.  Two \n"]


def test_text_is_cut_between_sentences() -> None:
    assert pieces("One goat came. Two goats went! Why?", 20) == ["One goat came.", "Two goats went! Why?"]


def test_long_sentence_is_cut_at_clauses_and_words() -> None:
    assert pieces("one, two, three four five", 10) == ["one, two,", "three four", "five"]


def test_sentences_of_other_scripts_are_cut_too() -> None:
    assert pieces("山羊在山上。 小羊在哪里？ 在家。", 8) == ["山羊在山上。", "小羊在哪里？", "在家。"]


@given(st.text(max_size=300), st.integers(1, 40))
def test_nothing_but_spaces_is_lost_and_no_piece_is_too_long(text: str, most: int) -> None:
    cut = pieces(text, most)
    assert all(0 <= len(piece) <= most for piece in cut)
    assert "".join("".join(cut).split()) == "".join(text.split())
