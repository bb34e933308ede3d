"""Searching: a text becomes a vector, a worker finds chunks, and the store tells what they say."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from api.index_lookup import IndexLookup
from api.index_vectors import check_vector, embed
from api.inference_port import Inference
from goatherd.coalesce import Coalescer
from goatherd.contracts.filters import read_filter
from goatherd.contracts.model import Json
from goatherd.contracts.retrieval import (
    Entry,
    FoundText,
    Hit,
    Index,
    IndexSpec,
    Mode,
    SearchAnswer,
    SearchQuery,
    SearchStep,
    StepFound,
    Version,
)
from goatherd.errors import DeadlineExceeded, GoatherdError, Invalid, NotFound
from goatherd.security.access import Principal

if TYPE_CHECKING:
    from activities.retrieval_ports import IndexStore

_TIMES = 3
"""How often one is searched again because documents changed between the search and the reading."""


class Searching(Protocol):
    """What finds chunks in one version of an index: a worker that has it."""

    async def search(
        self,
        index: Index,
        version: Version,
        query: SearchQuery,
        *,
        caller: str,
        timeout_s: float | None = None,
    ) -> SearchAnswer:
        """The best, of all that was committed when it was asked.

        Raises:
            Invalid: the query can't be answered.
            NotFound: there is no such version any more.
            Unavailable, TooManyRequests, DeadlineExceeded: not now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Search:
    """What somebody looks for. `query.mode` counts only if `mode` is not None."""

    query: SearchQuery
    mode: Mode | None
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Found:
    """What was found, and how it was searched. `complete`: no hit is left out because its document changed
    each time."""

    hits: list[FoundText]
    mode: Mode
    exact: bool
    complete: bool
    seq: int


class IndexSearch:
    """Searches of one process. Belongs to one event loop."""

    def __init__(
        self, store: IndexStore, lookup: IndexLookup, inference: Inference, searching: Searching
    ) -> None:
        self._store = store
        self._lookup = lookup
        self._inference = inference
        self._searching = searching
        self._reads: Coalescer[tuple[str, int, tuple[str, ...]], dict[str, Entry]] = Coalescer(self._read)

    async def search(self, principal: Principal, called: str, search: Search) -> Found:
        """Raises, besides what searching and making a vector of the text raise:
        NotFound: there is no such index.
        DeadlineExceeded: there was no answer in time.
        """
        try:
            async with asyncio.timeout(search.timeout_s):
                return await self._search(principal, called, search)
        except TimeoutError:
            raise DeadlineExceeded(
                f"There was no answer within {search.timeout_s:g} s: ask again, or with more `timeout_s`."
            ) from None

    async def step(self, order: SearchStep) -> StepFound:
        """As `search`, for a workflow."""
        search = Search(order.query, order.mode, order.timeout_s)
        found = await self.search(Principal(order.owner), order.index, search)
        return StepFound(hits=found.hits, seq=found.seq, exact=found.exact, complete=found.complete)

    async def _search(self, principal: Principal, called: str, search: Search) -> Found:
        index = await self._lookup.find(principal, called)
        query, ready_for = search.query, None
        for last in (False,) * (_TIMES - 1) + (True,):
            spec = index.serving.spec
            if ready_for != spec:
                # Once, unless a version that is made otherwise has begun to serve.
                query = await self._ready(principal, spec, search)
                ready_for = spec
            try:
                answer = await self._searching.search(
                    index, index.serving, query, caller=principal.id, timeout_s=search.timeout_s
                )
            except NotFound:
                now = await self._lookup.find(principal, called)
                if last or now.serving.number == index.serving.number:
                    raise
                index = now
                continue
            hits = await self._texts(index, answer.hits)
            complete = len(hits) == len(answer.hits)
            if complete or last:
                return Found(hits, query.mode, answer.exact, complete, answer.seq)
            # Documents have changed since: what is found now is what they say now.
            index = await self._lookup.find(principal, called)
        raise AssertionError("the last time returns or raises")

    async def _ready(self, principal: Principal, spec: IndexSpec, search: Search) -> SearchQuery:
        """The query with its mode and, if it needs one, a vector. Raises `Invalid`."""
        query = search.query
        check_filter(query.filter)
        if query.vector is not None:
            if not spec.dimensions:
                raise Invalid("The index has no vectors: give a `text`.", pointer="/vector")
            check_vector(query.vector, spec)
        mode = mode_of(spec, query, search.mode)
        vector = query.vector
        if mode == "lexical":
            vector = None
        elif vector is None:
            assert spec.model is not None
            vector = await embed(
                self._inference,
                spec.model,
                query.text or "",
                caller=principal.id,
                timeout_s=search.timeout_s,
                expected=spec.model_print,
            )
            check_vector(vector, spec, pointer="/text")
        text = query.text if mode != "dense" or query.highlight else None
        return query.model_copy(update={"mode": mode, "vector": vector, "text": text})

    async def _texts(self, index: Index, hits: Sequence[Hit]) -> list[FoundText]:
        """What was found, in its order, but for what is not as it was when it was found."""
        if not hits:
            return []
        docs = tuple(dict.fromkeys(hit.doc for hit in hits))
        entries = await self._reads.submit((index.id, index.serving.number, docs))
        found = []
        for hit in hits:
            entry = entries.get(hit.doc)
            if entry is None or entry.seq != hit.seq or hit.chunk >= entry.chunks:
                continue
            start, end = entry.spans[hit.chunk]
            found.append(
                FoundText(
                    doc=hit.doc,
                    chunk=hit.chunk,
                    score=hit.score,
                    text=entry.texts[hit.chunk],
                    start=start,
                    end=end,
                    metadata=entry.metadata,
                    dense=hit.dense,
                    lexical=hit.lexical,
                    highlights=hit.highlights,
                )
            )
        return found

    async def _read(
        self, wanted: Sequence[tuple[str, int, tuple[str, ...]]]
    ) -> Sequence[dict[str, Entry] | BaseException]:
        docs: defaultdict[tuple[str, int], dict[str, None]] = defaultdict(dict)
        for index, version, some in wanted:
            docs[index, version].update(dict.fromkeys(some))

        async def one(index: str, version: int) -> dict[str, Entry] | BaseException:
            try:
                return await self._store.hits(index, version, list(docs[index, version]))
            except GoatherdError as error:
                return error

        found = await asyncio.gather(*(one(*key) for key in docs))
        by_key = dict(zip(docs, found, strict=True))
        return [by_key[index, version] for index, version, _ in wanted]


