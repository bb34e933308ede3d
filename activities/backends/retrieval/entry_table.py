"""Which entries a version has, on SQLite.

What is small and asked for often is in memory: ten bytes an entry, and the keys that recent filters gave, of
at most 16 MiB. Documents' names and metadata lie in a file, of which SQLite holds at most 2 MiB.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from activities.backends.retrieval import entry_values
from activities.backends.retrieval.entry_values import Seqs
from activities.backends.retrieval.synced import sync
from activities.retrieval_ports import EntryTable, Keys
from goatherd.contracts.filters import Filter, flat_values
from goatherd.contracts.retrieval import Entry, chunk_key, of_chunk_key

FILE = "entries.sqlite3"
FORMAT = 1
"""Of the file; one of another format can't be opened."""

MOST_CACHED_BYTES = 16 << 20
_AT_ONCE = 10_000
"""Most parameters of a statement; SQLite takes 32,766."""

_SCHEMA = f"""
CREATE TABLE documents (seq INTEGER PRIMARY KEY, doc TEXT NOT NULL UNIQUE, chunks INTEGER NOT NULL);
{entry_values.SCHEMA}
PRAGMA user_version = {FORMAT};
"""


def open_table(folder: Path | None, live: Path) -> SqliteEntryTable:
    """A table that works in the folder `live`, and begins with what `save` wrote into `folder`.

    Whatever another one left in `live` is overwritten; `folder` is only read.

    Raises:
        ValueError, OSError, sqlite3.Error: `folder` has no whole table.
    """
    live.mkdir(parents=True, exist_ok=True)
    file = live / FILE
    file.unlink(missing_ok=True)
    if folder is not None:
        shutil.copyfile(folder / FILE, file)
    database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    try:
        # The working copy need not outlive its process: snapshots do.
        for pragma in ("journal_mode = MEMORY", "synchronous = OFF", "locking_mode = EXCLUSIVE"):
            database.execute(f"PRAGMA {pragma}")
        database.execute("PRAGMA cache_size = -2048")
        if folder is None:
            database.executescript(_SCHEMA)
        elif database.execute("PRAGMA user_version").fetchone() != (FORMAT,):
            raise ValueError(f"{folder / FILE} is of another format")
        return SqliteEntryTable(database)
    except BaseException:
        database.close()
        raise


