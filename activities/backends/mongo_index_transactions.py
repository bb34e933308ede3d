"""Transactions on an index: each begins by changing the index's own document.

So of those on one index only one comes through at a time, whatever they touch besides, and what it counts
and numbers is exact: revisions and entries' numbers appear in their order, without gaps. Those of one process
wait for each other; those of several meet, and begin again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakValueDictionary

from pymongo import ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.mongo_client import store_errors
from activities.backends.mongo_index_forms import Fields, State
from activities.backends.mongo_transactions import in_transaction

Value = TypeVar("Value")


@dataclass(slots=True)
class Held:
    """An index in a transaction: what it numbers with, and what is to change of it at the end."""

    id: str
    fields: Fields
    live: list[int]
    rev: int
    seq: int
    changed: Fields = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def next_rev(self) -> int:
        self.rev += 1
        return self.rev

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    def count_documents(self, by: int) -> None:
        self.counted["documents"] += by

    def count_done(self, version: int, by: int) -> None:
        self.counted[f"tally.{version}.done"] += by

    def count_failed(self, version: int, by: int) -> None:
        self.counted[f"tally.{version}.failed"] += by

    def count_chunks(self, version: int, by: int) -> None:
        self.counted[f"tally.{version}.chunks"] += by

    def no_more(self, version: int, state: State, rev: int) -> None:
        """What this version said of a document's revision does not count any more."""
        if state.is_done(rev):
            self.count_done(version, -1)
        elif state.has_failed(rev):
            self.count_failed(version, -1)

    def update(self) -> Fields:
        change: Fields = {"$set": {"rev": self.rev, "seq": self.seq, **self.changed}}
        if counted := {what: by for what, by in self.counted.items() if by}:
            change["$inc"] = counted
        if self.forgotten:
            change["$unset"] = dict.fromkeys(self.forgotten, "")
        return change


Work = Callable[[Held, AsyncClientSession], Awaitable[Value]]


class IndexTransactions:
    """Of the indexes of one database."""

    def __init__(self, database: AsyncDatabase[Fields]) -> None:
        self._client = database.client
        self._indexes: AsyncCollection[Fields] = database["indexes"]
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def change(self, index: str, work: Work[Value], *, version: int | None = None) -> Value | None:
        """Does `work`, which is begun again from nothing when others come between. None: there is no such
        index, or this is none of its versions.

        Raises:
            Unavailable: the store is away, or others came between for too long.
            Invalid: something can't be kept.
        """
        where: Fields = {"_id": index} if version is None else {"_id": index, "live": version}

        async def whole(session: AsyncClientSession) -> Value | None:
            fields = await self._indexes.find_one_and_update(
                where, {"$inc": {"writes": 1}}, return_document=ReturnDocument.AFTER, session=session
            )
            if fields is None:
                return None
            held = Held(index, fields, fields["live"], fields["rev"], fields["seq"])
            value = await work(held, session)
            await self._indexes.update_one({"_id": index}, held.update(), session=session)
            return value

        with store_errors():
            async with self._turns.setdefault(index, asyncio.Lock()):
                return await in_transaction(self._client, whole)