def check_filter(given: Json | None) -> None:
    """Raises `Invalid` unless it is a filter; the pointer is within the request."""
    if given is None:
        return
    try:
        read_filter(given)
    except Invalid as error:
        message = error.message
        raise Invalid(
            f"{message[:1].upper()}{message[1:]}.", pointer=f"/filter{error.pointer or ''}"
        ) from None


def mode_of(spec: IndexSpec, query: SearchQuery, wished: Mode | None) -> Mode:
    """How it is searched. Raises `Invalid` if it can't be so, or at all."""
    words = spec.lexical != "off" and query.text is not None
    vectors = bool(spec.dimensions) and (
        query.vector is not None or (query.text is not None and spec.model is not None)
    )
    if wished is None:
        if words or vectors:
            return "hybrid" if words and vectors else "lexical" if words else "dense"
        raise Invalid(_why_not(spec, query), pointer="/vector" if query.text is not None else "/text")
    if (wished != "lexical" and not vectors) or (wished != "dense" and not words):
        raise Invalid(f"Can't be {wished!r}: {_lacks(spec, query, wished)}.", pointer="/mode")
    return wished


def _why_not(spec: IndexSpec, query: SearchQuery) -> str:
    if query.text is None:
        return "Say what to look for: give a `text`, or a `vector`."
    return f"The index has no model, and finds no words: give a `vector` of {spec.dimensions} numbers."


def _lacks(spec: IndexSpec, query: SearchQuery, wished: Mode) -> str:
    if wished != "lexical":
        if not spec.dimensions:
            return "the index has no vectors"
        if query.vector is None and spec.model is None:
            return "the index has no model, so give a `vector`"
        if query.vector is None and query.text is None:
            return "give a `text` or a `vector`"
    return "the index finds no words (`lexical` is off)" if spec.lexical == "off" else "give a `text`"
