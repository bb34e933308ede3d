"""What every `LexicalIndex` does. The fixture `texts` says which ones are asked; they are English."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activities.retrieval_ports import Keys, LexicalIndex

HILLS = "Goats were climbing the steep hills, where nobody follows them."
VALLEY = "Sheep stay in the valley; the river feeds its meadows."
BOTH = "A goat and a sheep share one meadow."


def keys(*given: int) -> Keys:
    return np.array(given, np.int64)


def found(texts: LexicalIndex, text: str, k: int = 10, allowed: Keys | None = None) -> list[int]:
    return [one.key for one in texts.search(text, k, allowed)]


@pytest.fixture
def herd(texts: LexicalIndex) -> LexicalIndex:
    """Keys 1 to 3."""
    texts.upsert(keys(1, 2, 3), [HILLS, VALLEY, BOTH])
    return texts


class LexicalContract:
    def test_texts_are_found_by_any_of_the_words(self, herd: LexicalIndex) -> None:
        assert set(found(herd, "goat river")) == {1, 2, 3}
        assert found(herd, "river") == [2]
        assert found(herd, "cows") == []

    def test_a_text_with_more_and_rarer_words_of_the_search_comes_first(self, herd: LexicalIndex) -> None:
        hits = herd.search("goat sheep meadow", 10)
        assert hits[0].key == 3
        assert [one.score for one in hits] == sorted((one.score for one in hits), reverse=True)
        assert all(one.score > 0 for one in hits)

    def test_words_are_found_in_their_other_forms_and_capitals(self, herd: LexicalIndex) -> None:
        assert found(herd, "CLIMB hill") == [1]
        assert set(found(herd, "meadow")) == {2, 3}

    def test_k_bounds_the_hits_and_may_be_more_than_there_are(self, herd: LexicalIndex) -> None:
        assert len(found(herd, "goat sheep", 1)) == 1
        assert len(found(herd, "goat sheep", 1_000)) == 3

    def test_an_empty_index_finds_nothing(self, texts: LexicalIndex) -> None:
        assert found(texts, "goat") == []
        assert found(texts, "goat", 10, keys(1)) == []

    @pytest.mark.parametrize("text", ["", "  \n", "!?", '"', "* : ~ ^ + - && || ( ) [ ] { } \\ /", "😀"])
    def test_a_search_without_a_word_finds_nothing(self, herd: LexicalIndex, text: str) -> None:
        assert found(herd, text) == []

    @pytest.mark.parametrize(
        "text",
        [
            "-goat",
            "+goat -climbing",
            "NOT goat",
            "text:goat",
            '"goat climbing"',
            "goa* goat",
            "goat^0",
            "(goat",
        ],
    )
    def test_no_character_of_a_search_is_an_operator(self, herd: LexicalIndex, text: str) -> None:
        assert {1, 3} <= set(found(herd, text))

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.text(alphabet=st.characters(exclude_categories=()), max_size=60))
    def test_any_text_can_be_searched_for(self, herd: LexicalIndex, text: str) -> None:
        assert 3 in found(herd, f"{text} goat")

    def test_what_was_upserted_is_found_at_once(self, herd: LexicalIndex) -> None:
        for key in range(10, 15):
            herd.upsert(keys(key), [f"badger number{key}"])
            assert found(herd, f"number{key}") == [key]
        assert found(herd, "badger") == list(range(10, 15))

    def test_a_text_of_a_key_that_is_there_takes_its_place(self, herd: LexicalIndex) -> None:
        herd.upsert(keys(1), ["Badgers dig."])
        assert (found(herd, "badger"), found(herd, "climb")) == ([1], [])
        herd.upsert(keys(1, 1), ["Foxes hide.", "Owls fly."])
        assert [found(herd, word) for word in ("badger", "fox", "owl")] == [[], [], [1]]

    def test_removed_texts_are_not_found_and_can_come_again(self, herd: LexicalIndex) -> None:
        herd.remove(keys(1, 3, 99))
        assert found(herd, "goat sheep") == [2]
        herd.upsert(keys(3), [BOTH])
        assert found(herd, "goat") == [3]
        herd.remove(keys())
        herd.upsert(keys(), [])
        herd.remove(keys(2, 3))
        assert found(herd, "goat sheep") == []

    def test_what_was_removed_right_after_it_came_is_not_found(self, texts: LexicalIndex) -> None:
        texts.upsert(keys(1, 2), ["goat one", "goat two"])
        texts.remove(keys(1))
        assert found(texts, "goat") == [2]

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["upsert", "remove", "search"]),
                st.lists(
                    st.tuples(st.integers(0, 6), st.sampled_from(["goat", "sheep", "river"])), max_size=4
                ),
            ),
            max_size=12,
        )
    )
    def test_what_is_found_is_what_is_there_after_any_changes(
        self, texts: LexicalIndex, changes: Sequence[tuple[str, Sequence[tuple[int, str]]]]
    ) -> None:
        texts.remove(keys(*range(7)))
        there: dict[int, str] = {}
        for change, some in changes:
            if change == "upsert":
                texts.upsert(keys(*(key for key, _ in some)), [text for _, text in some])
                there |= dict(some)
            elif change == "remove":
                texts.remove(keys(*(key for key, _ in some)))
                there = {key: text for key, text in there.items() if key not in dict(some)}
            else:
                for word in ("goat", "sheep", "river"):
                    assert sorted(found(texts, word)) == sorted(key for key in there if there[key] == word)
        assert sorted(found(texts, "goat sheep river")) == sorted(there)

    def test_texts_of_one_score_come_by_their_keys(self, texts: LexicalIndex) -> None:
        for part in ((9, 2, 30), (4, 8), (1,), (70, 60, 50, 40)):
            texts.upsert(keys(*part), ["the same goat climbs the same hills"] * len(part))
            found(texts, "goat")  # so that each part may lie elsewhere
        everyone = [1, 2, 4, 8, 9, 30, 40, 50, 60, 70]
        for k in range(1, 12):
            assert found(texts, "goats same hill climb", k) == everyone[:k]
        assert found(texts, "goat", 2, keys(8, 60, 70)) == [8, 60]

    @pytest.mark.parametrize("few", [1, 30, 300, 4_500, 9_000])
    def test_with_allowed_keys_no_hit_is_lost(self, texts: LexicalIndex, few: int) -> None:
        total = 9_000
        upserted(texts, [f"goat {'hill ' * (key % 7)}valley{key % 10}" for key in range(total)])
        for allowed in (np.arange(total)[-few:] << 12, np.sort((np.arange(few) * 7_919 % total) << 12)):
            wanted = set(allowed.tolist())
            every = [one for one in texts.search("hill goat valley3", total) if one.key in wanted]
            assert len(every) == few
            assert texts.search("hill goat valley3", 10, allowed) == every[:10]
            assert texts.search("hill goat valley3", few + 1, allowed) == every

    def test_allowed_keys_that_are_not_there_find_nothing(self, herd: LexicalIndex) -> None:
        assert found(herd, "goat", 10, keys()) == []
        assert found(herd, "goat", 10, keys(5, 6, 7)) == []
        assert found(herd, "goat", 10, keys(2)) == []

    def test_keys_of_63_bits_are_kept(self, texts: LexicalIndex) -> None:
        largest = (1 << 63) - 1
        texts.upsert(keys(0, largest), ["goat", "goat goat"])
        assert sorted(found(texts, "goat")) == [0, largest]
        texts.remove(keys(largest))
        assert found(texts, "goat") == [0]

    def test_highlights_show_the_words_that_were_found(self, herd: LexicalIndex) -> None:
        (hit,) = herd.search("climb HILLS river", 1, keys(1), highlight=True)
        assert hit.highlights == (
            "Goats were \x02climbing\x03 the steep \x02hills\x03, where nobody follows them.",
        )
        assert herd.search("climb", 1)[0].highlights == ()

    @pytest.mark.parametrize("text", ["", " ", "x" * 200_000, "\x00goat\x00", "goat " * 50_000])
    def test_any_text_can_be_kept(self, texts: LexicalIndex, text: str) -> None:
        texts.upsert(keys(1, 2), [text, "badger"])
        assert found(texts, "badger") == [2]
        assert found(texts, "goat") == ([1] if "goat" in text else [])

    def test_accents_are_the_same_however_they_are_written(self, texts: LexicalIndex) -> None:
        texts.upsert(keys(1, 2), ["résumé", "re\u0301sume\u0301"])
        assert found(texts, "résumé") == found(texts, "re\u0301sume\u0301") == [1, 2]

    def test_words_of_scripts_without_spaces_are_found(self, texts: LexicalIndex) -> None:
        texts.upsert(keys(1, 2), ["山羊が丘に登る。", "羊は谷にいる。"])
        assert found(texts, "山羊") == [1, 2]
        assert found(texts, "谷") == [2]


def upserted(texts: LexicalIndex, given: Sequence[str]) -> None:
    """As the first chunks of the documents 0, 1, 2, …"""
    texts.upsert(np.arange(len(given), dtype=np.int64) << 12, given)
