"""The app over indexes in memory, with a searcher and an ingestion that do at once what workers do."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import httpx

from activities.backends.memory_indexes import MemoryIndexStore
from api.index_parts import Indexes, MakeSearching
from goatherd.contracts.filters import flat_values, meets, read_filter
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.inference_work import Problem
from goatherd.contracts.retrieval import (
    Document,
    DocumentIn,
    Entry,
    Hit,
    Index,
    IndexSpec,
    Rank,
    SearchAnswer,
    SearchQuery,
    Version,
)
from goatherd.errors import NotFound
from tests.api.conftest import BASE, WithLifespan, build, make_settings
from tests.api.fake_inference import MOST_DIMENSIONS, FakeInference, given
from tests.api.fakes import FakeKeys, FakeTemporal

MODEL = "feature-extraction"
"""Of the fake's models, the one for vectors: it has four dimensions."""


def packed(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


class WatchedStore(MemoryIndexStore):
    """Tells when documents are written."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Condition()

    async def put(self, index: str, documents: Sequence[DocumentIn]) -> list[Document] | None:
        kept = await super().put(index, documents)
        async with self._changed:
            self._changed.notify_all()
        return kept

    async def until_there(self, index: str, doc: str, rev: int = 1) -> None:
        """Returns when it is written, in this revision or a later one."""
        async with asyncio.timeout(20), self._changed:
            while (found := await self.document(index, doc)) is None or found.rev < rev:
                await self._changed.wait()


@dataclass
class Asked:
    """One search that came to the searcher."""

    version: int
    query: SearchQuery
    caller: str


@dataclass
class FakeSearching:
    """Looks at every entry that the store has. `before_reading` is done between search and answer."""

    store: MemoryIndexStore
    asked: list[Asked] = field(default_factory=list)
    fault: Exception | None = None
    before_reading: list[Any] = field(default_factory=list)
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    """Released once for each search."""

    async def search(
        self,
        index: Index,
        version: Version,
        query: SearchQuery,
        *,
        caller: str,
        timeout_s: float | None = None,
    ) -> SearchAnswer:
        self.asked.append(Asked(version.number, query, caller))
        self.arrived.release()
        if self.fault is not None:
            raise self.fault
        now = await self.store.index(index.id)
        if now is None or version.number not in [one.number for one in now.versions]:
            raise NotFound("There is no such version.")
        entries = [one async for part in self.store.entries(index.id, version.number) for one in part]
        if query.filter is not None:
            wanted = read_filter(query.filter)
            entries = [one for one in entries if meets(wanted, flat_values(one.metadata))]
        hits = _ranked(entries, version.spec, query)[: query.k]
        answer = SearchAnswer(hits=hits, seq=now.seq, exact=True)
        if self.before_reading:
            await self.before_reading.pop(0)()
        return answer


def _ranked(entries: Sequence[Entry], spec: IndexSpec, query: SearchQuery) -> list[Hit]:
    lists: dict[str, list[tuple[float, Entry, int]]] = {}
    chunks = [(entry, n) for entry in entries for n in range(entry.chunks)]
    if query.mode != "lexical":
        assert query.vector is not None
        lists["dense"] = [(_cosine(query.vector, _row(entry, n, spec)), entry, n) for entry, n in chunks]
    if query.mode != "dense":
        assert query.text is not None
        words = set(query.text.lower().split())
        scored = [(float(len(words & set(e.texts[n].lower().split()))), e, n) for e, n in chunks]
        lists["lexical"] = [one for one in scored if one[0]]
    ranks: dict[tuple[str, int], dict[str, Rank]] = {}
    for name, found in lists.items():
        found.sort(key=lambda one: (-one[0], one[1].doc))
        for rank, (score, entry, n) in enumerate(found, 1):
            ranks.setdefault((entry.doc, n), {})[name] = Rank(rank=rank, score=score)
    seqs = {entry.doc: entry.seq for entry in entries}
    hits = []
    for (doc, n), places in ranks.items():
        score = sum(1 / (query.rank_constant + place.rank) for place in places.values())
        told: dict[str, Any] = dict(places) if query.explain else {}
        marked = ["\x02goats\x03"] if query.highlight else []
        hits.append(Hit(doc=doc, chunk=n, seq=seqs[doc], score=score, highlights=marked, **told))
    return sorted(hits, key=lambda hit: (-hit.score, hit.doc))


def _row(entry: Entry, n: int, spec: IndexSpec) -> bytes:
    width = 4 * spec.dimensions
    return entry.vectors[n * width : (n + 1) * width]


def _cosine(one: bytes, other: bytes) -> float:
    a, b = (struct.unpack(f"<{len(x) // 4}f", x) for x in (one, other))
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return float(dot / (math.hypot(*a) * math.hypot(*b)))


@dataclass
class IndexHouse:
    """An app that runs, and what it runs on."""

    http: httpx.AsyncClient
    store: WatchedStore
    inference: FakeInference
    searching: FakeSearching
    temporal: FakeTemporal
    keys: FakeKeys
    indexes: Indexes

    async def create(self, name: str = "docs", **wish: Any) -> dict[str, Any]:
        answer = await self.http.post("/index", json={"name": name, **wish})
        assert answer.status_code == 201, answer.text
        return cast("dict[str, Any]", answer.json())

    async def put(self, doc: str, index: str = "docs", **fields: Any) -> dict[str, Any]:
        answer = await self.http.put(f"/index/{index}/doc/{doc}", json=fields)
        assert answer.status_code == 202, answer.text
        return cast("dict[str, Any]", answer.json())

    async def index(self, name: str = "docs") -> Index:
        found = await self.store.named("local", name)
        assert found is not None
        return found

    async def take_in(self, name: str = "docs", *, failing: Sequence[str] = ()) -> None:
        """Has every version take in what it has to do: each text is one chunk."""
        index = await self.index(name)
        for version in index.versions:
            todo = await self.store.todo(index.id, version.number, 1_000)
            for document in await self.store.read(index.id, todo):
                if document.id in failing:
                    problem = Problem(code="invalid", message="It is no good.")
                    await self.store.fail(index.id, version.number, [(document.id, document.rev, problem)])
                    continue
                size = float(len(document.text))
                made = packed(*(size / (n + 1) for n in range(MOST_DIMENSIONS)))
                entry = Entry(
                    doc=document.id,
                    rev=document.rev,
                    texts=[document.text],
                    spans=[(0, len(document.text))],
                    vectors=(made if version.spec.model else document.vector) or b"",
                    metadata=document.metadata,
                )
                await self.store.take_in(index.id, version.number, [entry])

    def nudged(self) -> list[str]:
        """The ingestions that were told of work."""
        assert all(signal == "nudge" for _, signal, _ in self.temporal.started)
        return [id for id, _, _ in self.temporal.started]


def searched_by(searching: FakeSearching) -> MakeSearching:
    @asynccontextmanager
    async def make(_: object) -> AsyncIterator[FakeSearching]:
        yield searching

    return make


@asynccontextmanager
async def index_house(**changes: Any) -> AsyncIterator[IndexHouse]:
    inference, store = FakeInference(), WatchedStore()
    inference.add("chatty", Task.CONVERSATIONAL)
    searching = FakeSearching(store)

    app, _, _, keys, _, temporal = build(
        make_settings(**changes),
        make_inference=lambda _: given(inference),
        indexes=store,
        make_searching=searched_by(searching),
    )
    async with WithLifespan(app) as running:
        transport = httpx.ASGITransport(running, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
            indexes = running.state["parts"].indexes
            yield IndexHouse(http, store, inference, searching, temporal, keys, indexes)
