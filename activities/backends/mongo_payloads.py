"""Large payloads in MongoDB: compressed, and in chunks far below the limit of 16 MB a document.

A header is written when all of its chunks are there, so that whoever finds it can read all. Chunks belong to
one upload, not to a key: a sweep that drops an old header takes the chunks of that one only, while somebody
may be storing the same content again. While an upload is under way it is noted, so that the chunks of one
that never ended are found.

No call changes much at once: what is uncommitted stays in the store's cache, which may be small, and a store
whose cache is full of that stands still.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from activities.backends.mongo_client import make_indexes, store_errors
from activities.backends.projection import Document
from goatherd.payloads import Owner, key_of, utc_now

_CHUNK = 1 << 20
_LEVEL = 1
"""Texts shrink to a third or less even so, and a higher one takes several times as long."""
_SAMPLE = 1 << 16
_LOST_AFTER = timedelta(days=1)
"""Then whoever began an upload has died."""


class MongoPayloadStore:
    """`PayloadStore` on MongoDB."""

    def __init__(self, database: AsyncDatabase[Document], *, now: Callable[[], datetime] = utc_now) -> None:
        self._headers: AsyncCollection[Document] = database["payloads"]
        self._chunks: AsyncCollection[Document] = database["payload_chunks"]
        self._uploads: AsyncCollection[Document] = database["payload_uploads"]
        self._now = now

    async def prepare(self) -> None:
        """Makes collections and indexes. Idempotent."""
        owner = [("namespace", ASCENDING), ("workflow", ASCENDING), ("stored_at", ASCENDING)]
        number = [("upload", ASCENDING), ("n", ASCENDING)]
        await make_indexes(
            {
                self._headers: [IndexModel(owner), IndexModel([("looked_at", ASCENDING)])],
                self._chunks: [IndexModel(number, unique=True)],
                self._uploads: [IndexModel([("began_at", ASCENDING)])],
            }
        )

    async def put(self, owner: Owner, content: bytes) -> str:
        key = await asyncio.to_thread(key_of, owner, content)
        with store_errors():
            if not await self._refresh(key):
                await self._upload(key, owner, content)
        return key

    async def _refresh(self, key: str) -> bool:
        """Counts it as stored now, if it is there."""
        return (
            await self._headers.update_one({"_id": key}, {"$max": {"stored_at": self._now()}})
        ).matched_count > 0

    async def _upload(self, key: str, owner: Owner, content: bytes) -> None:
        packed = await asyncio.to_thread(_pack, content)
        upload = uuid4().hex
        chunks = [packed[begin : begin + _CHUNK] for begin in range(0, len(packed), _CHUNK)]
        await self._uploads.insert_one({"_id": upload, "began_at": self._now()})
        for number, chunk in enumerate(chunks):
            await self._chunks.insert_one({"upload": upload, "n": number, "data": chunk})
        now = self._now()
        header = {
            "_id": key,
            "namespace": owner.namespace,
            "workflow": owner.workflow,
            "upload": upload,
            "chunks": len(chunks),
            "size": len(content),
            "stored_at": now,
            "looked_at": now,
        }
        try:
            await self._headers.insert_one(header)
        except DuplicateKeyError:
            # Somebody else was first with the same content, just now.
            await self._drop(upload)
        await self._uploads.delete_one({"_id": upload})

    async def _drop(self, upload: str) -> None:
        """One by one."""
        while (await self._chunks.delete_one({"upload": upload})).deleted_count:
            pass

    async def _drop_lost(self) -> None:
        lost = self._uploads.find({"began_at": {"$lt": self._now() - _LOST_AFTER}})
        async for one in lost:
            # It may have been noted as under way only because whoever ended it died right then.
            if await self._headers.find_one({"upload": one["_id"]}, {"_id": 1}) is None:
                await self._drop(one["_id"])
            await self._uploads.delete_one({"_id": one["_id"]})

    async def get(self, key: str) -> bytes | None:
        with store_errors():
            header = await self._headers.find_one({"_id": key}, {"upload": 1, "chunks": 1})
            if header is None:
                return None
            cursor = self._chunks.find({"upload": header["upload"]}, {"data": 1}, sort=[("n", ASCENDING)])
            chunks = [bytes(chunk["data"]) async for chunk in cursor]
        if len(chunks) != header["chunks"]:
            return None
        return await asyncio.to_thread(zlib.decompress, b"".join(chunks))

    async def due(self, before: datetime, limit: int) -> Sequence[Owner]:
        chosen = {"stored_at": {"$lt": before}, "workflow": {"$ne": ""}}
        fields = {"_id": 0, "namespace": 1, "workflow": 1}
        with store_errors():
            await self._drop_lost()
            # Several of one workflow are looked at together, so that the next look finds others first.
            cursor = self._headers.find(chosen, fields, sort=[("looked_at", ASCENDING)], limit=limit)
            owners = [Owner(one["namespace"], one["workflow"]) async for one in cursor]
        return list(dict.fromkeys(owners))

    async def sweep(self, owner: Owner, before: datetime) -> int:
        own = owner._asdict()
        swept = 0
        with store_errors():
            await self._headers.update_many(own, {"$set": {"looked_at": self._now()}})
            old = self._headers.find({**own, "stored_at": {"$lt": before}}, {"upload": 1})
            async for header in old:
                # Unless it was stored again since.
                gone = await self._headers.delete_one({"_id": header["_id"], "stored_at": {"$lt": before}})
                if gone.deleted_count:
                    await self._drop(header["upload"])
                    swept += 1
        return swept


def _pack(content: bytes) -> bytes:
    """Compressed, if a part from its middle says that it pays: images and sounds are already."""
    middle = len(content) // 2
    sample = content[middle : middle + _SAMPLE]
    pays = len(zlib.compress(sample, _LEVEL)) < 0.9 * len(sample)
    return zlib.compress(content, _LEVEL if pays else 0)
