"""How documents of an index stand: what is read of documents and entries together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.memory import page_of
from activities.backends.mongo_index_documents import IndexDocuments
from activities.backends.mongo_index_entries import IndexEntries
from activities.backends.mongo_index_fences import Fences, IndexFences
from activities.backends.mongo_index_forms import Fields, some_of, to_document
from activities.backends.mongo_index_marks import IndexMarks
from activities.ports import Page
from goatherd.contracts.retrieval import Counts, Document

_FIRST_SPAN = 64
_MOST_SPAN = 1 << 14
_GROWS = 4
_WORTH_A_MARK = 256
"""Revisions that the next look need not go through again."""
_MOST_PAGE = 1_000
_BEHIND_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Standing:
    """Of an index, when a look begins."""

    live: list[int]
    rev: int
    seq: int
    documents: int


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
        self._fences = IndexFences(documents)

    async def standing(self, index: str) -> Standing | None:
        fields = {"live": 1, "rev": 1, "seq": 1, "documents": 1}
        found = await self._indexes.find_one({"_id": index}, fields)
        if found is None:
            return None
        return Standing(found["live"], found["rev"], found["seq"], found["documents"])

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
        """See `IndexStore.unfinished`. Looks at every index, and at documents only of those that are being
        built and have failures."""
        wasted = dict.fromkeys(await self._marks.wasted())
        fields = {"owner": 1, "live": 1, "documents": 1, "tally": 1, "paused": 1}
        found: list[tuple[str, str]] = []
        for one in await self._indexes.find({}, fields).to_list():
            has_waste = one["_id"] in wasted
            wasted.pop(one["_id"], None)
            if not one["paused"] and (has_waste or _lacks_any(one) or await self._may_be_built(one)):
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

    async def _may_be_built(self, index: Fields) -> bool:
        """Whether a version is being built, and not only failures keep it from serving; of an index that has
        nothing to do."""
        if len(index["live"]) == 1:
            return False
        newest = index["live"][-1]
        if not _tally(index, newest).get("failed", 0):
            return True
        return not await self.lacking(index["_id"], newest, 1)

    async def lacking(self, index: str, version: int, limit: int) -> list[str]:
        """What a version has done it has in a revision that is as new as can be: only what it has not is
        looked at."""
        fields = {"live": 1, "rev": 1, "documents": 1, "tally": 1}
        one = await self._indexes.find_one({"_id": index, "live": version}, fields)
        if one is None or _tally(one, version).get("done", 0) >= one["documents"]:
            return []
        found: list[str] = []
        if _tally(one, version).get("failed", 0):
            fences = await self._fences.of(index, one["rev"], one["documents"])
            # Usually the first ones say it.
            first = await self._entries.failed_page(index, version, Page(limit=_BEHIND_AT_ONCE), fences)
            found = await self._behind(index, one["live"][0], version, first)
            if len(found) < limit and len(first) == _BEHIND_AT_ONCE:
                found = await self._behind_failed(index, one["live"][0], version, limit)
            if len(found) >= limit:
                return found[:limit]
        mark = await self._marks.mark(index, version)
        async for _, pending in self._look(index, version, mark.rev, one["rev"], _FIRST_SPAN):
            found += await self._behind(index, one["live"][0], version, [doc for _, doc in pending])
            if len(found) >= limit:
                break
        return found[:limit]

    async def _behind_failed(self, index: str, serving: int, version: int, limit: int) -> list[str]:
        # What failed in the serving version, too, can't be found there.
        common = frozenset(await self._entries.failed(index, serving))
        failed = [doc for doc in await self._entries.failed(index, version) if doc not in common]
        found: list[str] = []
        for some in some_of(failed, _BEHIND_AT_ONCE):
            found += await self._behind(index, serving, version, some)
            if len(found) >= limit:
                break
        return found

    async def _behind(self, index: str, serving: int, version: int, docs: Sequence[str]) -> list[str]:
        """Those of them that the serving version has, and this one not as new."""
        states = await self._entries.states(index, [serving, version], docs)
        served = {doc: state for (number, doc), state in states.items() if number == serving}
        found: list[str] = []
        for doc in docs:
            old, new = served.get(doc), states.get((version, doc))
            if old is None or old.deleted:
                continue
            if new is None or new.deleted or new.rev < old.rev:
                found.append(doc)
        return found

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
        fences = await self._fences.of(index, standing.rev, standing.documents)
        if failed is None:
            return await self._stand(index, live, await self._documents.page(index, page, fences))
        if failed:
            pages = [await self._entries.failed_page(index, version, page, fences) for version in live]
            docs = {doc for some in pages for doc in some}
            found = await self._documents.read(index, page_of(docs, page, str))
            stood = await self._stand(index, live, found)
            return [document for document in stood if document.error is not None]
        return await self._without_error(index, live, page, fences)

    async def _without_error(
        self, index: str, live: Sequence[int], page: Page, fences: Fences
    ) -> list[Document]:
        """Goes on through pages until there are enough."""
        backwards = page.before is not None and page.after is None
        found: list[Document] = []
        here = page
        while True:
            some = await self._stand(index, live, await self._documents.page(index, here, fences))
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
        at, found = mark.rev, list[tuple[int, str]]()
        async for upto, some in self._look(index, version, at, standing.rev, max(limit, _FIRST_SPAN)):
            at = upto
            found += some
            if len(found) >= limit:
                break
        settled = found[0][0] - 1 if found else at
        if settled - mark.rev >= (_WORTH_A_MARK if found else 1):
            await self._marks.advance(index, version, settled, mark.turn)
        return found[:limit]

    async def _look(
        self, index: str, version: int, after: int, upto: int, span: int
    ) -> AsyncIterator[tuple[int, list[tuple[int, str]]]]:
        """What a version has not taken in, by spans of revisions: how far it has come, and what it found."""
        most = max(_MOST_SPAN, span)
        while after < upto:
            end = min(after + span, upto)
            written = await self._documents.span(index, after, end)
            states = await self._entries.states(index, [version], [doc for _, doc in written])
            found: list[tuple[int, str]] = []
            for rev, doc in written:
                state = states.get((version, doc))
                if state is None or not (state.is_done(rev) or state.has_failed(rev)):
                    found.append((rev, doc))
            if len(written) * _GROWS < end - after:
                span = min(span * _GROWS, most)
            yield end, found
            after = end


def _tally(index: Fields, version: int) -> dict[str, int]:
    found: dict[str, int] = index["tally"].get(str(version), {})
    return found


def _lacks_any(index: Fields) -> bool:
    """Whether a version has something to do."""
    tallies = [_tally(index, version) for version in index["live"]]
    return any(one.get("done", 0) + one.get("failed", 0) < index["documents"] for one in tallies)