class SqliteEntryTable(EntryTable):
    def __init__(self, database: sqlite3.Connection) -> None:
        """Of a database with the tables in it, which is closed with this."""
        self._database = database
        rows = database.execute("SELECT seq, chunks FROM documents ORDER BY seq").fetchall()
        self._seqs = np.fromiter((seq for seq, _ in rows), np.int64, len(rows))
        self._chunks = np.fromiter((chunks for _, chunks in rows), np.int16, len(rows))
        self._selected = _Selected()

    @property
    def counts(self) -> tuple[int, int]:
        return len(self._seqs), int(self._chunks.sum(dtype=np.int64))

    @property
    def memory_bytes(self) -> int:
        return self._seqs.nbytes + self._chunks.nbytes + self._selected.size + (2 << 20)

    def put(self, entries: Sequence[Entry]) -> None:
        """In place of the documents' earlier entries; a `deleted` one leaves nothing. An entry whose number
        is smaller than that of the one that is there changes nothing. All of them, or none.

        Raises:
            Invalid: metadata that no filter can be compared with.
        """
        newest: dict[str, Entry] = {}
        for entry in entries:
            if entry.doc not in newest or newest[entry.doc].seq <= entry.seq:
                newest[entry.doc] = entry
        there = {doc: seq for doc, seq, _ in self._rows("doc", list(newest))}
        coming = [entry for doc, entry in newest.items() if there.get(doc, 0) <= entry.seq]
        going = [there[entry.doc] for entry in coming if entry.doc in there]
        staying = sorted((entry for entry in coming if not entry.deleted), key=lambda entry: entry.seq)
        values = [(entry.seq, flat_values(entry.metadata)) for entry in staying]
        with self._transaction():
            self._database.executemany("DELETE FROM documents WHERE seq = ?", ((seq,) for seq in going))
            entry_values.remove_values(self._database, going)
            self._database.executemany(
                "INSERT INTO documents VALUES (?, ?, ?)", ((one.seq, one.doc, one.chunks) for one in staying)
            )
            entry_values.put_values(self._database, values)
        self._renumber(going, staying)

    def keys(self, docs: Sequence[str]) -> Keys:
        """The keys of all chunks that these documents have here, sorted."""
        rows = sorted((seq, chunks) for _, seq, chunks in self._rows("doc", list(dict.fromkeys(docs))))
        seqs, chunks = np.array(rows, np.int64).reshape(-1, 2).T
        return _expanded(seqs, chunks)

    def documents(self, keys: Sequence[int]) -> list[str | None]:
        places = [of_chunk_key(int(key)) for key in keys]
        rows = self._rows("seq", list(dict.fromkeys(seq for seq, _ in places)))
        names = {seq: (doc, chunks) for doc, seq, chunks in rows}
        nobody = (None, 0)
        found = ((names.get(seq, nobody), chunk) for seq, chunk in places)
        return [doc if chunk < chunks else None for (doc, chunks), chunk in found]

    def select(self, condition: Filter) -> Keys:
        """Sorted keys of the chunks whose documents meet the filter. Not to be written to: the same array is
        given again as long as nothing changes."""
        # Not the filter itself: it equals another one that says 1 where it says true.
        name = repr(condition)
        keys = self._selected.get(name)
        if keys is None:
            mask = entry_values.meeting(self._database, condition, self._seqs)
            keys = _expanded(self._seqs[mask], self._chunks[mask])
            keys.flags.writeable = False
            self._selected.put(name, keys)
        return keys

    def save(self, folder: Path) -> None:
        """Writes all of it into a folder that has no table yet, synced."""
        copy = sqlite3.connect(folder / FILE)
        try:
            copy.execute("PRAGMA synchronous = OFF")  # once, below
            self._database.backup(copy)
        finally:
            copy.close()
        sync(folder / FILE)
        sync(folder)

    def close(self) -> None:
        self._database.close()

    def _rows(self, column: str, wanted: Sequence[object]) -> Iterator[tuple[str, int, int]]:
        """Of the documents whose `column` is one of these: name, number, chunks."""
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            places = ", ".join("?" * len(some))
            yield from self._database.execute(
                f"SELECT doc, seq, chunks FROM documents WHERE {column} IN ({places})", some
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # SQLite itself rolls back when its disk is full
                self._database.execute("ROLLBACK")
            raise

    def _renumber(self, going: Sequence[int], coming: Sequence[Entry]) -> None:
        if not going and not coming:
            return
        self._selected.clear()
        if going:
            keep = np.ones(len(self._seqs), np.bool_)
            keep[np.searchsorted(self._seqs, np.array(going, np.int64))] = False
            self._seqs, self._chunks = self._seqs[keep], self._chunks[keep]
        if coming:
            ordered = not len(self._seqs) or coming[0].seq > self._seqs[-1]
            self._seqs = np.append(self._seqs, np.array([entry.seq for entry in coming], np.int64))
            self._chunks = np.append(self._chunks, np.array([entry.chunks for entry in coming], np.int16))
            if not ordered:
                order = np.argsort(self._seqs)
                self._seqs, self._chunks = self._seqs[order], self._chunks[order]


class _Selected:
    """The keys that filters gave, those that were asked for last, within a bound of bytes."""

    def __init__(self) -> None:
        self._keys: OrderedDict[str, Keys] = OrderedDict()
        self.size = 0

    def get(self, name: str) -> Keys | None:
        if name in self._keys:
            self._keys.move_to_end(name)
        return self._keys.get(name)

    def put(self, name: str, keys: Keys) -> None:
        self._keys[name] = keys
        self.size += keys.nbytes + len(name)
        while self.size > MOST_CACHED_BYTES and len(self._keys) > 1:
            oldest, dropped = self._keys.popitem(last=False)
            self.size -= dropped.nbytes + len(oldest)

    def clear(self) -> None:
        self._keys.clear()
        self.size = 0


def _expanded(seqs: Seqs, chunks: NDArray[np.integer]) -> Keys:
    """The keys of all chunks of these entries."""
    counts = chunks.astype(np.int64)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    within = np.arange(total, dtype=np.int64) - np.repeat(ends - counts, counts)
    return np.repeat(seqs * chunk_key(1, 0), counts) + within
