"""An index in a worker: loaded when it is searched, as far as the store is, and put out for others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from activities.backends.machine import Machine
from activities.backends.memory_indexes import MemoryIndexStore
from activities.backends.model_host import ModelHost
from activities.backends.model_memory import Room
from activities.backends.retrieval import hosting
from activities.backends.retrieval.hosting import IndexProvider
from activities.inference_ports import Item
from goatherd.contracts.inference_tasks import NoParameters, Task
from goatherd.contracts.retrieval import (
    DocumentIn,
    Entry,
    Index,
    IndexSpec,
    Version,
    hosted_name,
    hosted_spec,
)
from goatherd.contracts.search import Hit, SearchAnswer, SearchQuery
from goatherd.errors import GoatherdError, Invalid, NotFound, Unavailable
from goatherd.settings import Settings

INDEX = "idx_01k9w2x6hj3v8m5r7t0q4n1b2c"
MB = 1 << 20


class ListEngine:
    """`Engine` that finds every document that has all of the text, and takes a megabyte for each."""

    shared = False

    def __init__(self) -> None:
        self.applied = 0
        self.entries: dict[str, Entry] = {}
        self.batches: list[int] = []
        self.saved: list[int] = []
        self.closed = False
        self.took_in = asyncio.Event()

    @property
    def memory_bytes(self) -> int:
        return MB * len(self.entries)

    async def apply(self, entries: Sequence[Entry], upto: int) -> None:
        for entry in entries:
            if entry.deleted:
                self.entries.pop(entry.doc, None)
            else:
                self.entries[entry.doc] = entry
        self.applied = max(self.applied, upto)
        self.took_in.set()

    async def search(self, queries: Sequence[SearchQuery]) -> list[SearchAnswer | GoatherdError]:
        self.batches.append(len(queries))
        return [self._search(query) for query in queries]

    def _search(self, query: SearchQuery) -> SearchAnswer | GoatherdError:
        if query.text is None:
            return Invalid("no text", pointer="/text")
        found = [one for one in self.entries.values() if query.text in one.texts[0]]
        hits = [Hit(doc=one.doc, chunk=0, seq=one.seq, score=1.0) for one in found]
        return SearchAnswer(hits=hits, seq=self.applied)

    async def save(self) -> None:
        self.saved.append(self.applied)

    async def close(self) -> None:
        self.closed = True


class Pasture:
    """A store, and a host of what is in it."""

    def __init__(self, *, budget: int = 100 * MB) -> None:
        self.store = MemoryIndexStore()
        self.engines: dict[str, ListEngine] = {}
        self.opened = 0
        self.discarded = asyncio.Event()
        self.before: dict[str, int] = {}
        """How far an engine is when it is opened with what was saved."""
        provider = IndexProvider(self.store, self, asyncio.get_running_loop())
        self.host = ModelHost(
            Settings(models={}),
            providers=lambda _: provider,
            machine=Machine("cpu", budget),
            room=Room(budget, wait_s=0.1, kind=("index", "indexes"), setting="GOATHERD_INDEX_MEMORY_MB"),
        )
        provider.let_go = self.host.unload

    async def open(self, index: Index, version: Version, *, fresh: bool = False) -> ListEngine:
        self.opened += 1
        engine = self.engines[index.id] = ListEngine()
        engine.applied = 0 if fresh else self.before.get(index.id, 0)
        return engine

    async def discard(self, index: str, version: Version) -> None:
        assert self.engines[index].closed
        self.discarded.set()

    async def make(self, id: str = INDEX, *texts: str) -> None:
        now = datetime.now(UTC)
        version = Version(number=1, spec=IndexSpec(dimensions=0), created_at=now)
        await self.store.create(
            Index(id=id, name=id[-8:], owner="ann", serving=version, created_at=now, updated_at=now)
        )
        for text in texts:
            await self.put(text, id=id)

    async def put(self, text: str, *, id: str = INDEX) -> None:
        """A document, named as its text, and taken in."""
        (document,) = await self.store.put(id, [DocumentIn(id=text, text=text)]) or []
        entry = Entry(doc=text, rev=document.rev, texts=[text], spans=[(0, len(text))])
        assert await self.store.take_in(id, 1, [entry]) == 1

    async def find(self, *texts: str | None, id: str = INDEX) -> list[list[str] | GoatherdError]:
        items = [Item(SearchQuery(mode="lexical", text=text), NoParameters()) for text in texts]
        async with self.host.use(hosted_name(id, 1), hosted_spec(id, 1)) as hosted:
            computed = await hosted.compute(Task.SEARCH, items, callers=[""] * len(items))
        return [
            one.result if isinstance(one.result, GoatherdError) else [h.doc for h in one.result.output.hits]
            for one in computed
        ]


@asynccontextmanager
async def pasture(*, budget: int = 100 * MB) -> AsyncIterator[Pasture]:
    made = Pasture(budget=budget)
    try:
        yield made
    finally:
        await made.host.close()


async def test_a_search_sees_what_was_committed_before_it() -> None:
    async with pasture() as here:
        await here.make(INDEX, "a goat")
        assert await here.find("goat") == [["a goat"]]
        await here.put("two goats")
        assert await here.find("goat") == [["a goat", "two goats"]]
        await here.store.remove(INDEX, ["a goat"])
        assert await here.find("goat") == [["two goats"]]


async def test_two_first_searches_load_once() -> None:
    async with pasture() as here:
        await here.make(INDEX, "a goat")
        assert list(await asyncio.gather(here.find("goat"), here.find("sheep"))) == [[["a goat"]], [[]]]
        assert here.opened == 1


async def test_searches_that_wait_go_together() -> None:
    async with pasture() as here:
        await here.make(INDEX, "a goat")
        await here.find("goat")
        assert await here.find(*["goat"] * 10) == [["a goat"]] * 10
        assert here.engines[INDEX].batches[-1] == 10


async def test_a_query_that_can_not_be_answered_fails_alone() -> None:
    async with pasture() as here:
        await here.make(INDEX, "a goat")
        good, bad = await here.find("goat", None)
        assert good == ["a goat"]
        assert isinstance(bad, Invalid)


async def test_what_comes_is_taken_in_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "FOLLOW_S", 0.01)
    async with pasture() as here:
        await here.make()
        await here.find("goat")
        engine = here.engines[INDEX]
        engine.took_in.clear()
        await here.put("a goat")
        async with asyncio.timeout(5):
            await engine.took_in.wait()
        assert list(engine.entries) == ["a goat"]


async def test_what_was_taken_in_is_saved_at_rest_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "SAVE_AFTER", 2)
    async with pasture() as here:
        await here.make(INDEX, "one", "two")
        await here.find("one")
        engine = here.engines[INDEX]
        assert engine.saved == [2]
        await here.put("three")
        await here.find("three")
        await here.host.unload(hosted_name(INDEX, 1))
        assert (engine.saved, engine.closed) == ([2, 3], True)


async def test_an_index_that_is_gone_is_not_found() -> None:
    async with pasture() as here:
        await here.make(INDEX, "a goat")
        await here.find("goat")
        await here.store.drop(INDEX)
        (gone,) = await here.find("goat")
        assert isinstance(gone, NotFound)
        with pytest.raises(NotFound):
            await here.find("goat", id="idx_01k9w2x6hj3v8m5r7t0q4n1b2d")


async def test_what_is_no_more_is_put_out_with_all_that_was_kept_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosting, "FOLLOW_S", 0.01)
    async with pasture() as here:
        await here.make(INDEX, "a goat")
        await here.find("goat")
        engine = here.engines[INDEX]
        await here.store.build(
            INDEX, Version(number=2, spec=IndexSpec(dimensions=0), created_at=datetime.now(UTC))
        )
        await here.store.take_in(INDEX, 2, [Entry(doc="a goat", rev=1, texts=["a goat"], spans=[(0, 6)])])
        assert not engine.closed
        await here.store.swap(INDEX, 2)
        async with asyncio.timeout(5):
            await here.discarded.wait()
        await here.host.unload(hosted_name(INDEX, 1))  # It waits for what is on its way out.
        assert here.host.used_bytes == 0


async def test_what_was_saved_of_another_past_is_left_alone() -> None:
    async with pasture() as here:
        await here.make(INDEX, "a goat")
        here.before[INDEX] = 7
        assert await here.find("goat") == [["a goat"]]
        assert here.opened == 2


async def test_a_document_that_is_written_anew_while_the_index_is_read_is_found() -> None:
    async with pasture() as here:
        await here.make(INDEX, "a goat", "a kid")
        read = here.store.entries
        anew = ["a goat"] * 2

        async def meanwhile(index: str, version: int, **span: int) -> AsyncIterator[list[Entry]]:
            if anew:
                await here.put(anew.pop())
            async for entries in read(index, version, **span):
                yield entries

        here.store.entries = meanwhile  # type: ignore[method-assign, assignment]
        assert await here.find("goat") == [["a goat"]]


async def test_an_engine_that_can_not_begin_is_closed() -> None:
    async with pasture() as here:
        await here.make(INDEX, "a goat")

        async def away(id: str) -> int:
            raise Unavailable("the store is away")

        here.store.seq = away  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await here.find("goat")
        assert here.engines[INDEX].closed


async def test_one_index_goes_for_another_and_growth_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    other = "idx_01k9w2x6hj3v8m5r7t0q4n1b2d"
    async with pasture(budget=3 * MB) as here:
        await here.make(INDEX, "one")
        await here.make(other, "two")
        await here.find("one")
        await here.find("two", id=other)
        assert here.host.used_bytes == 2 * MB
        for text in ("three", "four"):
            await here.put(text, id=other)
        await here.find("four", id=other)
        await here.host.measure_again()
        assert here.host.used_bytes == 3 * MB
        assert here.engines[INDEX].closed
        assert await here.find("one", id=INDEX) == [["one"]]
