"""Indexes in MongoDB: one document an index, changed by transactions only.

Documents and entries belong to an index's id, which is never used again, and not to its name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime

from pydantic_core import to_json
from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from activities.backends.index_standing import CANCELLED, numbered, numbers
from activities.backends.mongo_client import make_indexes, store_errors
from activities.backends.mongo_index_documents import IndexDocuments
from activities.backends.mongo_index_entries import IndexEntries
from activities.backends.mongo_index_forms import (
    Fields,
    index_fields,
    to_index,
    version_fields,
)
from activities.backends.mongo_index_marks import DOCUMENTS, IndexMarks, Waste
from activities.backends.mongo_index_reads import IndexReads
from activities.backends.mongo_index_transactions import Held, IndexTransactions
from activities.backends.mongo_index_writes import IndexWrites
from activities.backends.mongo_lists import between
from activities.backends.mongo_transactions import in_transaction
from activities.ports import Page
from goatherd.contracts.inference_work import Problem
from goatherd.contracts.model import Json
from goatherd.contracts.retrieval import Counts, Document, DocumentIn, Entry, Index, Version
from goatherd.payloads import utc_now

_SWEEP_SPAN = 256
_SWEEP_SPANS = 64
"""Most that one sweep looks through, if there is nothing in them."""
_CANCELLED_AT_ONCE = 512


class MongoIndexStore:
    """`IndexStore` on MongoDB, which has transactions if it is a replica set.

    What the index has already costs `put`, `take_in`, `counts` and `missing` nothing, and `todo` only what
    was done since the first that is still to do was written; nor a page of documents, but for a sample of
    these, which a process reads anew when a fourth of them was written. `cancel` and `retry` go by
    transactions of 512 documents: one that is cut off has done a part, and goes on when it is called again.
    """

    def __init__(self, database: AsyncDatabase[Fields], *, now: Callable[[], datetime] = utc_now) -> None:
        self._client = database.client
        self._indexes: AsyncCollection[Fields] = database["indexes"]
        self._documents = IndexDocuments(database)
        self._entries = IndexEntries(database)
        self._marks = IndexMarks(database)
        self._reads = IndexReads(database, self._documents, self._entries, self._marks)
        self._transactions = IndexTransactions(database)
        self._writes = IndexWrites(self._transactions, self._documents, self._entries, self._marks, now)
        self._now = now

    async def prepare(self) -> None:
        """Makes collections and indexes. Idempotent."""
        await self._documents.prepare()
        await self._entries.prepare()
        by_name = IndexModel([("owner", ASCENDING), ("name", ASCENDING)], unique=True)
        await make_indexes({self._indexes: [by_name]})

    # -- indexes

    async def create(self, index: Index) -> Index:
        async def work(session: AsyncClientSession) -> None:
            await self._indexes.insert_one(index_fields(index), session=session)
            await self._marks.create(index.id, numbers(index), session)

        there = await self.named(index.owner, index.name)
        while there is None:
            with store_errors():
                try:
                    await in_transaction(self._client, work)
                    return index
                except DuplicateKeyError:
                    pass
            there = await self.named(index.owner, index.name) or await self.index(index.id)
        return there

    async def index(self, id: str) -> Index | None:
        return await self._one({"_id": id})

    async def named(self, owner: str, name: str) -> Index | None:
        return await self._one({"owner": owner, "name": name})

    async def _one(self, where: Fields) -> Index | None:
        with store_errors():
            found = await self._indexes.find_one(where)
        return None if found is None else to_index(found)

    async def indexes(self, owner: str, page: Page) -> list[Index]:
        bounds, direction, turn = between(page)
        where: Fields = {"owner": owner, **({"name": bounds} if bounds else {})}
        with store_errors():
            found = await self._indexes.find(where).sort("name", direction).limit(page.limit).to_list()
        return [to_index(one) for one in (found[::-1] if turn else found)]

    async def set_paused(self, id: str, paused: bool) -> Index | None:
        return await self._set(id, {"paused": paused})

    async def set_metadata(self, id: str, metadata: Json) -> Index | None:
        return await self._set(id, {"metadata": to_json(metadata).decode()})

    async def _set(self, id: str, changed: Fields) -> Index | None:
        async def work(held: Held, session: AsyncClientSession) -> Index:
            return self._changed(held, changed)

        return await self._transactions.change(id, work)

    def _changed(self, held: Held, changed: Fields) -> Index:
        held.changed |= {**changed, "updated_at": self._now()}
        return to_index({**held.fields, **held.changed})

    async def drop(self, id: str) -> bool:
        async def work(held: Held, session: AsyncClientSession) -> bool:
            upto = {str(version): held.seq for version in held.live} | {DOCUMENTS: held.rev}
            await self._marks.drop(id, upto, session)
            await self._indexes.delete_one({"_id": id}, session=session)
            return True

        return await self._transactions.change(id, work) or False

    async def sweep(self, id: str, most: int = 1_000) -> bool:
        removed = 0
        with store_errors():
            for _ in range(_SWEEP_SPANS):
                waste = await self._marks.waste(id)
                if waste is None:
                    await self._marks.clean(id)
                    return False
                if removed >= most:
                    return True
                removed += await self._sweep_span(id, waste, min(_SWEEP_SPAN, most - removed))
        return True

    async def unfinished(self) -> list[tuple[str, str]]:
        with store_errors():
            return await self._reads.unfinished()

    async def _sweep_span(self, id: str, waste: Waste, span: int) -> int:
        upto = min(waste.after + span, waste.upto)

        async def work(session: AsyncClientSession) -> int:
            await self._marks.swept(id, Waste(waste.what, upto, waste.upto), session)
            if waste.what == DOCUMENTS:
                return await self._documents.delete_span(id, waste.after, upto, session)
            return await self._entries.delete_span(id, int(waste.what), waste.after, upto, session)

        return await in_transaction(self._client, work)

    # -- documents

    async def put(self, index: str, documents: Sequence[DocumentIn]) -> list[Document] | None:
        return await self._writes.put(index, documents)

    async def remove(self, index: str, docs: Sequence[str]) -> list[str] | None:
        return await self._writes.remove(index, docs)

    async def document(self, index: str, doc: str) -> Document | None:
        return next(iter(await self.read(index, [doc])), None)

    async def documents(self, index: str, page: Page, *, failed: bool | None = None) -> list[Document]:
        with store_errors():
            return await self._reads.documents(index, page, failed)

    async def counts(self, index: str) -> Counts:
        with store_errors():
            return await self._reads.counts(index)

    # -- taking in

    async def todo(self, index: str, version: int, limit: int) -> list[str]:
        with store_errors():
            return [doc for _, doc in await self._reads.todo(index, version, limit)]

    async def read(self, index: str, docs: Sequence[str]) -> list[Document]:
        with store_errors():
            return await self._reads.read(index, docs)

    async def take_in(self, index: str, version: int, entries: Sequence[Entry]) -> int:
        return await self._writes.take_in(index, version, entries)

    async def fail(self, index: str, version: int, failed: Sequence[tuple[str, int, Problem]]) -> None:
        await self._writes.fail(index, version, failed)

    async def retry(self, index: str) -> int:
        again: set[str] = set()
        with store_errors():
            standing = await self._reads.standing(index)
            for version in [] if standing is None else standing.live:
                failed = await self._entries.failed(index, version)
                again.update(await self._writes.forgive(index, version, failed))
        return len(again)

    async def cancel(self, index: str) -> int:
        """What was written before it began."""
        cancelled: set[str] = set()
        with store_errors():
            standing = await self._reads.standing(index)
            if standing is None:
                return 0
            for version in standing.live:
                while todo := await self._reads.todo(index, version, _CANCELLED_AT_ONCE):
                    old = [(doc, rev, CANCELLED) for rev, doc in todo if rev <= standing.rev]
                    if not old:
                        break
                    await self._writes.fail(index, version, old)
                    cancelled.update(doc for doc, _, _ in old)
        return len(cancelled)

    # -- versions

    async def build(self, id: str, version: Version) -> Index | None:
        async def work(held: Held, session: AsyncClientSession) -> Index:
            index = to_index(held.fields)
            if version.number in held.live:
                return index
            new = numbered(version, held.fields["last"])
            if index.building is not None:
                await self._discard(held, index.building.number, session)
            await self._marks.begin(id, new.number, session)
            held.changed["last"] = new.number
            return self._changed(held, version_fields(index.model_copy(update={"building": new})))

        return await self._transactions.change(id, work)

    async def missing(self, index: str, version: int) -> int:
        """As it is counted with each write. If the looks that begin at the mark would not find them, they
        begin anew."""
        with store_errors():
            pending = await self._reads.pending(index, version)
            lost = pending > 0 and not await self._reads.todo(index, version, 1)
        if lost:

            async def work(held: Held, session: AsyncClientSession) -> None:
                await self._marks.go_back(index, version, 1, session)

            await self._transactions.change(index, work, version=version)
        return pending

    async def lacking(self, index: str, version: int, limit: int) -> list[str]:
        with store_errors():
            return await self._reads.lacking(index, version, limit)

    async def swap(self, id: str, version: int, *, seq: int | None = None) -> Index | None:
        async def work(held: Held, session: AsyncClientSession) -> Index:
            index = to_index(held.fields)
            if seq is not None and seq != held.seq:
                return index
            if index.building is None or index.building.number != version:
                return index
            await self._discard(held, index.serving.number, session)
            swapped = index.model_copy(update={"serving": index.building, "building": None})
            return self._changed(held, version_fields(swapped))

        return await self._transactions.change(id, work)

    async def abandon(self, id: str, version: int) -> Index | None:
        async def work(held: Held, session: AsyncClientSession) -> Index:
            index = to_index(held.fields)
            if index.building is None or index.building.number != version:
                return index
            await self._discard(held, version, session)
            return self._changed(held, version_fields(index.model_copy(update={"building": None})))

        return await self._transactions.change(id, work)

    async def _discard(self, held: Held, version: int, session: AsyncClientSession) -> None:
        """A version is no more."""
        held.forgotten.append(f"tally.{version}")
        await self._marks.discard(held.id, {str(version): held.seq}, session)

    # -- following

    async def seq(self, id: str) -> int | None:
        with store_errors():
            standing = await self._reads.standing(id)
        return None if standing is None else standing.seq

    async def entries(
        self, index: str, version: int, *, after: int = 0, upto: int | None = None
    ) -> AsyncIterator[list[Entry]]:
        newest = await self.seq(index)
        if newest is None:
            return
        with store_errors():
            end = newest if upto is None else min(upto, newest)
            async for batch in self._entries.follow(index, version, after, end):
                yield batch

    async def hits(self, index: str, version: int, docs: Sequence[str]) -> dict[str, Entry]:
        with store_errors():
            if await self._reads.standing(index) is None:
                return {}
            return await self._entries.texts(index, version, dict.fromkeys(docs))
