"""Which workers there are, in MongoDB: one document each, replaced every few seconds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.mongo_client import make_indexes, store_errors
from activities.backends.mongo_idempotency import utc_now
from activities.backends.projection import Document
from activities.ports import WorkerStatus

_LIVE_S = 3_600


class MongoWorkerRegistry:
    """`WorkerRegistry` on MongoDB. A report without a time gets this machine's."""

    def __init__(self, database: AsyncDatabase[Document], *, now: Callable[[], datetime] = utc_now) -> None:
        self._workers: AsyncCollection[Document] = database["workers"]
        self._now = now

    async def prepare(self) -> None:
        """Makes collections and indexes. Idempotent."""
        await make_indexes({self._workers: [IndexModel([("at", ASCENDING)], expireAfterSeconds=_LIVE_S)]})

    async def report(self, status: WorkerStatus) -> None:
        document: Document = {
            "pools": list(status.pools),
            "state": status.state,
            "detail": status.detail,
            # Pairs, as model names may hold what field names may not.
            "models": [list(pair) for pair in status.models.items()],
            "queue": status.queue,
            "memory_bytes": status.memory_bytes,
            "used_bytes": status.used_bytes,
            "device": status.device,
            "at": status.at or self._now(),
        }
        with store_errors():
            await self._workers.replace_one({"_id": status.identity}, document, upsert=True)

    async def sign_off(self, identity: str) -> None:
        with store_errors():
            await self._workers.delete_one({"_id": identity})

    async def alive(self, *, within_s: float) -> list[WorkerStatus]:
        since = self._now() - timedelta(seconds=within_s)
        with store_errors():
            documents = await self._workers.find({"at": {"$gte": since}}).to_list()
        return [
            WorkerStatus(
                identity=document["_id"],
                pools=tuple(document["pools"]),
                state=document["state"],
                detail=document["detail"],
                models=dict(document["models"]),
                # Of a worker of an earlier version they are not there.
                queue=document.get("queue", ""),
                memory_bytes=document.get("memory_bytes", 0),
                used_bytes=document.get("used_bytes", 0),
                device=document.get("device", ""),
                at=document["at"],
            )
            for document in sorted(documents, key=lambda one: str(one["_id"]))
        ]
