"""`IndexStore`: the contract on every backend, and what only a real store can show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import count, cycle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.memory_indexes import MemoryIndexStore
from activities.backends.mongo_client import connect
from activities.backends.mongo_indexes import MongoIndexStore
from activities.backends.projection import Document
from activities.ports import Page
from activities.retrieval_ports import IndexStore
from goatherd.contracts.retrieval import MOST_ENTRY_BYTES, DocumentIn, Entry
from goatherd.errors import Invalid, Unavailable
from tests.activities.contract_index_store import (
    EVERYTHING,
    IndexStoreContract,
    assert_gone,
    begun,
    docs,
    fail,
    followed,
    found_of,
    make_index,
    take_in,
    version,
)
from tests.servers import EmbeddedStore, embedded_store


class InTurns:
    """Stores of several processes: each call is made by the next of them."""

    def __init__(self, stores: Sequence[MongoIndexStore]) -> None:
        self._stores = cycle(stores)

    def __getattr__(self, name: str) -> Any:
        return getattr(next(self._stores), name)


@pytest.fixture
async def mongo_indexes(database: AsyncDatabase[Document]) -> MongoIndexStore:
    store = MongoIndexStore(database)
    await store.prepare()
    return store


@pytest.fixture
async def several_indexes(
    database: AsyncDatabase[Document], store_server: EmbeddedStore
) -> AsyncIterator[InTurns]:
    databases = [connect(store_server.uri, database.name) for _ in range(8)]
    await MongoIndexStore(database).prepare()
    yield InTurns([MongoIndexStore(one) for one in databases])
    for one in databases:
        await one.client.close()


@pytest.fixture(params=("memory", "mongo", "several"))
def indexes(request: pytest.FixtureRequest) -> IndexStore:
    if request.param == "memory":
        return MemoryIndexStore()
    store: IndexStore = request.getfixturevalue(f"{request.param}_indexes")
    return store


class TestContract(IndexStoreContract):
    pass


# -- any history: the real one stands as the fake does


_IDS = ("a", "b", "c", "d", "e")
_some = st.lists(st.sampled_from(_IDS), min_size=1, max_size=4)
_number = st.integers(1, 4)
_acts = st.one_of(
    st.tuples(st.just("put"), _some),
    st.tuples(st.just("remove"), _some),
    st.tuples(st.just("take_in"), _some, _number),
    st.tuples(st.just("stale"), _some, _number),
    st.tuples(st.just("fail"), _some, _number),
    st.tuples(st.sampled_from(["retry", "cancel", "sweep"])),
    st.tuples(st.sampled_from(["build", "swap", "abandon", "missing"]), _number),
)


async def act(store: IndexStore, index: str, what: str, *given: Any) -> Any:
    """Something that is done, and what it gives, as far as it is the same of all stores."""
    match what, given:
        case "put", (ids,):
            put = await store.put(index, docs(*ids))
            return [(one.id, one.rev, one.todo) for one in put or []]
        case "remove", (ids,):
            return await store.remove(index, ids)
        case "take_in", (ids, number):
            return await take_in(store, index, *ids, number=number)
        case "stale", (ids, number):
            found = await store.read(index, ids)
            old = [Entry(doc=one.id, rev=one.rev - 1) for one in found]
            return await store.take_in(index, number, old)
        case "fail", (ids, number):
            return await fail(store, index, *ids, number=number)
        case "build", (number,):
            built = await store.build(index, version(number))
            return built and [one.number for one in built.versions]
        case (("swap" | "abandon"), (number,)):
            changed = await getattr(store, what)(index, number)
            return changed and [one.number for one in changed.versions]
        case "sweep", ():
            while await store.sweep(index, 2):
                pass
            return None
        case _:
            return await getattr(store, what)(index, *given)


async def view(store: IndexStore, index: str) -> Any:
    """All that can be seen."""
    found = await store.index(index)
    assert found is not None
    live = [one.number for one in found.versions]
    times = {"created_at", "updated_at"}
    return (
        live,
        found.seq,
        await store.counts(index),
        [one.model_dump(exclude=times) for one in await store.documents(index, EVERYTHING)],
        [
            [one.id for one in await store.documents(index, Page(limit=2), failed=failed)]
            for failed in (True, False)
        ],
        {number: await store.todo(index, number, 10) for number in live},
        {number: await store.todo(index, number, 2) for number in live},
        {number: await store.lacking(index, number, 10) for number in live},
        {number: await store.missing(index, number) for number in live},
        index in dict(await store.unfinished()),
        {number: await followed(store, index, number) for number in live},
        {
            number: [(one.doc, one.seq, one.deleted) for one in await followed(store, index, number, 1)]
            for number in live
        },
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_acts, max_size=20))
async def test_after_any_history_the_real_store_stands_as_the_fake_does(
    mongo_indexes: MongoIndexStore, history: list[tuple[Any, ...]]
) -> None:
    stores: tuple[IndexStore, IndexStore] = (MemoryIndexStore(), mongo_indexes)
    made = [(store, await begun(store)) for store in stores]
    for what in history:
        outcomes = [await act(store, index, *what) for store, index in made]
        assert outcomes[0] == outcomes[1], what
    views = [await view(store, index) for store, index in made]
    assert views[0] == views[1]


# -- what is large


async def test_the_largest_entries_are_kept_and_followed(mongo_indexes: MongoIndexStore) -> None:
    ids = list("abcd")
    id = await begun(mongo_indexes, *ids)
    vectors = bytes(MOST_ENTRY_BYTES - 8)
    spans = [(n, n + 1) for n in range(4_096)]
    large = [
        Entry(doc=doc, rev=n, texts=["\0"] * 4_096, spans=spans, vectors=vectors)
        for n, doc in enumerate(ids, 1)
    ]
    assert await mongo_indexes.take_in(id, 1, large) == 4
    batches = [batch async for batch in mongo_indexes.entries(id, 1)]
    assert [[one.doc for one in batch] for batch in batches] == [["a"], ["b"], ["c"], ["d"]]
    assert batches[3][0] == large[3].model_copy(update={"seq": 4})
    with pytest.raises(Invalid):
        await mongo_indexes.take_in(id, 1, [Entry(doc="a", rev=1, vectors=bytes(17 << 20))])
    assert await mongo_indexes.seq(id) == 4


async def test_sparse_numbers_are_followed_to_their_end(mongo_indexes: MongoIndexStore) -> None:
    id = await begun(mongo_indexes, "a", "b")
    await take_in(mongo_indexes, id, "a", "b")
    for _ in range(80):
        await take_in(mongo_indexes, id, "a")
    assert [one.seq for one in await followed(mongo_indexes, id)] == [2, 82]
    assert [one.seq for one in await followed(mongo_indexes, id, after=2, upto=81)] == []


async def test_what_can_not_be_kept_is_invalid_and_nothing_of_it_kept(mongo_indexes: MongoIndexStore) -> None:
    id = await begun(mongo_indexes, "a")
    with pytest.raises(Invalid):
        await mongo_indexes.put(id, [DocumentIn(id="b"), DocumentIn.model_construct(id="c", text="\ud800")])
    assert [one.id for one in await mongo_indexes.documents(id, EVERYTHING)] == ["a"]


# -- a store that goes away


async def test_a_store_that_is_away_is_unavailable_and_has_what_it_had() -> None:
    async with embedded_store() as server:
        database = connect(f"{server.uri}&serverSelectionTimeoutMS=200", "away")
        store = MongoIndexStore(database)
        await store.prepare()
        index = await store.create(make_index())
        await store.put(index.id, docs("a", "b"))
        await take_in(store, index.id, "a")
        await fail(store, index.id, "b")
        before = await view(store, index.id)
        await server.kill()
        for call in (
            store.put(index.id, docs("c")),
            store.take_in(index.id, 1, [Entry(doc="a", rev=1)]),
            store.index(index.id),
            store.todo(index.id, 1, 1),
            store.retry(index.id),
            store.sweep(index.id),
            store.create(make_index("b")),
            followed(store, index.id),
        ):
            with pytest.raises(Unavailable):
                await call
        await server.start()
        assert await view(store, index.id) == before
        assert await store.drop(index.id)
        await assert_gone(store, index.id)
        await database.client.close()


async def test_a_store_that_was_killed_has_all_of_a_write_or_nothing() -> None:
    ids = [f"{n:03}" for n in range(400)]
    async with embedded_store() as server:
        database = connect(f"{server.uri}&serverSelectionTimeoutMS=200", "killed")
        store = MongoIndexStore(database)
        await store.prepare()
        id = await begun(store, *ids)
        taken = asyncio.Semaphore(0)

        async def take(part: Sequence[str]) -> None:
            for start in range(0, len(part), 5):
                await take_in(store, id, *part[start : start + 5])
                taken.release()

        async def write() -> None:
            for n in count():
                await store.put(id, docs(f"more {n}", f"and {n}"))

        writers = [asyncio.create_task(one) for one in (take(ids[:200]), take(ids[200:]), write())]
        for _ in range(10):
            await taken.acquire()
        await server.kill()
        ended = await asyncio.gather(*writers, return_exceptions=True)
        assert {type(one) for one in ended} == {Unavailable}
        await server.start()

        found = await followed(store, id)
        assert [one.seq for one in found] == list(range(1, len(found) + 1))
        assert len(found) % 5 == 0
        assert len(found) >= 50
        here = await store.documents(id, EVERYTHING)
        assert sorted(one.rev for one in here) == list(range(1, len(here) + 1))
        assert len(here) % 2 == 0
        todo = await store.todo(id, 1, 10_000)
        assert set(todo) == {one.id for one in here} - {one.doc for one in found}
        counts = await store.counts(id)
        assert (counts.documents, counts.pending, counts.chunks) == (len(here), len(todo), len(found))
        await database.client.close()


async def test_what_the_looks_have_lost_is_to_do_again(
    mongo_indexes: MongoIndexStore, database: AsyncDatabase[Document]
) -> None:
    id = await begun(mongo_indexes, "a", "b", "c")
    await take_in(mongo_indexes, id, "b")
    await database["index_marks"].update_one({"_id": id}, {"$set": {"marks.1": 3}})
    assert await mongo_indexes.todo(id, 1, 10) == []
    assert await mongo_indexes.missing(id, 1) == 2
    assert await mongo_indexes.todo(id, 1, 10) == ["a", "c"]


async def test_of_an_index_that_was_swept_nothing_is_left(
    mongo_indexes: MongoIndexStore, database: AsyncDatabase[Document]
) -> None:
    index = await mongo_indexes.create(make_index(metadata={"a": 1}))
    await mongo_indexes.put(index.id, docs("a", "b", "c"))
    await take_in(mongo_indexes, index.id, "a", "b")
    await fail(mongo_indexes, index.id, "c")
    await mongo_indexes.remove(index.id, ["a"])
    assert await found_of(mongo_indexes, index.id) == ["b"]
    assert await mongo_indexes.drop(index.id)
    while await mongo_indexes.sweep(index.id, 2):
        pass
    for name in ("indexes", "index_documents", "index_entries", "index_marks"):
        assert await database[name].count_documents({}) == 0
