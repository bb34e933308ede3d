"""Idempotency keys in MongoDB.

A claim and its answer are two documents, since two inserts cost less than an insert and an update; both are
inserted in groups with those of other requests under way.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.mongo_client import insert_new, make_indexes, store_errors
from activities.backends.projection import Document
from activities.ports import KeyClaim, StoredAnswer
from goatherd.coalesce import Coalescer
from goatherd.errors import Invalid

_ANSWERS_LIVE = timedelta(hours=24)
# An answer always goes before its claim, so that it never is there for a later claim of the same key.
_CLAIMS_LIVE = timedelta(hours=25)


def utc_now() -> datetime:
    return datetime.now(UTC)


class MongoIdempotencyStore:
    """`IdempotencyStore` on MongoDB. Leases are judged by this machine's clock."""

    def __init__(self, database: AsyncDatabase[Document], *, now: Callable[[], datetime] = utc_now) -> None:
        self._claims: AsyncCollection[Document] = database["idempotency_claims"]
        self._answers: AsyncCollection[Document] = database["idempotency_answers"]
        self._now = now
        self._claiming: Coalescer[Document, bool] = Coalescer(lambda group: _insert(self._claims, group))
        self._answering: Coalescer[Document, bool] = Coalescer(lambda group: _insert(self._answers, group))

    async def prepare(self) -> None:
        """Makes collections and indexes. Idempotent."""
        at = [("at", ASCENDING)]
        await make_indexes(
            {
                self._claims: [IndexModel(at, expireAfterSeconds=int(_CLAIMS_LIVE.total_seconds()))],
                self._answers: [IndexModel(at, expireAfterSeconds=int(_ANSWERS_LIVE.total_seconds()))],
            }
        )

    async def claim(self, key: str, body_hash: str, *, lease_s: float) -> KeyClaim:
        while True:
            now = self._now()
            leased_until = now + timedelta(seconds=lease_s)
            mine: Document = {
                "_id": key,
                "body_hash": body_hash,
                "seed": secrets.token_hex(16),
                "seed_millis": int(now.timestamp() * 1000),
                "leased_until": leased_until,
                "takeovers": 0,
                "at": now,
            }
            if await self._claiming.submit(mine):
                return KeyClaim("fresh", mine["seed"], mine["seed_millis"])
            with store_errors():
                held = await self._claims.find_one({"_id": key})
                if held is None:
                    continue  # given up between the two
                if held["body_hash"] != body_hash:
                    return KeyClaim("mismatch")
                answer = await self._answers.find_one({"_id": key})
                if answer is not None:
                    return KeyClaim(
                        "done", answer=StoredAnswer(answer["status"], answer["body"], answer["headers"])
                    )
                if held["leased_until"] > now:
                    return KeyClaim("running")
                taken_over = await self._claims.update_one(
                    {"_id": key, "takeovers": held["takeovers"], "seed": held["seed"]},
                    {
                        "$set": {
                            "leased_until": leased_until,
                            "takeovers": held["takeovers"] + 1,
                            "at": now,
                        }
                    },
                )
                if taken_over.matched_count:
                    return KeyClaim("fresh", held["seed"], held["seed_millis"])

    async def settle(self, key: str, answer: StoredAnswer) -> None:
        # The first answer stays: it may have been given to somebody already.
        await self._answering.submit(
            {
                "_id": key,
                "status": answer.status,
                "body": answer.body,
                "headers": answer.headers,
                "at": self._now(),
            }
        )

    async def release(self, key: str) -> None:
        # An answer that is stored wins over any lease, so there is no need to look for one.
        with store_errors():
            await self._claims.update_one({"_id": key}, {"$set": {"leased_until": self._now()}})


async def _insert(
    collection: AsyncCollection[Document], group: Sequence[Document]
) -> list[bool | BaseException]:
    """For each of `group`, whether it is there by this call."""
    try:
        with store_errors():
            refused = set(await insert_new(collection, list(group)))
    except Invalid as error:
        if len(group) == 1:
            return [error]
        # One of them can't be kept; the others' requests have nothing to do with it.
        return [outcome for one in group for outcome in await _insert(collection, [one])]
    return [index not in refused for index in range(len(group))]
