"""`EntryTable` on SQLite: the contract, and what becomes of its file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from activities.backends.retrieval import entry_table
from activities.backends.retrieval.entry_table import SqliteEntryTable, open_table
from goatherd.contracts.filters import read_filter
from goatherd.errors import Invalid
from tests.activities.retrieval.contract_entry_table import (
    EVERYTHING,
    EntryTableContract,
    entry,
    keys_of,
    selected,
)

Open = Callable[..., SqliteEntryTable]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens tables in folders of their own, which are closed in the end."""
    every: list[SqliteEntryTable] = []

    def opens(folder: Path | None = None) -> SqliteEntryTable:
        every.append(open_table(folder, tmp_path / f"live-{len(every)}"))
        return every[-1]

    yield opens
    for table in every:
        table.close()


@pytest.fixture
def table(opened: Open) -> SqliteEntryTable:
    return opened()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    return folder


class TestContract(EntryTableContract):
    pass


def test_what_was_saved_is_there_when_it_is_opened_again(
    table: SqliteEntryTable, opened: Open, folder: Path
) -> None:
    goat, sheep = entry("goat", 1, 2, {"lang": "en"}), entry("sheep", 2, 1, {"lang": "de"})
    table.put([goat, sheep])
    table.save(folder)
    table.put([entry("goat", 3, 0, deleted=True)])
    again = opened(folder)
    assert (again.counts, table.counts) == ((2, 3), (1, 1))
    assert selected(again, {"lang": "en"}) == again.keys(["goat"]).tolist() == keys_of(goat)
    again.put([entry("sheep", 4, 0, deleted=True)])
    assert selected(opened(folder), EVERYTHING) == keys_of(goat, sheep)


def test_what_another_process_left_in_the_folder_is_gone(tmp_path: Path) -> None:
    first = open_table(None, tmp_path)
    first.put([entry("goat", 1)])
    first.close()
    second = open_table(None, tmp_path)
    assert second.counts == (0, 0)
    second.close()


def test_a_snapshot_that_is_not_whole_is_refused(table: SqliteEntryTable, opened: Open, folder: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        opened(folder)
    file = folder / entry_table.FILE
    for content in (b"", b"no database" * 1_000):
        file.write_bytes(content)
        with pytest.raises((ValueError, sqlite3.Error)):
            opened(folder)
    file.unlink()
    table.save(folder)
    opened(folder)


def test_a_filter_is_answered_once_until_something_changes(table: SqliteEntryTable) -> None:
    table.put([entry("goat", 1, 1, {"a": 1})])
    condition = read_filter({"a": {"gt": 0}})
    keys = table.select(condition)
    table.put([])
    assert table.select(condition) is keys
    with pytest.raises(ValueError, match="read-only"):
        keys[0] = 7
    table.put([entry("goat", 2, 1, {"a": 2})])
    assert table.select(condition).tolist() == keys_of(entry("goat", 2))


def test_the_answers_that_are_kept_have_a_bound(
    table: SqliteEntryTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry_table, "MOST_CACHED_BYTES", 3_000)
    table.put([entry(f"doc {n}", n + 1, 1, {"n": n}) for n in range(100)])
    before = table.memory_bytes
    first = table.select(read_filter({"n": {"gte": 0}}))
    for n in range(20):
        table.select(read_filter({"n": {"gte": n}}))
        assert table.memory_bytes - before <= 3_000
    assert table.select(read_filter({"n": {"gte": 0}})) is not first


def test_a_put_that_was_refused_leaves_the_kept_answers_right(table: SqliteEntryTable) -> None:
    goat = entry("goat", 1, 1, {"a": 1})
    table.put([goat])
    assert selected(table, {"a": 1}) == keys_of(goat)
    with pytest.raises(Invalid):
        table.put([entry("goat", 2, 1, {"a": [{}]})])
    with pytest.raises(sqlite3.IntegrityError):
        table.put([entry("sheep", 2), entry("cow", 2)])
    assert selected(table, {"a": 1}) == selected(table, EVERYTHING) == keys_of(goat)
    table.put([entry("sheep", 2)])
    assert table.counts == (2, 2)
