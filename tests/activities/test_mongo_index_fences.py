"""Fences part an index's documents in small lots, so that a page is read by small ranges."""

from __future__ import annotations

from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.mongo_index_documents import IndexDocuments
from activities.backends.mongo_index_fences import Fences, IndexFences
from activities.backends.mongo_index_forms import Fields
from activities.backends.mongo_indexes import MongoIndexStore
from tests.activities.contract_index_store import begun, docs

IDS = Fences(list("cfil"), lot=3)


def test_ranges_widen_and_leave_nothing_out() -> None:
    assert list(IDS.ranges({}, 2, backwards=False)) == [
        {"$lte": "c"},
        {"$gt": "c", "$lte": "i"},
        {"$gt": "i"},
    ]
    assert list(IDS.ranges({}, 2, backwards=True)) == [
        {"$gt": "l"},
        {"$gt": "f", "$lte": "l"},
        {"$lte": "f"},
    ]


def test_ranges_stay_within_bounds() -> None:
    assert list(IDS.ranges({"$gt": "c", "$lt": "l"}, 1, backwards=False)) == [
        {"$gt": "c", "$lte": "f"},
        {"$gt": "f", "$lt": "l"},
    ]
    assert list(IDS.ranges({"$gt": "d", "$lt": "j"}, 1, backwards=True)) == [
        {"$lt": "j", "$gt": "i"},
        {"$gt": "d", "$lte": "i"},
    ]
    assert list(IDS.ranges({"$gt": "m"}, 1, backwards=False)) == [{"$gt": "m"}]


def test_a_large_page_begins_with_a_large_range() -> None:
    assert list(IDS.ranges({}, 8, backwards=False)) == [{"$lte": "i"}, {"$gt": "i"}]


def test_without_fences_there_is_one_range() -> None:
    assert list(Fences().ranges({}, 50, backwards=False)) == [{}]


async def test_a_page_is_in_ranges_not_much_larger_than_it(database: AsyncDatabase[Fields]) -> None:
    store = MongoIndexStore(database)
    await store.prepare()
    index = await begun(store)
    for begin in range(0, 3_000, 1_000):
        await store.put(index, docs(*(f"{n * 7_919 % 3_000:04}" for n in range(begin, begin + 1_000))))
    fences = await IndexFences(IndexDocuments(database)).of(index, 3_000, 3_000)
    assert len(fences.ids) > 15
    for bounds in ({}, {"$gt": "0000"}, {"$gt": "1234"}, {"$lt": "2000"}):
        for backwards in (False, True):
            first = next(fences.ranges(bounds, 50, backwards=backwards))
            within = await database["index_documents"].count_documents({"index": index, "doc": first})
            assert within < 600


async def test_a_sample_is_kept_until_much_was_written(database: AsyncDatabase[Fields]) -> None:
    store = MongoIndexStore(database)
    await store.prepare()
    index = await begun(store, *(f"{n:04}" for n in range(1_000)))
    fences = IndexFences(IndexDocuments(database))
    first = await fences.of(index, 1_000, 1_000)
    assert first.ids
    assert await fences.of(index, 1_200, 1_000) is first
    assert await fences.of(index, 1_250, 1_000) is not first
    assert (await fences.of(index, 1_250, 100)).ids == []
