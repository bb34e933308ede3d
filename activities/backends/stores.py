"""All that a process keeps in MongoDB, behind one connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.mongo_actor_state import MongoStateStore
from activities.backends.mongo_chat import MongoChatStore
from activities.backends.mongo_client import connect
from activities.backends.mongo_idempotency import MongoIdempotencyStore
from activities.backends.mongo_indexes import MongoIndexStore
from activities.backends.mongo_jobs import MongoJobStore
from activities.backends.mongo_journal import MongoJournal
from activities.backends.mongo_models import MongoModelCatalog, MongoPieceFeed
from activities.backends.mongo_payloads import MongoPayloadStore
from activities.backends.mongo_tasks import MongoTaskStore
from activities.backends.mongo_workers import MongoWorkerRegistry
from goatherd.errors import Unavailable
from goatherd.settings import Settings


@dataclass(frozen=True, slots=True)
class Stores:
    """The ports on one database."""

    database: AsyncDatabase[dict[str, Any]]
    chats: MongoChatStore
    idempotency: MongoIdempotencyStore
    workers: MongoWorkerRegistry
    payloads: MongoPayloadStore
    journal: MongoJournal
    actor_states: MongoStateStore
    tasks: MongoTaskStore
    catalog: MongoModelCatalog
    pieces: MongoPieceFeed
    jobs: MongoJobStore
    indexes: MongoIndexStore

    async def prepare(self) -> None:
        """Makes collections and indexes. Raises `Unavailable` if the store does not answer."""
        await self.chats.prepare()
        await self.idempotency.prepare()
        await self.workers.prepare()
        await self.payloads.prepare()
        await self.journal.prepare()
        await self.actor_states.prepare()
        await self.tasks.prepare()
        await self.catalog.prepare()
        await self.pieces.prepare()
        await self.jobs.prepare()
        await self.indexes.prepare()

    async def close(self) -> None:
        await self.database.client.close()


def open_stores(settings: Settings, *, app: str) -> Stores:
    """The stores at `settings.mongo_uri`. Connects when first used."""
    if settings.mongo_uri is None:
        raise Unavailable("No store is named: set GOATHERD_MONGO_URI, or start with `goatherd up`.")
    database = connect(settings.mongo_uri, settings.mongo_database, app=app)
    return Stores(
        database,
        MongoChatStore(database),
        MongoIdempotencyStore(database),
        MongoWorkerRegistry(database),
        MongoPayloadStore(database),
        MongoJournal(database),
        MongoStateStore(database),
        MongoTaskStore(database),
        MongoModelCatalog(database),
        MongoPieceFeed(database),
        MongoJobStore(database),
        MongoIndexStore(database),
    )
