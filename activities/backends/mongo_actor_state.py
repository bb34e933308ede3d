"""The states of passivated entities in MongoDB: one document each.

A state is kept as a text: its keys are anybody's, and nobody looks for one by what it holds. What was deleted
stays for a day as a version without a state, to keep out a save that is late.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from activities.backends.mongo_client import make_indexes, store_errors
from activities.backends.projection import Document
from goatherd.actors.durable import Stored
from goatherd.errors import Fenced, Invalid

_DELETED_FOR = timedelta(hours=24)


def utc_now() -> datetime:
    return datetime.now(UTC)


class MongoStateStore:
    """`StateStore` on MongoDB."""

    def __init__(self, database: AsyncDatabase[Document], *, now: Callable[[], datetime] = utc_now) -> None:
        self._states: AsyncCollection[Document] = database["actor_states"]
        self._now = now

    async def prepare(self) -> None:
        """Makes collection and indexes. Idempotent."""
        identity = [("kind", ASCENDING), ("entity", ASCENDING)]
        deleted = IndexModel(
            [("deleted_at", ASCENDING)], expireAfterSeconds=int(_DELETED_FOR.total_seconds())
        )
        await make_indexes({self._states: [IndexModel(identity, unique=True), deleted]})

    async def save(self, kind: str, entity: str, version: int, state: Any) -> None:
        try:
            text = json.dumps(state)
        except (TypeError, ValueError) as error:
            raise Invalid(f"The state of {kind} {entity!r} is no JSON: {error}") from error
        change = {"$set": {"version": version, "state": text}, "$unset": {"deleted_at": ""}}
        await self._put(kind, entity, version, change)

    async def load(self, kind: str, entity: str) -> Stored | None:
        with store_errors():
            found = await self._states.find_one({"kind": kind, "entity": entity})
        return None if found is None else Stored(int(found["version"]), json.loads(found["state"]))

    async def delete(self, kind: str, entity: str, version: int) -> None:
        change = {"$set": {"version": version, "state": "null", "deleted_at": self._now()}}
        await self._put(kind, entity, version, change)

    async def _put(self, kind: str, entity: str, version: int, change: Document) -> None:
        identity = {"kind": kind, "entity": entity}
        with store_errors():
            while True:
                try:
                    await self._states.update_one(
                        {**identity, "version": {"$lte": version}}, change, upsert=True
                    )
                    return
                except DuplicateKeyError:
                    # One is there, and not older; or it came between the look and the insert.
                    there = await self._states.find_one(identity, {"version": 1})
                if there is not None and there["version"] > version:
                    newer = there["version"]
                    raise Fenced(
                        f"Version {version} of {kind} {entity!r} is older than {newer}, which is there."
                    )
