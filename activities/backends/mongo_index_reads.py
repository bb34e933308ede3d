"""How documents of an index stand: what is read of documents and entries together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.memory import page_of
from activities.backends.mongo_index_documents import IndexDocuments
from activities.backends.mongo_index_entries import IndexEntries
from activities.backends.mongo_index_forms import Fields, to_document
from activities.backends.mongo_index_marks import IndexMarks
from activities.ports import Page
from goatherd.contracts.retrieval import Counts, Document

_FIRST_SPAN = 64
_MOST_SPAN = 1 << 14
_GROWS = 4
_WORTH_A_MARK = 256
"""Revisions that the next look need not go through again."""
_MOST_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Standing:
    """Of an index, when a look begins."""

    live: list[int]
    rev: int
    seq: int


class IndexReads:
    """Raises the driver's errors: its callers translate them."""

    def __init__(
        self,
        database: AsyncDatabase[Fields],
        documents: IndexDocuments,
        entries: IndexEntries,
        marks: IndexMarks,
    ) -> None:
        self._indexes: AsyncCollection[Fields] = database["indexes"]
        self._documents = documents
        self._entries = entries
        self._marks = marks

    async def standing(self, index: str) -> Standing | None:
        found = await self._indexes.find_one({"_id": index}, {"live": 1, "rev": 1, "seq": 1})
        return None if found is None else Standing(found["live"], found["rev"], found["seq"])

    async def counts(self, index: str) -> Counts:
        found = await self._indexes.find_one({"_id": index}, {"live": 1, "documents": 1, "tally": 1})
        if found is None:
            return Counts()
        serving, newest = (found["tally"].get(str(found["live"][n]), {}) for n in (0, -1))
        failed = newest.get("failed", 0)
        pending = found["documents"] - newest.get("done", 0) - failed
        chunks = serving.get("chunks", 0)
        return Counts(documents=found["documents"], pending=pending, failed=failed, chunks=chunks)

    async def unfinished(self) -> list[tuple[str, str]]:
        """See `IndexStore.unfinished`. Looks at every index, and at none of their documents."""
        wasted = dict.fromkeys(await self._marks.wasted())
        fields = {"owner": 1, "live": 1, "documents": 1, "tally": 1, "paused": 1}
        found: list[tuple[str, str]] = []
        async for one in self._indexes.find({}, fields):
            has_waste = one["_id"] in wasted
            wasted.pop(one["_id"], None)
            if not one["paused"] and (has_waste or len(one["live"]) > 1 or _lacks_any(one)):
                found.append((one["_id"], one["owner"]))
        return found + [(id, "") for id in wasted]

    async def pending(self, index: str, version: int) -> int:
        """Of one version."""
        fields = {"live": 1, "documents": 1, f"tally.{version}": 1}
        found = await self._indexes.find_one({"_id": index, "live": version}, fields)
        if found is None:
            return 0
        tally = found["tally"].get(str(version), {})
        pending: int = found["documents"] - tally.get("done", 0) - tally.get("failed", 0)
        return pending

    # -- documents

    async def read(self, index: str, docs: Iterable[str]) -> list[Document]:
        standing = await self.standing(index)
        if standing is None:
            return []
        return await self._stand(index, standing.live, await self._documents.read(index, docs))

    async def documents(self, index: str, page: Page, failed: bool | None) -> list[Document]:
        standing = await self.standing(index)
        if standing is None:
            return []
        live = standing.live
        if failed is None:
            return await self._stand(index, live, await self._documents.page(index, page))
        if failed:
            docs = {doc for version in live for doc in await self._entries.failed(index, version, page)}
            found = await self._documents.read(index, page_of(docs, page, str))
            stood = await self._stand(index, live, found)
            return [document for document in stood if document.error is not None]
        return await self._without_error(index, live, page)

    async def _without_error(self, index: str, live: Sequence[int], page: Page) -> list[Document]:
        """Goes on through pages until there are enough."""
        backwards = page.before is not None and page.after is None
        found: list[Document] = []
        here = page
        while True:
            some = await self._stand(index, live, await self._documents.page(index, here))
            good = [document for document in some if document.error is None]
            found = [*good, *found] if backwards else [*found, *good]
            if len(found) >= page.limit:
                return found[-page.limit :] if backwards else found[: page.limit]
            if len(some) < here.limit:
                return found
            more = min(_GROWS * here.limit, max(_MOST_PAGE, page.limit))
            if backwards:
                here = replace(here, before=some[0].id, limit=more)
            else:
                here = replace(here, after=some[-1].id, limit=more)

    async def _stand(self, index: str, live: Sequence[int], found: Sequence[Fields]) -> list[Document]:
        states = await self._entries.states(index, live, [one["doc"] for one in found])
        return [to_document(one, live, states) for one in found]

    # -- what is to do

    async def todo(self, index: str, version: int, limit: int) -> list[tuple[int, str]]:
        """Revisions and whose they are, from the version's mark on, which goes up to where the first one is
        found."""
        mark = await self._marks.mark(index, version)
        standing = await self.standing(index)
        if standing is None or version not in standing.live:
            return []
        at, span = mark.rev, max(limit, _FIRST_SPAN)
        found: list[tuple[int, str]] = []
        while at < standing.rev and len(found) < limit:
            upto = min(at + span, standing.rev)
            written = await self._documents.span(index, at, upto)
            states = await self._entries.states(index, [version], [doc for _, doc in written])
            for rev, doc in written:
                state = states.get((version, doc))
                if state is None or not (state.is_done(rev) or state.has_failed(rev)):
                    found.append((rev, doc))
            if len(written) * _GROWS < upto - at:
                span = min(span * _GROWS, max(_MOST_SPAN, limit))
            at = upto
        settled = found[0][0] - 1 if found else at
        if settled - mark.rev >= (_WORTH_A_MARK if found else 1):
            await self._marks.advance(index, version, settled, mark.turn)
        return found[:limit]


def _lacks_any(index: Fields) -> bool:
    """Whether a version has something to do."""
    tallies = [index["tally"].get(str(version), {}) for version in index["live"]]
    return any(one.get("done", 0) + one.get("failed", 0) < index["documents"] for one in tallies)
