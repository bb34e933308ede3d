"""`Journal`: the contract on every backend, and what only a real store can show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.mongo_client import connect
from activities.backends.mongo_journal import Followed, MongoJournal
from activities.backends.projection import Document
from goatherd.actors import LocalSystem
from goatherd.actors.persistence import Journal, MemoryJournal
from goatherd.errors import Invalid, Unavailable
from tests.activities.conftest import BACKENDS
from tests.activities.contract_journal import JournalContract, event, fill, numbers
from tests.actors.persistence.account import NOTES, Account, Balance, Deposit
from tests.servers import embedded_store


@pytest.fixture
async def mongo_journal(database: AsyncDatabase[Document]) -> MongoJournal:
    journal = MongoJournal(database)
    await journal.prepare()
    return journal


@pytest.fixture(params=BACKENDS)
def journal(request: pytest.FixtureRequest) -> Journal:
    return MemoryJournal() if request.param == "memory" else request.getfixturevalue("mongo_journal")


class TestContract(JournalContract):
    pass


async def test_preparing_again_does_nothing(mongo_journal: MongoJournal) -> None:
    await mongo_journal.prepare()


async def test_events_appended_together_are_one_document(
    mongo_journal: MongoJournal, database: AsyncDatabase[Document]
) -> None:
    await fill(mongo_journal, "a", 3, 1)
    assert await database["journal_events"].count_documents({}) == 2


async def test_actor_lives_on_the_real_journal(mongo_journal: MongoJournal) -> None:
    for balance in (3, 6):
        async with LocalSystem(journal=mongo_journal) as system:
            account = system.spawn(Account("mongo"), "it")
            assert await system.ask(account, Deposit(1, parts=3)) == balance
            assert await system.ask(account, Balance()) == balance
    NOTES.pop("mongo")
    assert await numbers(mongo_journal, "account-mongo") == [1, 2, 3, 4, 5, 6]


async def test_state_too_large_for_a_document_is_refused(mongo_journal: MongoJournal) -> None:
    with pytest.raises((Invalid, Unavailable)):
        await mongo_journal.save_snapshot("a", 1, "x" * 17_000_000)
    assert await mongo_journal.load_snapshot("a") is None


async def take(feed: AsyncIterator[Followed], count: int) -> list[tuple[str, int]]:
    async with asyncio.timeout(20):
        items = [await anext(feed) for _ in range(count)]
    return [(item.persistence_id, item.seq) for item in items]


async def test_feed_gives_what_is_there_then_what_is_written(mongo_journal: MongoJournal) -> None:
    await fill(mongo_journal, "a", 1, 2)
    feed = mongo_journal.follow()
    assert await take(feed, 3) == [("a", 1), ("a", 2), ("a", 3)]
    await fill(mongo_journal, "b", 1)
    await mongo_journal.append("a", 4, [event(4), event(5)], writer="first")
    assert await take(feed, 3) == [("b", 1), ("a", 4), ("a", 5)]
    await feed.aclose()


async def test_feed_goes_on_after_what_was_seen(mongo_journal: MongoJournal) -> None:
    await fill(mongo_journal, "a", 1, 3)
    await fill(mongo_journal, "b", 2)
    feed = mongo_journal.follow({"a": 2, "b": 2})
    assert await take(feed, 2) == [("a", 3), ("a", 4)]
    await feed.aclose()


async def test_feed_outlives_the_store_and_misses_nothing() -> None:
    async with embedded_store() as server:
        database = connect(server.uri, "feed")
        journal = MongoJournal(database)
        await journal.prepare()
        await fill(journal, "a", 1)
        feed = journal.follow()
        assert await take(feed, 1) == [("a", 1)]
        await server.restart()
        await journal.append("a", 2, [event(2), event(3)], writer="first")
        await server.restart()
        await journal.append("b", 1, [event(1)], writer="first")
        assert sorted(await take(feed, 3)) == [("a", 2), ("a", 3), ("b", 1)]
        await feed.aclose()
        await database.client.close()


async def test_feed_fills_a_gap_and_drops_a_repetition(mongo_journal: MongoJournal) -> None:
    await fill(mongo_journal, "a", 1, 2, 1)
    batches = [batch async for batch in mongo_journal._from("a", 1)]
    seen = {"a": 1}
    first = [one.seq async for one in mongo_journal._without_gap(seen, batches[2])]
    again = [one.seq async for one in mongo_journal._without_gap(seen, batches[1])]
    assert (first, again, seen) == ([2, 3, 4], [], {"a": 4})
