"""The journal of event-sourced actors in MongoDB, and a feed of it for projections.

Events that were appended together are one document: a crash leaves all of them or none. Whoever appends has
read whole batches, or written them, so that the number of a batch's first event is enough to keep out a
second writer. For the same reason a deleted batch leaves its number behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError, OperationFailure, PyMongoError

from activities.backends.mongo_client import make_indexes, store_errors
from activities.backends.projection import Document
from goatherd.actors.persistence import Entry, EventsRejected, Json, Snapshot
from goatherd.errors import Fenced, Invalid

log = logging.getLogger(__name__)

_SHORTEST_WAIT_S = 0.05
_LONGEST_WAIT_S = 2.0
_INSERTED = [{"$match": {"operationType": "insert"}}]


@dataclass(frozen=True, slots=True)
class Followed:
    """One event of the feed."""

    persistence_id: str
    seq: int
    event: Json


class MongoJournal:
    """`Journal` on MongoDB."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._batches: AsyncCollection[Document] = database["journal_events"]
        self._snapshots: AsyncCollection[Document] = database["journal_snapshots"]

    async def prepare(self) -> None:
        """Makes collections and indexes. Idempotent."""
        number = [("persistence_id", ASCENDING), ("seq", ASCENDING)]
        await make_indexes(
            {
                self._batches: [IndexModel(number, unique=True)],
                self._snapshots: [IndexModel(number, unique=True)],
            }
        )

    # -- events

    async def append(
        self, persistence_id: str, first_seq: int, events: Sequence[Json], *, writer: str
    ) -> None:
        if not events:
            return
        batch: Document = {
            "persistence_id": persistence_id,
            "seq": first_seq,
            "last": first_seq + len(events) - 1,
            "writer": writer,
            "events": list(events),
        }
        try:
            with store_errors():
                try:
                    await self._batches.insert_one(batch)
                    return
                except DuplicateKeyError:
                    there = await self._batches.find_one(
                        {"persistence_id": persistence_id, "seq": first_seq}, {"writer": 1}
                    )
        except Invalid as error:
            raise EventsRejected(error.message) from error
        if there is None or there["writer"] != writer:
            raise Fenced(f"Another writer was first to write event {first_seq} of {persistence_id!r}.")

    async def read(self, persistence_id: str, *, after: int = 0, limit: int = 1_000) -> AsyncIterator[Entry]:
        left = limit
        with store_errors():
            async for batch in self._from(persistence_id, await self._start(persistence_id, after)):
                for entry in _entries(batch):
                    if left <= 0:
                        return
                    if entry.seq > after:
                        left -= 1
                        yield entry

    async def _start(self, persistence_id: str, after: int) -> int:
        """The number of the batch that event `after` + 1 is in, or would begin."""
        batch = await self._batches.find_one(
            {"persistence_id": persistence_id, "seq": {"$lte": after}},
            {"seq": 1, "last": 1},
            sort=[("seq", DESCENDING)],
        )
        return after + 1 if batch is None or batch["last"] <= after else int(batch["seq"])

    def _from(self, persistence_id: str, seq: int) -> AsyncIterator[Document]:
        chosen = {"persistence_id": persistence_id, "seq": {"$gte": seq}}
        return self._batches.find(chosen, sort=[("seq", ASCENDING)])

    async def highest(self, persistence_id: str) -> int:
        with store_errors():
            batch = await self._batches.find_one(
                {"persistence_id": persistence_id}, {"last": 1}, sort=[("seq", DESCENDING)]
            )
        return 0 if batch is None else int(batch["last"])

    async def delete_events(self, persistence_id: str, upto: int) -> None:
        # The first number bounds what is looked at: no batch before `upto` begins after it.
        chosen = {"persistence_id": persistence_id, "seq": {"$lte": upto}, "last": {"$lte": upto}}
        with store_errors():
            await self._batches.update_many({**chosen, "events": {"$ne": []}}, {"$set": {"events": []}})

    # -- snapshots

    async def save_snapshot(self, persistence_id: str, seq: int, state: Json) -> None:
        number = {"persistence_id": persistence_id, "seq": seq}
        with store_errors():
            await self._snapshots.replace_one(number, {**number, "state": state}, upsert=True)

    async def load_snapshot(self, persistence_id: str) -> Snapshot | None:
        with store_errors():
            found = await self._snapshots.find_one(
                {"persistence_id": persistence_id}, sort=[("seq", DESCENDING)]
            )
        return None if found is None else Snapshot(int(found["seq"]), found["state"])

    async def delete_snapshots(self, persistence_id: str, *, keep: int) -> int:
        chosen: Document = {"persistence_id": persistence_id}
        with store_errors():
            latest = self._snapshots.find(chosen, {"seq": 1}, sort=[("seq", DESCENDING)], limit=keep)
            kept = [int(one["seq"]) async for one in latest]
            if not kept or len(kept) < keep:
                return 0
            await self._snapshots.delete_many({**chosen, "seq": {"$lt": kept[-1]}})
        return kept[-1]

    # -- for projections

    async def follow(self, after: Mapping[str, int] | None = None) -> AsyncGenerator[Followed]:
        """Every event of the journal, without end: those that are there, then those that are written.

        Each actor's come in order, without a gap, each once; those of several actors in any order. `after` is
        how far a projection has come, by persistence id; of one that is not named it begins with the first.
        Events that were deleted before they could be followed do not come. It outlives the store's absence.
        """
        seen = dict(after or {})
        token: Mapping[str, Any] | None = None
        wait = _SHORTEST_WAIT_S
        while True:
            try:
                async with await self._batches.watch(_INSERTED, resume_after=token) as stream:
                    if token is None:
                        # The stream is open before: what is written meanwhile comes twice, not never.
                        in_order = [("persistence_id", ASCENDING), ("seq", ASCENDING)]
                        async for batch in self._batches.find({}, sort=in_order):
                            for one in _beyond(seen, batch):
                                yield one
                    while True:
                        change = await stream.next()
                        wait = _SHORTEST_WAIT_S
                        async for one in self._without_gap(seen, change["fullDocument"]):
                            yield one
                        token = stream.resume_token
            except OperationFailure as error:
                log.warning("the journal's change stream can't be resumed: %s", error)
                token = None
            except PyMongoError as error:
                log.warning("the journal's change stream broke off: %s", error)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)

    async def _without_gap(self, seen: dict[str, int], batch: Document) -> AsyncIterator[Followed]:
        persistence_id = batch["persistence_id"]
        expected = seen.get(persistence_id, 0) + 1
        if batch["seq"] > expected:
            start = await self._start(persistence_id, expected - 1)
            async for missed in self._from(persistence_id, start):
                for one in _beyond(seen, missed):
                    yield one
        for one in _beyond(seen, batch):
            yield one


def _entries(batch: Document) -> list[Entry]:
    return [Entry(seq, event) for seq, event in enumerate(batch["events"], batch["seq"])]


def _beyond(seen: dict[str, int], batch: Document) -> list[Followed]:
    """What of a batch has not been seen; notes that it is now."""
    persistence_id = batch["persistence_id"]
    last = seen.get(persistence_id, 0)
    seen[persistence_id] = max(last, int(batch["last"]))
    return [Followed(persistence_id, one.seq, one.event) for one in _entries(batch) if one.seq > last]
