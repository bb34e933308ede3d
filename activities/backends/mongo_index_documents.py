"""The documents of indexes in MongoDB: one each, found by its id, in order of ids, and in order of `rev`.

The embedded server reads all that a range of an index holds, whatever the limit. So what is in order of
numbers is read by spans of these, and what is in order of ids from fence to fence (`mongo_index_fences`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pymongo import ASCENDING, DESCENDING, IndexModel, ReplaceOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.mongo_client import make_indexes
from activities.backends.mongo_index_forms import Fields, document_fields, document_key, some_of
from activities.backends.mongo_lists import between
from activities.ports import Page
from goatherd.contracts.retrieval import Document

if TYPE_CHECKING:
    from activities.backends.mongo_index_fences import Fences


@dataclass(frozen=True, slots=True)
class Written:
    """Which revision of a document is there, and since when there is one."""

    rev: int
    created_at: datetime


class IndexDocuments:
    """Raises the driver's errors: its callers translate them."""

    def __init__(self, database: AsyncDatabase[Fields]) -> None:
        self._documents: AsyncCollection[Fields] = database["index_documents"]

    async def prepare(self) -> None:
        by_rev = IndexModel([("index", ASCENDING), ("rev", ASCENDING)])
        by_id = IndexModel([("index", ASCENDING), ("doc", ASCENDING)], unique=True)
        await make_indexes({self._documents: [by_rev, by_id]})

    # -- in transactions

    async def written(
        self, index: str, docs: Iterable[str], session: AsyncClientSession | None = None
    ) -> dict[str, Written]:
        """Those of them that are there."""
        fields = {"doc": 1, "rev": 1, "created_at": 1}
        return {
            one["doc"]: Written(one["rev"], one["created_at"])
            for one in await self._find(index, docs, fields, session)
        }

    async def write(
        self, index: str, documents: Sequence[Document], there: Collection[str], session: AsyncClientSession
    ) -> None:
        """`there`: ids of those that take another one's place."""
        all_fields = [document_fields(index, document) for document in documents]
        new = [one for one in all_fields if one["doc"] not in there]
        old = [ReplaceOne({"_id": one["_id"]}, one) for one in all_fields if one["doc"] in there]
        if new:
            await self._documents.insert_many(new, ordered=False, session=session)
        if old:
            await self._documents.bulk_write(old, ordered=False, session=session)

    async def delete(self, index: str, docs: Iterable[str], session: AsyncClientSession) -> None:
        for some in some_of(document_key(index, doc) for doc in docs):
            await self._documents.delete_many({"_id": {"$in": some}}, session=session)

    async def delete_span(self, index: str, after: int, upto: int, session: AsyncClientSession) -> int:
        where = {"index": index, "rev": {"$gt": after, "$lte": upto}}
        return (await self._documents.delete_many(where, session=session)).deleted_count

    # -- read

    async def read(self, index: str, docs: Iterable[str]) -> list[Fields]:
        """Those of them that are there, in their order."""
        ids = list(dict.fromkeys(docs))
        found = {one["doc"]: one for one in await self._find(index, ids, None, None)}
        return [found[doc] for doc in ids if doc in found]

    async def page(self, index: str, page: Page, fences: Fences) -> list[Fields]:
        """By id."""
        bounds, direction, turn = between(page)
        found: list[Fields] = []
        for some in fences.ranges(bounds, page.limit, backwards=direction == DESCENDING):
            where = {"index": index, **({"doc": some} if some else {})}
            cursor = self._documents.find(where).sort("doc", direction).limit(page.limit - len(found))
            found += await cursor.to_list()
            if len(found) >= page.limit:
                break
        return found[::-1] if turn else found

    async def at(self, index: str, revs: Iterable[int]) -> list[str]:
        """Ids of documents whose present revision is one of these."""
        found: list[str] = []
        for some in some_of(revs):
            cursor = self._documents.find({"index": index, "rev": {"$in": some}}, {"doc": 1})
            found += [one["doc"] async for one in cursor]
        return found

    async def span(self, index: str, after: int, upto: int) -> list[tuple[int, str]]:
        """Revisions, in their order, and whose they are."""
        where = {"index": index, "rev": {"$gt": after, "$lte": upto}}
        cursor = self._documents.find(where, {"rev": 1, "doc": 1}).sort("rev", ASCENDING)
        return [(one["rev"], one["doc"]) async for one in cursor]

    async def _find(
        self, index: str, docs: Iterable[str], fields: Fields | None, session: AsyncClientSession | None
    ) -> list[Fields]:
        found: list[Fields] = []
        for some in some_of(document_key(index, doc) for doc in docs):
            found += await self._documents.find({"_id": {"$in": some}}, fields, session=session).to_list()
        return found
