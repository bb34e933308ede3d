"""One version of an index in this process: vectors, words and entries, each by what knows it best, and
snapshots of them in a folder."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from activities.backends.retrieval import local_search
from activities.backends.retrieval.local_parts import OpenParts, OpenTexts, Parts, opening
from activities.backends.retrieval.snapshots import LiveFolder, Snapshot, Snapshots
from activities.retrieval_ports import Engine, Keys, Vectors
from goatherd.contracts.retrieval import (
    Entry,
    Index,
    IndexSpec,
    SearchAnswer,
    SearchQuery,
    Version,
    chunk_key,
)
from goatherd.errors import GoatherdError, Invalid, Unavailable

_log = logging.getLogger(__name__)

T = TypeVar("T")


def open_engine(
    root: Path,
    index: Index,
    version: Version,
    *,
    fresh: bool = False,
    elastic_texts: OpenTexts | None = None,
) -> LocalEngine:
    """The engine of a version whose vectors are in this process, with what was last saved of it below `root`;
    `fresh`: with nothing. Blocks.

    Raises:
        ModelBroken: a library is missing.
        Unavailable: there is no room to work in, or no Elasticsearch where words are to be in it.
    """
    snapshots = Snapshots(root, index.id, version.number, version.spec)
    return LocalEngine(version.spec, snapshots, opening(elastic_texts), fresh=fresh)


class LocalEngine(Engine):
    """Its parts are used by one thread of its own, so that what it takes in and what it is asked never meet.

    What it works with is a copy in a folder of its own, thrown away with it: after a crash the next one
    begins with the last snapshot, and is given the entries since.
    """

    def __init__(
        self, spec: IndexSpec, snapshots: Snapshots, open_parts: OpenParts, *, fresh: bool = False
    ) -> None:
        """Opens what the last snapshot has, or nothing. Blocks.

        Raises:
            Unavailable: there is no folder to work in, or a part can't begin.
        """
        self._spec = spec
        self._snapshots = snapshots
        self._open_parts = open_parts
        self._unsure: Keys = np.empty(0, np.int64)
        self._saving = threading.Lock()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="index")
        try:
            # In the thread that uses them: some libraries bind things to the one that made them.
            begun = self._thread.submit(self._open, fresh)
            self._live, self._parts, self._saved = begun.result()
        except BaseException as error:
            self._thread.shutdown(wait=False)
            if isinstance(error, GoatherdError) or not isinstance(error, Exception):
                raise
            raise Unavailable(f"the index can't be opened: {_said(error)}") from error
        self._applied = 0 if self._saved is None else self._saved.applied
        self._memory_bytes = self._parts.memory_bytes

    @property
    def applied(self) -> int:
        return self._applied

    @property
    def memory_bytes(self) -> int:
        return self._memory_bytes

    @property
    def exact(self) -> bool:
        """Whether no nearer vector can be missed."""
        return self._parts.vectors is None or self._parts.vectors.exact

    async def apply(self, entries: Sequence[Entry], upto: int) -> None:
        await self._run(lambda: self._apply(entries, upto))

    async def search(self, queries: Sequence[SearchQuery]) -> list[SearchAnswer | GoatherdError]:
        return await self._run(
            lambda: local_search.search(self._spec, self._parts, self._applied, queries) if queries else []
        )

    async def save(self) -> None:
        """Searches wait only while the parts are written, not for the rest. Once begun it goes on to its end,
        whoever waits for it.

        Raises:
            Unavailable: the folder takes nothing, as a full one. The last snapshot is there as it was.
        """
        await self._told(asyncio.to_thread(self._save))

    async def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
            closing = self._thread.submit(self._close)
            self._thread.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(closing))

    async def _run(self, work: Callable[[], T]) -> T:
        return await self._told(asyncio.wrap_future(self._submit(work)))

    async def _told(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except GoatherdError:
            raise
        except Exception as error:
            _log.exception("an index fails")
            raise Unavailable(f"the index fails in this worker: {_said(error)}") from error

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        with self._closing:
            if self._closed:
                raise Unavailable("the index is closed in this worker")
            return self._thread.submit(work)

    def _save(self) -> None:
        with self._saving:
            if self._saved is not None and self._saved.applied == self._applied and self._snapshots.any:
                return
            with self._snapshots.writing() as writing:
                applied = self._submit(lambda: self._write(writing.folder)).result()
                self._saved = writing.commit(applied)

    # -- in the thread

    def _open(self, fresh: bool) -> tuple[LiveFolder, Parts, Snapshot | None]:
        live = self._snapshots.live()
        try:
            for attempt, snapshot in enumerate(() if fresh else self._snapshots.whole(), 1):
                try:
                    return live, self._begin(snapshot.folder, live.sub(str(attempt))), snapshot
                except GoatherdError:
                    raise
                except Exception as error:
                    # It is as if it was not there. It stays, for people to look at, until the next save.
                    _log.warning("the snapshot %s can't be opened: %s", snapshot.folder, _said(error))
            return live, self._begin(None, live.sub("0")), None
        except BaseException:
            live.remove()
            raise

    def _begin(self, folder: Path | None, live: Path) -> Parts:
        parts = self._open_parts(self._spec, folder, live)
        chunks = parts.table.counts[1]
        if parts.vectors is not None and parts.vectors.size != chunks:
            parts.close()
            raise ValueError(f"it has {parts.vectors.size} vectors of {chunks} chunks")
        return parts

    def _apply(self, entries: Sequence[Entry], upto: int) -> None:
        newest = {entry.doc: entry for entry in entries if entry.seq > self._applied}
        if newest:
            self._take_in(list(newest.values()))
            self._memory_bytes = self._parts.memory_bytes
        self._applied = max(self._applied, upto)

    def _take_in(self, entries: Sequence[Entry]) -> None:
        """What is new comes before what is old goes: if this ends in between, either is there, and whose it
        is, the table knows. What was touched then is looked through the next time."""
        parts = self._parts
        coming = [entry for entry in entries if not entry.deleted]
        vectors = self._vectors(coming) if parts.vectors is not None else None
        keys = np.array([chunk_key(one.seq, n) for one in coming for n in range(one.chunks)], np.int64)
        old = parts.table.keys([entry.doc for entry in entries])
        before, self._unsure = self._unsure, np.union1d(np.union1d(self._unsure, old), keys)
        if len(keys):
            if parts.vectors is not None and vectors is not None:
                parts.vectors.upsert(keys, vectors)
            if parts.texts is not None:
                parts.texts.upsert(keys, [text for entry in coming for text in entry.texts])
        parts.table.put(entries)
        gone = np.setdiff1d(old, keys) if not len(before) else self._nobodys(self._unsure)
        if len(gone):
            if parts.vectors is not None:
                parts.vectors.remove(gone)
            if parts.texts is not None:
                parts.texts.remove(gone)
        self._unsure = np.empty(0, np.int64)

    def _nobodys(self, keys: Keys) -> Keys:
        docs = self._parts.table.documents(keys.tolist())
        return keys[np.array([doc is None for doc in docs], np.bool_)]

    def _vectors(self, entries: Sequence[Entry]) -> Vectors:
        dimensions = self._spec.dimensions
        for entry in entries:
            if len(entry.vectors) != 4 * dimensions * entry.chunks:
                raise Invalid(f"what is kept of the document {entry.doc!r} has vectors of another length")
        data = entries[0].vectors if len(entries) == 1 else b"".join(entry.vectors for entry in entries)
        vectors = np.frombuffer(data, "<f4").reshape(-1, dimensions)
        if not np.isfinite(vectors).all():
            raise Invalid("what is kept of a document has vectors with infinite numbers, or NaN")
        return vectors

    def _write(self, folder: Path) -> int:
        if len(self._unsure):
            raise Unavailable("entries were taken in by half, and are to be taken in again")
        self._parts.save(folder)
        return self._applied

    def _close(self) -> None:
        try:
            self._parts.close()
        finally:
            self._live.remove()


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
