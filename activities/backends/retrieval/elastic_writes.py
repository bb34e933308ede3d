"""How the workers that have one version of an index keep it in Elasticsearch together.

Any of them may be slow, stop anywhere, or do again what another has done; what is found is what the newest
entries say. That rests on three things, all of which the server decides:

- Every document has a *head*: the entry that it is at, how many chunks that has, and the entries before it
  whose chunks may still be there. A head only moves forward, and only from what its writer has seen. An entry
  is announced in the head before any chunk of it is written: who comes later knows what is to be taken away.
- A chunk is written with its entry's number as the server's version of it, and taken away by a mark in its
  place that has the later entry's number: whoever writes the chunk after that is refused. Marks are removed
  when nobody can be so late any more.
- `applied` is written when all that it speaks of can be found, and only grows.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from elasticsearch import AsyncElasticsearch, BadRequestError, ConflictError

from activities.backends.retrieval.elastic_bulk import Action, Seen, action, write_all
from activities.backends.retrieval.elastic_client import IndexLost, elastic_errors, refusal
from activities.backends.retrieval.elastic_filters import keywords
from activities.backends.retrieval.elastic_schema import to_write, version_body
from activities.backends.retrieval.elastic_words import without_marks
from goatherd.contracts.filters import flat_values
from goatherd.contracts.retrieval import Entry, IndexSpec, chunk_key
from goatherd.errors import Unavailable

_APPLIED = "applied"
_DOCUMENTS = 500
"""So many, and so many of their bytes, are announced and written together."""
_BYTES = 32 << 20
_TRIES = 20
LATE_S = 600.0
"""Who has not written all by then begins anew, from what others have done meanwhile."""
MARKS_S = 3_600.0
"""How long marks stay: longer than anybody can be late."""


@dataclass(frozen=True, slots=True)
class _Old:
    """An entry whose chunks may still be there."""

    seq: int
    chunks: int


@dataclass(frozen=True, slots=True)
class _Head:
    seq: int
    before: list[_Old]
    chunks: int
    seen: Seen


@dataclass(frozen=True, slots=True)
class _Announced:
    entry: Entry
    before: list[_Old]
    seen: Seen


class ElasticWriter:
    """One version of an index. Belongs to one event loop, like its client."""

    def __init__(
        self,
        client: AsyncElasticsearch,
        name: str,
        spec: IndexSpec,
        clock: Callable[[], float] = lambda: time.time_ns() / 1e9,
    ) -> None:
        self._client = client
        self._name = name
        self._alias = to_write(name)
        self._spec = spec
        self._clock = clock

    async def create(self) -> None:
        """Makes the index, if there is none."""
        with elastic_errors():
            if await self._client.indices.exists(index=self._name):
                return
            try:
                await self._client.indices.create(index=self._name, **version_body(self._name, self._spec))
            except BadRequestError as error:
                if error.error != "resource_already_exists_exception":
                    raise

    async def applied(self) -> int | None:
        """All entries up to this number can be found. None: there is no such index."""
        try:
            with elastic_errors():
                answer = await self._client.mget(index=self._name, ids=[_APPLIED])
                (found,) = answer["docs"]
                if "error" in found:
                    raise refusal(404, found)
        except IndexLost:
            return None
        number: int = found["_source"]["state"][_APPLIED] if found["found"] else 0
        return number

    async def write(self, entries: Sequence[Entry], applied: int, upto: int) -> None:
        """Takes in the entries after `applied`, which is what the server has said. Then all up to `upto` can
        be found.

        Raises:
            IndexLost: there is no such index any more.
            Unavailable: the server does not take it in now. Some of it may be there.
        """
        newest = {entry.doc: entry for entry in entries if entry.seq > applied}
        with elastic_errors():
            try:
                async with asyncio.timeout(LATE_S):
                    for part in _parts(list(newest.values())):
                        await self._write_part(part)
                    if newest:
                        await self._client.indices.refresh(index=self._name)
                    await self._advance(upto)
            except TimeoutError as error:
                raise Unavailable("Elasticsearch takes too long to take entries in: see its log") from error

    async def purge(self) -> None:
        """Removes the marks that nobody needs any more."""
        applied = await self.applied()
        if not applied:
            return
        late = int((self._clock() - MARKS_S) * 1000)
        old = [{"range": {"gone": {"lt": late}}}, {"range": {"at": {"lte": applied}}}]
        with elastic_errors():
            await self._client.delete_by_query(
                index=self._name, query={"bool": {"filter": old}}, conflicts="proceed"
            )

    # -- one part

    async def _write_part(self, entries: list[Entry]) -> None:
        announced = await self._announce(entries)
        actions: list[Action] = []
        done: list[Action] = []
        for one in announced:
            actions.extend(self._chunks(one.entry))
            # After what comes in their place: others may let it be seen meanwhile.
            for old in one.before:
                actions.extend(
                    action(
                        "index",
                        self._alias,
                        str(chunk_key(old.seq, n)),
                        self._mark(one.entry),
                        version=one.entry.seq,
                        version_type="external",
                    )
                    for n in range(old.chunks)
                )
            if one.before or not one.entry.chunks:
                done.append(self._head(one.entry, [], one.seen, done=True))
        # What is refused is there already, or something newer is.
        await write_all(self._client, actions)
        await write_all(self._client, done)

    async def _announce(self, entries: list[Entry]) -> list[_Announced]:
        """Moves the documents' heads forward to these entries. Gives those that are then there, and what is
        to be taken away for them; the others have moved further."""
        announced: list[_Announced] = []
        for _ in range(_TRIES):
            asked: list[tuple[Entry, list[_Old]]] = []
            actions: list[Action] = []
            for entry, head in zip(entries, await self._heads(entries), strict=True):
                if head is not None and head.seq > entry.seq:
                    continue
                if head is not None and head.seq == entry.seq:
                    announced.append(_Announced(entry, head.before, head.seen))
                    continue
                before = [] if head is None else [_Old(head.seq, head.chunks), *head.before]
                before = [old for old in before if old.chunks]
                asked.append((entry, before))
                actions.append(self._head(entry, before, None if head is None else head.seen))
            entries = []
            written = await write_all(self._client, actions)
            for (entry, before), seen in zip(asked, written, strict=True):
                if seen is None:
                    entries.append(entry)
                else:
                    announced.append(_Announced(entry, before, seen))
            if not entries:
                return announced
        raise Unavailable("other workers keep writing the same documents into Elasticsearch")

    async def _heads(self, entries: list[Entry]) -> list[_Head | None]:
        if not entries:
            return []
        answer = await self._client.mget(index=self._name, ids=[_head_id(entry.doc) for entry in entries])
        heads: list[_Head | None] = []
        for found in answer["docs"]:
            if "error" in found:
                raise refusal(404, found)
            if not found["found"]:
                heads.append(None)
                continue
            state = found["_source"]["state"]
            before = [_Old(seq, chunks) for seq, chunks in state["before"]]
            seen = Seen(found["_seq_no"], found["_primary_term"])
            heads.append(_Head(state["seq"], before, state["chunks"], seen))
        return heads

    def _head(self, entry: Entry, before: list[_Old], seen: Seen | None, *, done: bool = False) -> Action:
        state = {
            "seq": entry.seq,
            "chunks": entry.chunks,
            "before": [(old.seq, old.chunks) for old in before],
        }
        document: dict[str, Any] = {"state": state}
        if done and not entry.chunks:
            # From here on it is a mark: only there against those who are late.
            document |= self._mark(entry)
        id = _head_id(entry.doc)
        if seen is None:
            return action("create", self._alias, id, document)
        return action("index", self._alias, id, document, **seen.as_given())

    def _mark(self, entry: Entry) -> dict[str, int]:
        return {"gone": int(self._clock() * 1000), "at": entry.seq}

    def _chunks(self, entry: Entry) -> list[Action]:
        if not entry.chunks:
            return []
        names, facts = keywords(flat_values(entry.metadata))
        rows = None
        if self._spec.dimensions:
            rows = np.frombuffer(entry.vectors, "<f4").reshape(entry.chunks, -1)
        made: list[Action] = []
        for n, text in enumerate(entry.texts):
            key = chunk_key(entry.seq, n)
            document: dict[str, Any] = {"doc": entry.doc, "key": key, "names": names, "facts": facts}
            if self._spec.lexical != "off":
                document["text"] = without_marks(text)
            if rows is not None:
                document["vector"] = np.ascontiguousarray(rows[n])
            external = {"version": entry.seq, "version_type": "external"}
            made.append(action("index", self._alias, str(key), document, **external))
        return made

    async def _advance(self, upto: int) -> None:
        if upto <= 0:
            return
        with suppress(ConflictError):  # Others were faster.
            await self._client.index(
                index=self._alias,
                id=_APPLIED,
                document={"state": {_APPLIED: upto}},
                version=upto,
                version_type="external_gte",
                require_alias=True,
            )


def _head_id(doc: str) -> str:
    """Names of documents may be longer than ids there."""
    return f"head-{hashlib.sha256(doc.encode()).hexdigest()}"


def _parts(entries: list[Entry]) -> list[list[Entry]]:
    parts: list[list[Entry]] = [[]]
    size = 0
    for entry in entries:
        length = len(entry.vectors) * 3 + sum(map(len, entry.texts))
        if parts[-1] and (len(parts[-1]) == _DOCUMENTS or size + length > _BYTES):
            parts.append([])
            size = 0
        parts[-1].append(entry)
        size += length
    return parts if parts[0] else []
