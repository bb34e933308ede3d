"""The entries of indexes in MongoDB: one for what a version has of a document, in order of numbers.

Read by spans of numbers, for the embedded server reads all that a range of an index holds, whatever the
limit. A span is as wide as gives a few megabytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from pymongo import ASCENDING, DESCENDING, IndexModel, ReplaceOne, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.mongo_client import make_indexes
from activities.backends.mongo_index_forms import (
    FORGIVEN,
    STATE_FIELDS,
    Fields,
    States,
    entry_key,
    some_of,
    to_entry,
    to_state,
)
from activities.backends.mongo_lists import between
from activities.ports import Page
from goatherd.contracts.retrieval import Entry

if TYPE_CHECKING:
    from activities.backends.mongo_index_fences import Fences

_FIRST_SPAN = 64
_MOST_SPAN = 1 << 16
_GROWS = 4
_BATCH_BYTES = 4 << 20
_LEAST_BYTES = 256
"""Of an entry, for how wide the next span is."""


class IndexEntries:
    """Raises the driver's errors: its callers translate them."""

    def __init__(self, database: AsyncDatabase[Fields]) -> None:
        self._entries: AsyncCollection[Fields] = database["index_entries"]

    async def prepare(self) -> None:
        by_seq = IndexModel([("index", ASCENDING), ("version", ASCENDING), ("seq", ASCENDING)])
        failed = IndexModel([("failed", ASCENDING)], sparse=True)
        await make_indexes({self._entries: [by_seq, failed]})

    # -- in transactions

    async def states(
        self,
        index: str,
        versions: Iterable[int],
        docs: Collection[str],
        session: AsyncClientSession | None = None,
    ) -> States:
        """What these versions have of documents."""
        found: States = {}
        for some in some_of(entry_key(index, version, doc) for version in versions for doc in docs):
            cursor = self._entries.find({"_id": {"$in": some}}, STATE_FIELDS, session=session)
            found.update({(one["version"], one["doc"]): to_state(one) async for one in cursor})
        return found

    async def write(
        self, entries: Sequence[Fields], there: Collection[str], session: AsyncClientSession
    ) -> None:
        """`there`: keys of those that take another one's place."""
        new = [one for one in entries if one["_id"] not in there]
        old = [ReplaceOne({"_id": one["_id"]}, one) for one in entries if one["_id"] in there]
        if new:
            await self._entries.insert_many(new, ordered=False, session=session)
        if old:
            await self._entries.bulk_write(old, ordered=False, session=session)

    async def forgive(self, keys: Iterable[str], session: AsyncClientSession) -> None:
        """Lets entries that say that a document failed say nothing of it."""
        updates = [UpdateOne({"_id": key}, FORGIVEN) for key in keys]
        if updates:
            await self._entries.bulk_write(updates, ordered=False, session=session)

    async def delete_span(
        self, index: str, version: int, after: int, upto: int, session: AsyncClientSession
    ) -> int:
        where = {"index": index, "version": version, "seq": {"$gt": after, "$lte": upto}}
        return (await self._entries.delete_many(where, session=session)).deleted_count

    # -- read

    async def failed(self, index: str, version: int) -> list[str]:
        """The ids of documents that this version can't take in, by id."""
        cursor = self._entries.find(_failures(index, version, {}), {"doc": 1}).sort("failed", ASCENDING)
        return [one["doc"] async for one in cursor]

    async def failed_page(self, index: str, version: int, page: Page, fences: Fences) -> list[str]:
        """A page of them."""
        bounds, direction, turn = between(page)
        found: list[str] = []
        for some in fences.ranges(bounds, page.limit, backwards=direction == DESCENDING):
            where = _failures(index, version, some)
            cursor = self._entries.find(where, {"doc": 1}).sort("failed", direction)
            found += [one["doc"] async for one in cursor.limit(page.limit - len(found))]
            if len(found) >= page.limit:
                break
        return found[::-1] if turn else found

    async def follow(self, index: str, version: int, after: int, upto: int) -> AsyncIterator[list[Entry]]:
        """Entries after a number, and up to one, in batches of some megabytes."""
        span = _FIRST_SPAN
        where: Fields = {"index": index, "version": version}
        if not after:
            where["deleted"] = {"$exists": False}
        while after < upto:
            end = min(after + span, upto)
            cursor = self._entries.find({**where, "seq": {"$gt": after, "$lte": end}}).sort("seq", ASCENDING)
            batch: list[Entry] = []
            total = size = 0
            async for one in cursor:
                batch.append(to_entry(one))
                size += _size(one)
                if size >= _BATCH_BYTES:
                    yield batch
                    batch, total, size = [], total + size, 0
            if batch:
                yield batch
            after = end
            if total + size > _BATCH_BYTES:
                span = max(span // _GROWS, 1)
            elif (total + size) * _GROWS < _BATCH_BYTES:
                span = min(span * _GROWS, _MOST_SPAN)

    async def texts(self, index: str, version: int, docs: Iterable[str]) -> dict[str, Entry]:
        """What this version has of these documents, without vectors."""
        found: dict[str, Entry] = {}
        for some in some_of(entry_key(index, version, doc) for doc in docs):
            where = {"_id": {"$in": some}, "deleted": {"$exists": False}}
            cursor = self._entries.find(where, {"vectors": 0})
            found.update({one["doc"]: to_entry(one) async for one in cursor})
        return found


def _failures(index: str, version: int, bounds: Fields) -> Fields:
    """What chooses the failures of a version within bounds of ids."""
    prefix = entry_key(index, version, "")
    keys = {name: f"{prefix}{doc}" for name, doc in bounds.items()}
    keys.setdefault("$gt", prefix)
    if "$lte" not in keys:
        keys.setdefault("$lt", f"{prefix[:-1]};")
    return {"failed": keys}


def _size(fields: Fields) -> int:
    return _LEAST_BYTES + len(fields.get("vectors", b"")) + sum(map(len, fields.get("texts", ())))
