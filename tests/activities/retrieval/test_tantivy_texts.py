"""`LexicalIndex` on tantivy: the contract, and what becomes of its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from activities.backends.retrieval.tantivy_texts import TantivyTexts, open_texts
from tests.activities.retrieval.contract_lexical import BOTH, HILLS, LexicalContract, found, herd, keys

__all__ = ["herd"]

Open = Callable[..., TantivyTexts]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens indexes in folders of their own, which are closed in the end."""
    every: list[TantivyTexts] = []

    def opens(folder: Path | None = None, language: str = "en") -> TantivyTexts:
        every.append(open_texts(folder, tmp_path / f"live-{len(every)}", language))
        return every[-1]

    yield opens
    for texts in every:
        texts.close()


@pytest.fixture
def texts(opened: Open) -> TantivyTexts:
    return opened()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    return folder


class TestContract(LexicalContract):
    pass


def test_what_was_saved_is_there_when_it_is_opened_again(
    herd: TantivyTexts, opened: Open, folder: Path
) -> None:
    herd.remove(keys(2))
    herd.save(folder)
    again = opened(folder)
    for words in ("goat sheep meadow", "river", "climb"):
        assert again.search(words, 10, highlight=True) == herd.search(words, 10, highlight=True)


def test_neither_changes_the_other_after_that(herd: TantivyTexts, opened: Open, folder: Path) -> None:
    herd.save(folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    again = opened(folder)
    again.upsert(keys(7), ["goat"])
    again.remove(keys(3))
    herd.remove(keys(1))
    assert sorted(found(again, "goat")) == [1, 7]
    assert found(herd, "goat") == [3]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert sorted(found(opened(folder), "goat")) == [1, 3]


def test_saved_while_segments_are_merged_it_is_whole(
    texts: TantivyTexts, opened: Open, tmp_path: Path
) -> None:
    for n in range(30):
        texts.upsert(keys(n), [f"goat number{n}"])
        if n % 3 == 2:
            folder = tmp_path / f"snapshot-{n}"
            folder.mkdir()
            texts.save(folder)
            assert found(opened(folder), "goat", 50) == list(range(n + 1))


def test_an_empty_index_can_be_saved(texts: TantivyTexts, opened: Open, folder: Path) -> None:
    texts.save(folder)
    again = opened(folder)
    assert found(again, "goat") == []
    again.upsert(keys(1), [HILLS])
    assert found(again, "goat") == [1]


def test_what_another_process_left_in_the_folder_is_gone(tmp_path: Path) -> None:
    first = open_texts(None, tmp_path / "live", "en")
    first.upsert(keys(1), [HILLS])
    assert found(first, "goat") == [1]
    first.close()
    second = open_texts(None, tmp_path / "live", "en")
    assert found(second, "goat") == []
    second.close()


def test_a_snapshot_that_is_not_whole_is_refused(herd: TantivyTexts, opened: Open, folder: Path) -> None:
    with pytest.raises((ValueError, OSError)):
        opened(folder)
    herd.save(folder)
    with pytest.raises(ValueError, match="language"):
        opened(folder, "de")
    next(folder.glob("*.term")).unlink()
    with pytest.raises((ValueError, OSError)):
        opened(folder)


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("de", "Die Ziegen kletterten über Hügel", "Ziege"),
        ("fr", "Les chèvres grimpaient", "chèvre"),
        ("es", "Las cabras trepaban", "cabra"),
        ("it", "Le capre scalavano", "capra"),
        ("pt", "As cabras escalavam", "cabra"),
        ("nl", "De geiten klommen", "geit"),
        ("sv", "Getterna klättrade", "klättra"),
    ],
)
def test_each_language_has_its_stems(opened: Open, language: str, text: str, words: str) -> None:
    texts = opened(language=language)
    texts.upsert(keys(1), [text])
    assert found(texts, words) == [1]


def test_without_a_language_words_are_found_as_they_are(opened: Open) -> None:
    texts = opened(language="none")
    texts.upsert(keys(1), [BOTH])
    assert found(texts, "GOAT") == [1]
    assert found(texts, "goats") == []


def test_allowed_keys_that_may_change_are_read_each_time(herd: TantivyTexts) -> None:
    allowed = keys(1, 2)
    assert found(herd, "goat", 10, allowed) == [1]
    allowed[0], allowed[1] = 2, 3
    assert found(herd, "goat", 10, allowed) == [3]
    allowed.flags.writeable = False
    assert [found(herd, word, 10, allowed) for word in ("goat", "river")] == [[3], [2]]
    herd.remove(keys(2))
    assert found(herd, "river", 10, allowed) == []
    other = np.array([1], np.int64)
    assert found(herd, "goat", 10, other) == [1]
