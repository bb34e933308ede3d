"""How far the looks through an index's documents have come, kept apart from what transactions change.

All documents of revisions up to a version's mark are done by it, or failed: a look for what is to do begins
behind it. A mark goes up when a look has found this, unless something below it was made to do since the look
began: whatever does that goes up by one `turn`. `waste`: what is to be swept, as spans of numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

from activities.backends.mongo_index_forms import Fields

DOCUMENTS = "documents"
"""What is to be swept, if it is no version's entries."""


@dataclass(frozen=True, slots=True)
class Mark:
    rev: int
    turn: int


@dataclass(frozen=True, slots=True)
class Waste:
    """Numbers after one and up to another of them."""

    what: str
    after: int
    upto: int


class IndexMarks:
    """Raises the driver's errors: its callers translate them."""

    def __init__(self, database: AsyncDatabase[Fields]) -> None:
        self._marks: AsyncCollection[Fields] = database["index_marks"]

    async def create(self, index: str, versions: Iterable[int], session: AsyncClientSession) -> None:
        marks = {str(version): 0 for version in versions}
        fields = {"_id": index, "turn": 0, "marks": marks, "waste": {}, "dropped": False}
        await self._marks.insert_one(fields, session=session)

    async def begin(self, index: str, version: int, session: AsyncClientSession) -> None:
        await self._marks.update_one({"_id": index}, {"$set": {f"marks.{version}": 0}}, session=session)

    async def mark(self, index: str, version: int) -> Mark:
        found = await self._marks.find_one({"_id": index}, {"turn": 1, f"marks.{version}": 1})
        if found is None:
            return Mark(0, 0)
        return Mark(found["marks"].get(str(version), 0), found["turn"])

    async def advance(self, index: str, version: int, rev: int, turn: int) -> None:
        """Only if nothing was made to do since. Not, if something else is just being written."""
        with suppress(OperationFailure):
            where = {"_id": index, "turn": turn}
            await self._marks.update_one(where, {"$max": {f"marks.{version}": rev}})

    async def go_back(self, index: str, version: int, rev: int, session: AsyncClientSession) -> None:
        """Something of this revision is to do again."""
        change = {"$inc": {"turn": 1}, "$min": {f"marks.{version}": rev - 1}}
        await self._marks.update_one({"_id": index}, change, session=session)

    # -- what is to be swept

    async def discard(self, index: str, upto: Mapping[str, int], session: AsyncClientSession) -> None:
        """Notes what is to be swept, up to which numbers."""
        spans = {f"waste.{what}": {"after": 0, "upto": end} for what, end in upto.items()}
        if spans:
            await self._marks.update_one({"_id": index}, {"$set": spans}, session=session)

    async def drop(self, index: str, upto: Mapping[str, int], session: AsyncClientSession) -> None:
        """Nothing but what is to be swept is left of an index."""
        await self.discard(index, upto, session)
        await self._marks.update_one({"_id": index}, {"$set": {"dropped": True}}, session=session)

    async def waste(self, index: str) -> Waste | None:
        """The next to be swept."""
        found = await self._marks.find_one({"_id": index}, {"waste": 1})
        if found is None:
            return None
        return next((Waste(what, one["after"], one["upto"]) for what, one in found["waste"].items()), None)

    async def wasted(self) -> list[str]:
        """Indexes, dropped ones too, of which there is something to sweep."""
        found = await self._marks.find({}, {"waste": 1, "dropped": 1}).to_list()
        return [one["_id"] for one in found if one["waste"] or one["dropped"]]

    async def swept(self, index: str, waste: Waste, session: AsyncClientSession) -> None:
        """Notes what is left of it."""
        key = f"waste.{waste.what}"
        change: Fields = {"$set": {f"{key}.after": waste.after}}
        if waste.after >= waste.upto:
            change = {"$unset": {key: ""}}
        await self._marks.update_one({"_id": index, key: {"$exists": True}}, change, session=session)

    async def clean(self, index: str) -> None:
        """Forgets an index that is dropped, if all of it is swept."""
        await self._marks.delete_one({"_id": index, "dropped": True, "waste": {}})
