"""Indexes, their documents and entries in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from activities.backends.index_standing import (
    CANCELLED,
    check_bounds,
    error_of,
    last_of_each,
    numbered,
    numbers,
    to_do,
    written_at,
)
from activities.backends.memory import page_of
from activities.ports import Page
from goatherd.contracts.inference_work import Problem
from goatherd.contracts.model import Json
from goatherd.contracts.retrieval import Counts, Document, DocumentIn, Entry, Index, Version
from goatherd.payloads import utc_now

_BATCH = 256


@dataclass(slots=True)
class _Standing:
    """A document, and which versions have taken its present revision in, or failed to."""

    document: Document
    done: set[int] = field(default_factory=set)
    errors: dict[int, Problem] = field(default_factory=dict)


@dataclass(slots=True)
class _Kept:
    """An index with all that it has. `documents`: in order of `rev`. `last`: the greatest number that a
    version had."""

    index: Index
    last: int
    rev: int = 0
    documents: dict[str, _Standing] = field(default_factory=dict)
    entries: dict[int, dict[str, Entry]] = field(default_factory=dict)

    @property
    def live(self) -> list[int]:
        return numbers(self.index)

    def change(self, **fields: object) -> Index:
        self.index = self.index.model_copy(update=fields)
        return self.index

    def keep(self, version: int, entry: Entry) -> None:
        seq = self.index.seq + 1
        self.change(seq=seq)
        self.entries.setdefault(version, {})[entry.doc] = entry.model_copy(update={"seq": seq})

    def delete(self, version: int, doc: str, rev: int) -> None:
        """Notes that a version has a document no more, if it had it."""
        had = self.entries.get(version, {}).get(doc)
        if had is not None and not had.deleted:
            self.keep(version, Entry(doc=doc, rev=rev, deleted=True))

    def read(self, standing: _Standing) -> Document:
        live = self.live
        todo = to_do(live, standing.done, standing.errors)
        error = error_of(live, standing.errors)
        return standing.document.model_copy(update={"todo": todo, "error": error})

    def to_do(self, version: int) -> list[str]:
        return [
            doc
            for doc, one in self.documents.items()
            if version not in one.done and version not in one.errors
        ]

    def lacking(self, version: int) -> list[str]:
        served = self.entries.get(self.index.serving.number, {})
        built = self.entries.get(version, {})
        found = [
            doc
            for doc in self.documents
            if (old := served.get(doc)) is not None
            and not old.deleted
            and ((new := built.get(doc)) is None or new.deleted or new.rev < old.rev)
        ]
        failed = [doc for doc in found if version in self.documents[doc].errors]
        return sorted(failed) + [doc for doc in found if version not in self.documents[doc].errors]

    def is_stuck(self) -> bool:
        """Whether a version is being built that only failures keep from serving."""
        if self.index.building is None:
            return False
        lacking = self.lacking(self.index.building.number)[:1]
        return any(self.index.building.number in self.documents[doc].errors for doc in lacking)


class MemoryIndexStore:
    """`IndexStore` in memory."""

    def __init__(self, *, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self._indexes: dict[str, _Kept] = {}
        self._dropped: dict[str, _Kept] = {}

    async def prepare(self) -> None:
        """Nothing to do."""

    # -- indexes

    async def create(self, index: Index) -> Index:
        there = await self.named(index.owner, index.name)
        if there is None:
            there = self._indexes.setdefault(index.id, _Kept(index, max(numbers(index)))).index
        return there

    async def index(self, id: str) -> Index | None:
        kept = self._indexes.get(id)
        return None if kept is None else kept.index

    async def named(self, owner: str, name: str) -> Index | None:
        return next((one for one in self._of(owner) if one.name == name), None)

    async def indexes(self, owner: str, page: Page) -> list[Index]:
        return page_of(self._of(owner), page, lambda index: index.name)

    async def set_paused(self, id: str, paused: bool) -> Index | None:
        kept = self._indexes.get(id)
        return None if kept is None else kept.change(paused=paused, updated_at=self._now())

    async def set_metadata(self, id: str, metadata: Json) -> Index | None:
        kept = self._indexes.get(id)
        return None if kept is None else kept.change(metadata=metadata, updated_at=self._now())

    async def drop(self, id: str) -> bool:
        kept = self._indexes.pop(id, None)
        if kept is not None:
            self._dropped[id] = kept
        return kept is not None

    async def sweep(self, id: str, most: int = 1_000) -> bool:
        kept = self._indexes.get(id) or self._dropped.get(id)
        if kept is None:
            return False
        live = kept.live if id in self._indexes else []
        for version in [one for one in kept.entries if one not in live]:
            most -= _remove_some(kept.entries[version], most)
            if kept.entries[version]:
                return True
            del kept.entries[version]
        if id in self._dropped:
            _remove_some(kept.documents, most)
            if kept.documents:
                return True
            del self._dropped[id]
        return False

    async def unfinished(self) -> list[tuple[str, str]]:
        found = [(id, "") for id in self._dropped]
        for id, kept in self._indexes.items():
            waste = any(version not in kept.live for version in kept.entries)
            todo = any(kept.to_do(version) for version in kept.live)
            built = kept.index.building is not None and not kept.is_stuck()
            if not kept.index.paused and (waste or todo or built):
                found.append((id, kept.index.owner))
        return found

    # -- documents

    async def put(self, index: str, documents: Sequence[DocumentIn]) -> list[Document] | None:
        check_bounds(documents)
        kept = self._indexes.get(index)
        if kept is None:
            return None
        now = self._now()
        given: dict[str, Document] = {}
        for id, one in last_of_each([(one.id, one) for one in documents]).items():
            kept.rev += 1
            before = kept.documents.pop(id, None)
            since = before.document.created_at if before is not None else None
            standing = _Standing(
                Document(
                    id=id,
                    rev=kept.rev,
                    text=one.text,
                    vector=one.vector,
                    metadata=one.metadata,
                    created_at=since or now,
                    updated_at=written_at(now, since),
                )
            )
            kept.documents[id] = standing
            given[id] = kept.read(standing)
        return [given[one.id] for one in documents]

    async def remove(self, index: str, docs: Sequence[str]) -> list[str] | None:
        kept = self._indexes.get(index)
        if kept is None:
            return None
        there = [doc for doc in dict.fromkeys(docs) if doc in kept.documents]
        for doc in there:
            rev = kept.documents.pop(doc).document.rev
            for version in kept.live:
                kept.delete(version, doc, rev)
        return there

    async def document(self, index: str, doc: str) -> Document | None:
        return next(iter(await self.read(index, [doc])), None)

    async def documents(self, index: str, page: Page, *, failed: bool | None = None) -> list[Document]:
        kept = self._indexes.get(index)
        found = [] if kept is None else map(kept.read, kept.documents.values())
        chosen = (one for one in found if failed is None or failed is (one.error is not None))
        return page_of(chosen, page, lambda document: document.id)

    async def counts(self, index: str) -> Counts:
        kept = self._indexes.get(index)
        if kept is None:
            return Counts()
        newest = kept.live[-1]
        return Counts(
            documents=len(kept.documents),
            pending=len(kept.to_do(newest)),
            failed=sum(newest in one.errors for one in kept.documents.values()),
            chunks=sum(one.chunks for one in kept.entries.get(kept.index.serving.number, {}).values()),
        )

    # -- taking in

    async def todo(self, index: str, version: int, limit: int) -> list[str]:
        kept = self._having(index, version)
        return [] if kept is None else kept.to_do(version)[:limit]

    async def read(self, index: str, docs: Sequence[str]) -> list[Document]:
        kept = self._indexes.get(index)
        if kept is None:
            return []
        return [kept.read(kept.documents[doc]) for doc in dict.fromkeys(docs) if doc in kept.documents]

    async def take_in(self, index: str, version: int, entries: Sequence[Entry]) -> int:
        kept = self._having(index, version)
        if kept is None:
            return 0
        taken = 0
        for doc, entry in last_of_each([(entry.doc, entry) for entry in entries]).items():
            standing = kept.documents.get(doc)
            if standing is None or standing.document.rev != entry.rev or version in standing.errors:
                continue
            kept.keep(version, entry)
            standing.done.add(version)
            taken += 1
        return taken

    async def fail(self, index: str, version: int, failed: Sequence[tuple[str, int, Problem]]) -> None:
        kept = self._having(index, version)
        if kept is None:
            return
        problems = last_of_each([(doc, (rev, problem)) for doc, rev, problem in failed])
        for doc, (rev, problem) in problems.items():
            standing = kept.documents.get(doc)
            if standing is not None and standing.document.rev == rev:
                standing.errors[version] = problem
                standing.done.discard(version)
                kept.keep(version, Entry(doc=doc, rev=rev, deleted=True))

    async def retry(self, index: str) -> int:
        kept = self._indexes.get(index)
        if kept is None:
            return 0
        again = [one for one in kept.documents.values() if error_of(kept.live, one.errors) is not None]
        for one in again:
            one.errors.clear()
        return len(again)

    async def cancel(self, index: str) -> int:
        kept = self._indexes.get(index)
        if kept is None:
            return 0
        cancelled: set[str] = set()
        for version in kept.live:
            docs = kept.to_do(version)
            cancelled.update(docs)
            revs = [(doc, kept.documents[doc].document.rev, CANCELLED) for doc in docs]
            await self.fail(index, version, revs)
        return len(cancelled)

    # -- versions

    async def build(self, id: str, version: Version) -> Index | None:
        kept = self._indexes.get(id)
        if kept is None or version.number in kept.live:
            return None if kept is None else kept.index
        new = numbered(version, kept.last)
        kept.last = new.number
        return kept.change(building=new, updated_at=self._now())

    async def missing(self, index: str, version: int) -> int:
        kept = self._having(index, version)
        if kept is None:
            return 0
        entries = kept.entries.get(version, {})
        lacking = [
            one
            for doc, one in kept.documents.items()
            if version not in one.errors
            and ((entry := entries.get(doc)) is None or entry.deleted or entry.rev != one.document.rev)
        ]
        for one in lacking:
            one.done.discard(version)
        return len(lacking)

    async def lacking(self, index: str, version: int, limit: int) -> list[str]:
        kept = self._having(index, version)
        return [] if kept is None else kept.lacking(version)[:limit]

    async def swap(self, id: str, version: int, *, seq: int | None = None) -> Index | None:
        kept = self._indexes.get(id)
        if kept is None or (seq is not None and seq != kept.index.seq):
            return None if kept is None else kept.index
        if kept.index.building is not None and kept.index.building.number == version:
            kept.change(serving=kept.index.building, building=None, updated_at=self._now())
        return kept.index

    async def abandon(self, id: str, version: int) -> Index | None:
        kept = self._indexes.get(id)
        if kept is not None and kept.index.building is not None and kept.index.building.number == version:
            kept.change(building=None, updated_at=self._now())
        return None if kept is None else kept.index

    # -- following

    async def seq(self, id: str) -> int | None:
        kept = self._indexes.get(id)
        return None if kept is None else kept.index.seq

    async def entries(
        self, index: str, version: int, *, after: int = 0, upto: int | None = None
    ) -> AsyncIterator[list[Entry]]:
        kept = self._indexes.get(index)
        found = [] if kept is None else list(kept.entries.get(version, {}).values())
        found = [
            entry
            for entry in sorted(found, key=lambda entry: entry.seq)
            if entry.seq > after and (upto is None or entry.seq <= upto) and not (entry.deleted and not after)
        ]
        for start in range(0, len(found), _BATCH):
            yield found[start : start + _BATCH]

    async def hits(self, index: str, version: int, docs: Sequence[str]) -> dict[str, Entry]:
        kept = self._indexes.get(index)
        found = {} if kept is None else kept.entries.get(version, {})
        return {
            doc: found[doc].model_copy(update={"vectors": b""})
            for doc in dict.fromkeys(docs)
            if doc in found and not found[doc].deleted
        }

    # --

    def _of(self, owner: str) -> list[Index]:
        return [kept.index for kept in self._indexes.values() if kept.index.owner == owner]

    def _having(self, index: str, version: int) -> _Kept | None:
        kept = self._indexes.get(index)
        return kept if kept is not None and version in kept.live else None


def _remove_some(kept: dict[str, Entry] | dict[str, _Standing], most: int) -> int:
    some = list(islice(kept, most))
    for name in some:
        del kept[name]
    return len(some)
