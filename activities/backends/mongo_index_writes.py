"""What is written of an index's documents and entries: by one transaction, or by several bounded ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from pymongo.asynchronous.client_session import AsyncClientSession

from activities.backends.index_standing import check_bounds, last_of_each, written_at
from activities.backends.mongo_index_documents import IndexDocuments
from activities.backends.mongo_index_entries import IndexEntries
from activities.backends.mongo_index_forms import deleted_fields, entry_fields, entry_key, some_of
from activities.backends.mongo_index_marks import IndexMarks
from activities.backends.mongo_index_transactions import Held, IndexTransactions
from goatherd.contracts.inference_work import Problem
from goatherd.contracts.retrieval import Document, DocumentIn, Entry

_AT_ONCE = 512
_BYTES_AT_ONCE = 8 << 20
"""Of one transaction: what is uncommitted lies in the store's cache, and one whose cache is full of that
stands still."""


class IndexWrites:
    """Raises `GoatherdError`s."""

    def __init__(
        self,
        transactions: IndexTransactions,
        documents: IndexDocuments,
        entries: IndexEntries,
        marks: IndexMarks,
        now: Callable[[], datetime],
    ) -> None:
        self._transactions = transactions
        self._documents = documents
        self._entries = entries
        self._marks = marks
        self._now = now

    async def put(self, index: str, documents: Sequence[DocumentIn]) -> list[Document] | None:
        check_bounds(documents)
        given = last_of_each([(one.id, one) for one in documents])

        async def work(held: Held, session: AsyncClientSession) -> dict[str, Document]:
            now = self._now()
            there = await self._documents.written(index, given, session)
            states = await self._entries.states(index, held.live, there, session)
            failed = []
            for (version, doc), state in states.items():
                held.no_more(version, state, there[doc].rev)
                if state.problem is not None:
                    failed.append(entry_key(index, version, doc))
            since = {id: there[id].created_at if id in there else None for id in given}
            written = {
                id: Document(
                    id=id,
                    rev=held.next_rev(),
                    text=one.text,
                    vector=one.vector,
                    metadata=one.metadata,
                    created_at=since[id] or now,
                    updated_at=written_at(now, since[id]),
                    todo=held.live,
                )
                for id, one in given.items()
            }
            held.count_documents(len(given) - len(there))
            await self._documents.write(index, list(written.values()), there, session)
            await self._entries.forgive(failed, session)
            return written

        written = await self._transactions.change(index, work)
        return None if written is None else [written[one.id] for one in documents]

    async def remove(self, index: str, docs: Sequence[str]) -> list[str] | None:
        removed: list[str] = []
        for some in some_of(dict.fromkeys(docs), _AT_ONCE):
            those = await self._remove(index, some)
            if those is None:
                return None
            removed += those
        return removed

    async def _remove(self, index: str, docs: list[str]) -> list[str] | None:
        async def work(held: Held, session: AsyncClientSession) -> list[str]:
            there = await self._documents.written(index, docs, session)
            gone = [doc for doc in docs if doc in there]
            states = await self._entries.states(index, held.live, gone, session)
            deleted, failed = [], []
            for version in held.live:
                for doc in gone:
                    state = states.get((version, doc))
                    if state is None:
                        continue
                    rev = there[doc].rev
                    held.no_more(version, state, rev)
                    if not state.deleted:
                        held.count_chunks(version, -state.chunks)
                        deleted.append(deleted_fields(index, version, held.next_seq(), doc, rev))
                    elif state.problem is not None:
                        failed.append(entry_key(index, version, doc))
            held.count_documents(-len(gone))
            await self._documents.delete(index, gone, session)
            await self._entries.write(deleted, {one["_id"] for one in deleted}, session)
            await self._entries.forgive(failed, session)
            return gone

        return await self._transactions.change(index, work)

    async def take_in(self, index: str, version: int, entries: Sequence[Entry]) -> int:
        kept = 0
        for some in _bounded(list(last_of_each([(entry.doc, entry) for entry in entries]).values())):
            kept += await self._take_in(index, version, some)
        return kept

    async def _take_in(self, index: str, version: int, entries: Sequence[Entry]) -> int:
        async def work(held: Held, session: AsyncClientSession) -> int:
            there = await self._documents.written(index, [entry.doc for entry in entries], session)
            current = [one for one in entries if one.doc in there and there[one.doc].rev == one.rev]
            states = await self._entries.states(index, [version], [one.doc for one in current], session)
            # What was cancelled while it was in hand stays so.
            failed = {doc for (_, doc), state in states.items() if state.has_failed(there[doc].rev)}
            current = [one for one in current if one.doc not in failed]
            states = {key: state for key, state in states.items() if key[1] not in failed}
            for (_, doc), state in states.items():
                held.no_more(version, state, there[doc].rev)
                if not state.deleted:
                    held.count_chunks(version, -state.chunks)
            fields = [entry_fields(index, version, held.next_seq(), entry) for entry in current]
            held.count_done(version, len(current))
            held.count_chunks(version, sum(entry.chunks for entry in current))
            await self._entries.write(fields, {entry_key(index, version, doc) for _, doc in states}, session)
            return len(current)

        return await self._transactions.change(index, work, version=version) or 0

    async def fail(self, index: str, version: int, failed: Sequence[tuple[str, int, Problem]]) -> None:
        problems = last_of_each([(doc, (rev, problem)) for doc, rev, problem in failed])
        for some in some_of(problems, _AT_ONCE):
            await self._fail(index, version, {doc: problems[doc] for doc in some})

    async def _fail(self, index: str, version: int, failed: dict[str, tuple[int, Problem]]) -> None:
        async def work(held: Held, session: AsyncClientSession) -> None:
            there = await self._documents.written(index, failed, session)
            current = {doc: one for doc, one in failed.items() if doc in there and there[doc].rev == one[0]}
            states = await self._entries.states(index, [version], current, session)
            for (_, doc), state in states.items():
                held.no_more(version, state, there[doc].rev)
                if not state.deleted:
                    held.count_chunks(version, -state.chunks)
            fields = [
                deleted_fields(index, version, held.next_seq(), doc, rev, problem)
                for doc, (rev, problem) in current.items()
            ]
            held.count_failed(version, len(current))
            await self._entries.write(fields, {entry_key(index, version, doc) for _, doc in states}, session)

        await self._transactions.change(index, work, version=version)

    async def forgive(self, index: str, version: int, docs: Sequence[str]) -> list[str]:
        """Lets documents that failed be to do again. Gives those that had."""
        again: list[str] = []
        for some in some_of(docs, _AT_ONCE):
            again += await self._forgive(index, version, some)
        return again

    async def _forgive(self, index: str, version: int, docs: list[str]) -> list[str]:
        async def work(held: Held, session: AsyncClientSession) -> list[str]:
            there = await self._documents.written(index, docs, session)
            states = await self._entries.states(index, [version], there, session)
            again = [doc for (_, doc), state in states.items() if state.has_failed(there[doc].rev)]
            held.count_failed(version, -len(again))
            await self._entries.forgive([entry_key(index, version, doc) for doc in again], session)
            if again:
                first = min(there[doc].rev for doc in again)
                await self._marks.go_back(index, version, first, session)
            return again

        return await self._transactions.change(index, work, version=version) or []


def _bounded(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """In parts of as much as a transaction should have."""
    some: list[Entry] = []
    size = 0
    for entry in entries:
        more = len(entry.vectors) + sum(map(len, entry.texts))
        if some and (len(some) == _AT_ONCE or size + more > _BYTES_AT_ONCE):
            yield some
            some, size = [], 0
        some.append(entry)
        size += more
    if some:
        yield some
