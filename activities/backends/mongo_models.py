"""Registered models, and text on its way, in MongoDB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any

from pymongo import ASCENDING, IndexModel, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from activities.backends.mongo_client import make_indexes, store_errors
from activities.backends.mongo_feed import watch
from activities.backends.mongo_idempotency import utc_now
from activities.backends.projection import Document
from goatherd.contracts.inference_work import ModelEntry, Piece

_PIECES_LIVE_S = 600


class MongoModelCatalog:
    """`ModelCatalog` on MongoDB."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._models: AsyncCollection[Document] = database["models"]

    async def prepare(self) -> None:
        """Nothing to do: names are the documents' ids."""

    async def add(self, entry: ModelEntry) -> bool:
        document = entry.model_dump(mode="json", exclude={"name"})
        with store_errors():
            try:
                await self._models.insert_one({"_id": entry.name, **document})
            except DuplicateKeyError:
                return False
        return True

    async def remove(self, name: str) -> bool:
        with store_errors():
            return (await self._models.delete_one({"_id": name})).deleted_count > 0

    async def all(self) -> list[ModelEntry]:
        with store_errors():
            documents = await self._models.find().sort("_id", ASCENDING).to_list()
        return [ModelEntry.model_validate({**one, "name": one["_id"]}) for one in documents]


class MongoPieceFeed:
    """`PieceFeed` on MongoDB, by the change stream. No journal is awaited: pieces need not survive."""

    def __init__(self, database: AsyncDatabase[Document], *, now: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._pieces: AsyncCollection[Document] = database.get_collection(
            "pieces", write_concern=WriteConcern(w=1, j=False)
        )
        self._now = now

    async def prepare(self) -> None:
        """Makes collections and indexes. Idempotent."""
        await make_indexes(
            {self._pieces: [IndexModel([("at", ASCENDING)], expireAfterSeconds=_PIECES_LIVE_S)]}
        )

    async def publish(self, pieces: Sequence[Piece]) -> None:
        at = self._now()
        documents: list[dict[str, Any]] = [
            {**piece.model_dump(mode="json", exclude_none=True), "at": at} for piece in pieces
        ]
        with store_errors():
            await self._pieces.insert_many(documents)

    def watch(self) -> AbstractAsyncContextManager[Any]:
        return watch(self._database, {"pieces": Piece.model_validate})
