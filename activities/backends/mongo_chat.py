"""Chats in MongoDB: `ChatStore` on five collections.

`sessions`, `messages` and `events` are what there is; `deltas` (a day) and `ephemera` (a minute) are what
passes by. The queries are made for planners of any make: each names exactly an index's fields, and asks
for a range that holds about as much as is wanted. The embedded server reads all that a range holds,
whatever the limit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from activities.backends import mongo_feed, mongo_lists
from activities.backends.mongo_client import make_indexes, store_errors
from activities.backends.mongo_writes import ChatWriter
from activities.backends.projection import Document, to_message
from activities.ports import FeedItem, Page
from goatherd.coalesce import Coalescer
from goatherd.contracts.chat import Delta, Ephemeral, Event, Message, Session
from goatherd.errors import Fenced

_DELTAS_LIVE_S = 86_400
_EPHEMERA_LIVE_S = 60
_REMEMBERED_HEADS = 10_000
_NARROWEST = 8
_PROBES = 16


def _to_event(document: Document) -> Event:
    return Event.model_validate({**document, "id": document["_id"]})


_FOLLOWED: mongo_feed.Readers[Event | Delta | Ephemeral] = {
    "events": _to_event,
    "deltas": Delta.model_validate,
    "ephemera": Ephemeral.model_validate,
}


class MongoChatStore:
    """`ChatStore` on a MongoDB replica set, or on what speaks its protocol with change streams."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._database = database
        self._sessions: AsyncCollection[Document] = database["sessions"]
        self._messages: AsyncCollection[Document] = database["messages"]
        self._events: AsyncCollection[Document] = database["events"]
        self._deltas: AsyncCollection[Document] = database["deltas"]
        self._ephemera: AsyncCollection[Document] = database["ephemera"]
        self._writer = ChatWriter(database)
        # What is read at the same time is read at once: most of a small read is the way there and back.
        self._session_reads: Coalescer[str, Document | None] = Coalescer(partial(_read_by_id, self._sessions))
        self._message_reads: Coalescer[str, Document | None] = Coalescer(partial(_read_by_id, self._messages))
        # The newest number seen of each session; only ever too low, which costs time and nothing else.
        self._heads: OrderedDict[str, int] = OrderedDict()

    async def prepare(self) -> None:
        by_session = [("session", ASCENDING), ("seq", ASCENDING)]
        await make_indexes(
            {
                self._sessions: [
                    IndexModel([("owner", ASCENDING), ("_id", DESCENDING)]),
                    IndexModel([("owner", ASCENDING), ("status", ASCENDING), ("_id", DESCENDING)]),
                    IndexModel([("owner", ASCENDING), ("labels", ASCENDING), ("_id", DESCENDING)]),
                ],
                self._events: [IndexModel(by_session, unique=True)],
                self._messages: [
                    IndexModel(by_session, unique=True),
                    IndexModel(
                        [("session", ASCENDING), ("parent", ASCENDING)],
                        partialFilterExpression={"role": "assistant"},
                    ),
                    IndexModel(
                        [("session", ASCENDING), ("client_id", ASCENDING)],
                        unique=True,
                        partialFilterExpression={"client_id": {"$gt": ""}},
                    ),
                    IndexModel(by_session, name="unfinished", partialFilterExpression={"unfinished": True}),
                ],
                self._deltas: [
                    IndexModel([("message", ASCENDING), ("n", ASCENDING)]),
                    IndexModel([("ts", ASCENDING)], expireAfterSeconds=_DELTAS_LIVE_S),
                ],
                self._ephemera: [IndexModel([("ts", ASCENDING)], expireAfterSeconds=_EPHEMERA_LIVE_S)],
            }
        )

    async def ping(self) -> None:
        # A read, as the embedded server answers the command `ping` even after its storage has failed.
        with store_errors():
            await self._sessions.find_one({"_id": ""}, {"_id": 1})

    # -- written

    async def put_session(self, session: Session) -> None:
        document = session.model_dump()
        document["_id"] = document.pop("id")
        with store_errors():
            try:
                await self._sessions.insert_one(document)
            except DuplicateKeyError:
                return
            await self._writer.heal_session(session.id)

    async def append(self, events: Sequence[Event]) -> set[int]:
        with store_errors():
            taken = await self._writer.append(events)
        for event in events:
            self._remember(event.session, event.seq)
        return taken

    async def put_delta(self, delta: Delta) -> None:
        document = {"_id": f"{delta.message}:{delta.n}", **delta.model_dump()}
        with store_errors():
            try:
                await self._deltas.insert_one(document)
            except DuplicateKeyError as error:
                raise Fenced(f"piece {delta.n} of message {delta.message!r} is another writer's") from error

    async def publish(self, ephemeral: Ephemeral) -> None:
        # One document for a session and type, however many there are: the change stream shows each.
        key = f"{ephemeral.session}:{ephemeral.type}"
        with store_errors():
            try:
                await self._ephemera.replace_one({"_id": key}, ephemeral.model_dump(), upsert=True)
            except DuplicateKeyError:  # two first ones at the same time: now it is there to be replaced
                await self._ephemera.replace_one({"_id": key}, ephemeral.model_dump(), upsert=True)

    # -- read

    async def session(self, session: str) -> Session | None:
        with store_errors():
            document = await self._session_reads.submit(session)
        return None if document is None else _to_session(document)

    async def sessions(
        self, owner: str, page: Page, *, status: str | None = None, label: str | None = None
    ) -> list[Session]:
        where = mongo_lists.owned(owner, status, label)
        with store_errors():
            found = await mongo_lists.by_id(self._sessions, where, page, "chat")
        return [_to_session(document) for document in found]

    async def active_sessions(self, ids: Sequence[str]) -> list[str]:
        with store_errors():
            cursor = self._sessions.find({"_id": {"$in": list(ids)}, "status": "active"}, {"_id": 1})
            active = {document["_id"] async for document in cursor}
        return [one for one in ids if one in active]

    async def last_seq(self, session: str) -> int:
        with store_errors():
            return await self._head(session)

    async def message(self, session: str, message: str) -> Message | None:
        with store_errors():
            document = await self._message(session, message)
        return None if document is None else to_message(document)

    async def message_by_client_id(self, session: str, client_id: str) -> Message | None:
        with store_errors():
            document = await self._messages.find_one({"session": session, "client_id": client_id})
        return None if document is None else to_message(document)

    async def reply_to(self, session: str, message: str) -> Message | None:
        where = {"session": session, "parent": message, "role": "assistant"}
        with store_errors():
            replies = await self._messages.find(where).sort("seq", ASCENDING).limit(1).to_list()
        return to_message(replies[0]) if replies else None

    async def messages(self, session: str, page: Page) -> list[Message]:
        low, high = (page.before, page.after) if page.descending else (page.after, page.before)
        above, below = int(low or 0), None if high is None else int(high)
        # A page before a position is the part of the list that is next to it.
        downwards = page.descending if page.before is None or page.after is not None else not page.descending
        with store_errors():
            found: list[Document] = []
            async for document in self._walk(session, above, below, downwards=downwards, width=page.limit):
                found.append(document)
                if len(found) >= page.limit:
                    break
        if downwards != page.descending:
            found.reverse()
        return [to_message(document) for document in found]

    async def unfinished(self, session: str) -> list[Message]:
        with store_errors():
            cursor = self._messages.find({"session": session, "unfinished": True}).sort("seq", ASCENDING)
            return [to_message(document) async for document in cursor]

    async def branch(self, session: str, leaf: str, *, limit: int) -> list[Message]:
        with store_errors():
            return [to_message(document) for document in await self._branch(session, leaf, limit)][::-1]

    async def events(self, session: str, *, after: int, limit: int) -> list[Event]:
        with store_errors():
            found = await self._range(self._events, session, after, after + limit)
            if len(found) < limit:
                # Numbers have no gaps, so that this was all, but for what is being written right now.
                where = {"session": session, "seq": {"$gt": after + limit}}
                rest = self._events.find(where).sort("seq", ASCENDING).limit(limit - len(found))
                found += await rest.to_list()
        return [_to_event(document) for document in found]

    async def deltas(self, message: str) -> list[Delta]:
        with store_errors():
            documents = await self._deltas.find({"message": message}).sort("n", ASCENDING).to_list()
        whole = [document for place, document in enumerate(documents) if document["n"] == place]
        return [Delta.model_validate(document) for document in whole]

    # -- followed

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[FeedItem]]:
        """See the port. Entering raises `Unavailable` if the store is not there; afterwards nothing does."""
        return mongo_feed.watch(self._database, _FOLLOWED)

    # -- how it reads

    async def _message(self, session: str, message: str) -> Document | None:
        document = await self._message_reads.submit(message)
        mine = document is not None and document["session"] == session and "stub" not in document
        return document if mine else None

    async def _branch(self, session: str, leaf: str, limit: int) -> list[Document]:
        """Newest first. Reads neighbours by pages, as most messages follow one shortly before them; a parent
        that is not among them is read by its id."""
        document = await self._message(session, leaf)
        if document is None:
            return []
        branch, floor, width = [document], document["seq"], limit
        near: dict[str, Document] = {}
        used, page_next = 0, True
        while len(branch) < limit and (parent := branch[-1].get("parent")) is not None:
            if parent in near:
                branch.append(near.pop(parent))
                used += 1
            elif page_next or used:
                if used:  # as wide as it would have to be for all the rest, if it goes on like this
                    width = min((limit - len(branch)) * width // used + 1, 4 * limit)
                page = await self._range(self._messages, session, floor - 1 - width, floor - 1)
                near = {one["_id"]: one for one in page}
                floor = max(floor - width, 1)
                used, page_next = 0, False
            else:
                document = await self._message(session, parent)
                if document is None or document["seq"] >= branch[-1]["seq"]:
                    break
                branch.append(document)
                floor, width, page_next = document["seq"], _NARROWEST, True
        return branch

    async def _walk(
        self, session: str, above: int, below: int | None, *, downwards: bool, width: int
    ) -> AsyncIterator[Document]:
        """Messages with `above` < `seq` < `below`, from one end to the other, by ranges that widen."""
        end = await self._head(session) if below is None else below - 1
        low, high = above, end
        while low < high:
            if downwards:
                start = max(low, high - width)
                page = await self._range(self._messages, session, start, high)
                high = start
            else:
                stop = min(high, low + width)
                page = await self._range(self._messages, session, low, stop)
                low = stop
            for document in reversed(page) if downwards else page:
                yield document
            width *= 2

    @staticmethod
    async def _range(
        collection: AsyncCollection[Document], session: str, above: int, upto: int
    ) -> list[Document]:
        """By `seq`, which is at least 1: what is below is not for reading."""
        where = {"session": session, "seq": {"$gt": max(above, 0), "$lte": upto}}
        return await collection.find(where).sort("seq", ASCENDING).to_list()

    async def _head(self, session: str) -> int:
        """The newest event's number: what lies above a number that is known to be there."""
        low = self._heads.get(session)
        if low is None:
            low = await self._probe(session)
        cursor = self._events.find({"session": session, "seq": {"$gt": low}}, {"_id": 0, "seq": 1})
        head = max([document["seq"] async for document in cursor], default=low)
        if head:
            self._remember(session, head)
        return head

    async def _probe(self, session: str) -> int:
        """A number that is there, close below the newest one: by doubling, then by cutting in pieces."""
        low = step = await self._highest_of(session, [1 << power for power in range(40)])
        while step > _PROBES:
            step = -(-step // _PROBES)
            low = max(low, await self._highest_of(session, [low + step * k for k in range(1, _PROBES)]))
        return low

    async def _highest_of(self, session: str, numbers: list[int]) -> int:
        where = {"session": session, "seq": {"$in": numbers}}
        cursor = self._events.find(where, {"_id": 0, "seq": 1})
        return max([document["seq"] async for document in cursor], default=0)

    def _remember(self, session: str, seq: int) -> None:
        self._heads[session] = max(seq, self._heads.get(session, 0))
        self._heads.move_to_end(session)
        if len(self._heads) > _REMEMBERED_HEADS:
            self._heads.popitem(last=False)


async def _read_by_id(
    collection: AsyncCollection[Document], ids: Sequence[str]
) -> list[Document | BaseException | None]:
    found = {one["_id"]: one async for one in collection.find({"_id": {"$in": list(set(ids))}})}
    return [found.get(one) for one in ids]


def _to_session(document: Document) -> Session:
    return Session.model_validate({**document, "id": document["_id"]})
