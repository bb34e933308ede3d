"""One embedded store for each module: one that stands still, as it may when much is written at once, is of no
consequence for others. A database of its own for each test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.memory import MemoryChatStore, MemoryIdempotencyStore, MemoryWorkerRegistry
from activities.backends.mongo_chat import MongoChatStore
from activities.backends.mongo_client import connect
from activities.backends.mongo_idempotency import MongoIdempotencyStore
from activities.backends.mongo_workers import MongoWorkerRegistry
from activities.backends.projection import Document
from activities.ports import ChatStore, IdempotencyStore, WorkerRegistry
from tests.activities.clock import Clock
from tests.servers import EmbeddedStore, embedded_store

BACKENDS = ("memory", "mongo")


@pytest.fixture(scope="module")
async def store_server() -> AsyncIterator[EmbeddedStore]:
    async with embedded_store() as server:
        yield server


@pytest.fixture
async def database(store_server: EmbeddedStore) -> AsyncIterator[AsyncDatabase[Document]]:
    database = connect(store_server.uri, f"test_{secrets.token_hex(6)}")
    yield database
    await database.client.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def mongo_chats(database: AsyncDatabase[Document]) -> MongoChatStore:
    store = MongoChatStore(database)
    await store.prepare()
    return store


@pytest.fixture
async def mongo_idempotency(database: AsyncDatabase[Document], clock: Clock) -> MongoIdempotencyStore:
    store = MongoIdempotencyStore(database, now=clock.now)
    await store.prepare()
    return store


@pytest.fixture
async def mongo_workers(database: AsyncDatabase[Document], clock: Clock) -> MongoWorkerRegistry:
    registry = MongoWorkerRegistry(database, now=clock.now)
    await registry.prepare()
    return registry


@pytest.fixture(params=BACKENDS)
def chats(request: pytest.FixtureRequest) -> ChatStore:
    return MemoryChatStore() if request.param == "memory" else request.getfixturevalue("mongo_chats")


@pytest.fixture(params=BACKENDS)
def idempotency(request: pytest.FixtureRequest, clock: Clock) -> IdempotencyStore:
    if request.param == "memory":
        return MemoryIdempotencyStore(now=clock.now)
    real: IdempotencyStore = request.getfixturevalue("mongo_idempotency")
    return real


@pytest.fixture(params=BACKENDS)
def workers(request: pytest.FixtureRequest, clock: Clock) -> WorkerRegistry:
    if request.param == "memory":
        return MemoryWorkerRegistry(now=clock.now)
    real: WorkerRegistry = request.getfixturevalue("mongo_workers")
    return real
