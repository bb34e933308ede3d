"""`PayloadStore`: the contract on every backend, and what only a real store can show."""

from __future__ import annotations

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.mongo_client import connect
from activities.backends.mongo_payloads import MongoPayloadStore
from activities.backends.projection import Document
from goatherd.errors import Unavailable
from goatherd.payloads import MemoryPayloadStore, PayloadStore
from tests.activities.clock import Clock
from tests.activities.conftest import BACKENDS
from tests.activities.contract_payload_store import ANN, HOUR, PayloadStoreContract, noise
from tests.servers import embedded_store


@pytest.fixture
async def mongo_payloads(database: AsyncDatabase[Document], clock: Clock) -> MongoPayloadStore:
    store = MongoPayloadStore(database, now=clock.now)
    await store.prepare()
    return store


@pytest.fixture(params=BACKENDS)
def payloads(request: pytest.FixtureRequest, clock: Clock) -> PayloadStore:
    if request.param == "memory":
        return MemoryPayloadStore(now=clock.now)
    real: PayloadStore = request.getfixturevalue("mongo_payloads")
    return real


class TestContract(PayloadStoreContract):
    pass


async def test_preparing_again_does_nothing(mongo_payloads: MongoPayloadStore) -> None:
    await mongo_payloads.prepare()


async def test_nothing_is_left_of_what_was_put_twice_and_swept(
    mongo_payloads: MongoPayloadStore, database: AsyncDatabase[Document], clock: Clock
) -> None:
    for _ in range(2):
        await mongo_payloads.put(ANN, noise(9_000_000))
    assert await database["payload_chunks"].count_documents({}) == 9
    assert await database["payload_uploads"].count_documents({}) == 0
    clock.pass_seconds(HOUR.total_seconds())
    await mongo_payloads.sweep(ANN, clock.now())
    assert await database["payload_chunks"].count_documents({}) == 0


async def test_chunks_of_an_upload_that_never_ended_go_after_a_day(
    mongo_payloads: MongoPayloadStore, database: AsyncDatabase[Document], clock: Clock
) -> None:
    key = await mongo_payloads.put(ANN, b"whole")
    header = await database["payloads"].find_one({"_id": key})
    assert header is not None
    for upload in ("lost", header["upload"]):
        await database["payload_uploads"].insert_one({"_id": upload, "began_at": clock.now()})
    await database["payload_chunks"].insert_one({"upload": "lost", "n": 0, "data": b"x"})
    await mongo_payloads.due(clock.now(), 10)
    assert await database["payload_chunks"].count_documents({"upload": "lost"}) == 1
    clock.pass_seconds(25 * HOUR.total_seconds())
    await mongo_payloads.due(clock.now(), 10)
    assert await database["payload_chunks"].count_documents({"upload": "lost"}) == 0
    assert await database["payload_uploads"].count_documents({}) == 0
    assert await mongo_payloads.get(key) == b"whole"


async def test_a_text_is_kept_smaller_than_it_is(
    mongo_payloads: MongoPayloadStore, database: AsyncDatabase[Document]
) -> None:
    await mongo_payloads.put(ANN, b"A goat is a goat. " * 300_000)
    (chunk,) = [chunk async for chunk in database["payload_chunks"].find()]
    assert len(chunk["data"]) < 540_000


async def test_a_store_that_is_down_is_unavailable() -> None:
    async with embedded_store() as server:
        database = connect(f"{server.uri}&serverSelectionTimeoutMS=500", "down")
        store = MongoPayloadStore(database)
        key = await store.put(ANN, b"x")
        await server.kill()
        with pytest.raises(Unavailable):
            await store.put(ANN, b"y")
        with pytest.raises(Unavailable):
            await store.get(key)
        await server.start()
        assert await store.get(key) == b"x"
        await database.client.close()
