"""The write side of chats in MongoDB: events, and the documents that follow from them.

What is cheap decides the shape. An insert costs a fraction of an upsert or update, so that idempotency is
an insert that may find its key taken, and only events that change a message which is there already cost
an update. Events are inserted before anything is applied: what is in their collection is what is true.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from pymongo import UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends import projection
from activities.backends.mongo_client import insert_new
from activities.backends.projection import Change, Document
from goatherd.contracts.chat import Event, EventType

log = logging.getLogger(__name__)


class ChatWriter:
    """Keeps events and applies them. Raises the driver's errors: its caller translates them."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._events: AsyncCollection[Document] = database["events"]
        self._messages: AsyncCollection[Document] = database["messages"]
        self._sessions: AsyncCollection[Document] = database["sessions"]

    async def append(self, events: Sequence[Event]) -> set[int]:
        """`ChatStore.append`."""
        # Followers see events in the order they are inserted.
        order = sorted(range(len(events)), key=lambda index: events[index].seq)
        taken = await self._keep([events[index] for index in order])
        if taken:
            taken = await self._take_back([events[index] for index in order], taken)
        kept = [events[index] for place, index in enumerate(order) if place not in taken]
        await self._apply_to_messages(kept)
        await self.end_sessions(kept)
        return {order[place] for place in taken}

    async def _keep(self, events: Sequence[Event]) -> set[int]:
        """Inserts events; gives the indices of those whose number another event has."""
        refused = await insert_new(self._events, [_event_document(event) for event in events])
        if not refused:
            return set()
        # Which of its keys was found taken doesn't tell: an event that is there already has both.
        there = await _there(self._events, [events[index].id for index in refused])
        return {index for index in refused if events[index].id not in there}

    async def _take_back(self, events: Sequence[Event], taken: set[int]) -> set[int]:
        """What comes after a taken number is of the same other past: it is not kept either."""
        first: dict[str, int] = {}
        for index in sorted(taken):
            first.setdefault(events[index].session, events[index].seq)
        after = {
            index
            for index, event in enumerate(events)
            if index not in taken and event.seq > first.get(event.session, event.seq)
        }
        if after:
            await self._events.delete_many({"_id": {"$in": [events[index].id for index in after]}})
        return taken | after

    async def _apply_to_messages(self, events: Iterable[Event]) -> None:
        new: dict[str, Document] = {}
        changes: dict[str, list[Change]] = {}
        for event in events:
            if (document := projection.created(event)) is not None:
                new.setdefault(document["_id"], document)
            elif (change := projection.change(event)) is not None:
                changes.setdefault(change.message, []).append(change)
        # A message that is made and changed by the same events is inserted as it is after all of them.
        for message in new.keys() & changes.keys():
            for change in changes[message]:
                new[message] = projection.apply(new[message], change)
        there = await self._insert_messages(list(new.values()))
        await self._update_messages(
            [
                change
                for message, several in changes.items()
                if message not in new or message in there
                for change in projection.latest(several)
            ]
        )

    async def _insert_messages(self, documents: list[Document]) -> set[str]:
        """Inserts messages; gives the ids of those that were there already, whole."""
        refused = await insert_new(self._messages, documents)
        if not refused:
            return set()
        ids = [documents[index]["_id"] for index in refused]
        there = await _there(self._messages, ids)
        for index in refused:
            document = documents[index]
            if document["_id"] not in there:
                log.warning(
                    "message %r is not shown: another message of session %r has its seq %d or client id %r",
                    document["_id"],
                    document["session"],
                    document["seq"],
                    document["client_id"],
                )
            elif not _is_whole(there[document["_id"]]):
                await self._rebuild(document["session"], document["_id"])
        return {message for message, found in there.items() if _is_whole(found)}

    async def _update_messages(self, changes: Sequence[Change]) -> None:
        """Applies changes to messages that may have had them, or may not be there yet.

        Goes round until it has seen each of them done: a message that is missing at the update may be there
        at the look that follows, made by somebody who did not know of this change.
        """
        while changes:
            outcome = await self._messages.bulk_write([_guarded(change) for change in changes], ordered=False)
            if outcome.matched_count == len(changes):
                return
            there = await _there(self._messages, [change.message for change in changes])
            missing = [change for change in changes if not _is_whole(there.get(change.message))]
            await self._make_up_for(missing)
            changes = [
                change
                for change in changes
                if change not in missing and projection.applies(there[change.message], change)
            ]

    async def _make_up_for(self, changes: Sequence[Change]) -> None:
        """Does what it can for changes whose message is not there yet: its creation is still under way."""
        # The stub takes the message's id, so that whoever comes to insert the message finds that there is
        # more to it; its number is below every real one, so that no reader meets it.
        stubs: dict[str, Document] = {
            one.message: {"_id": one.message, "session": one.session, "seq": -one.seq, "stub": True}
            for one in changes
        }
        await insert_new(self._messages, list(stubs.values()))
        for stub in stubs.values():
            await self._rebuild(stub["session"], stub["_id"])

    async def _rebuild(self, session: str, message: str) -> None:
        """Makes a message from its stored events, in the place of its stub.

        Called after the caller's own events are stored and the stub is there: of two that come from both
        sides, the later one sees all. If the creating event is not stored yet, the stub stays.
        """
        cursor = self._events.find({"session": session, "message": message})
        events = [_to_event(document) async for document in cursor]
        document = projection.fold(events)
        if document is None:
            return
        replaced = await self._messages.replace_one({"_id": message, "stub": True}, document)
        changes = projection.latest(one for event in events if (one := projection.change(event)) is not None)
        if changes and not replaced.matched_count:
            await self._messages.bulk_write([_guarded(change) for change in changes], ordered=False)

    async def end_sessions(self, events: Iterable[Event]) -> None:
        """Marks sessions as ended whose end is among `events`, unless they are so already."""
        updates = [
            UpdateOne(
                {"_id": event.session, "status": "active"},
                {
                    "$set": {
                        "status": "ended",
                        "end_reason": event.data.get("reason"),
                        "ended_at": event.ts,
                    }
                },
            )
            for event in events
            if event.type is EventType.SESSION_ENDED
        ]
        if updates:
            await self._sessions.bulk_write(updates, ordered=False)

    async def heal_session(self, session: str) -> None:
        """Ends a session that was inserted after its end was stored."""
        cursor = self._events.find({"session": session, "type": EventType.SESSION_ENDED.value}).limit(1)
        await self.end_sessions([_to_event(document) async for document in cursor])


async def _there(collection: AsyncCollection[Document], ids: Sequence[str]) -> dict[str, Document]:
    """Those of `ids` that are there, each with what says how far it is."""
    fields = {"stub": 1, "status": 1, "state_seq": 1, "feedback_seq": 1}
    return {one["_id"]: one async for one in collection.find({"_id": {"$in": list(ids)}}, fields)}


def _is_whole(document: Document | None) -> bool:
    return document is not None and "stub" not in document


def _event_document(event: Event) -> Document:
    document = event.model_dump()
    document["_id"] = document.pop("id")
    return document


def _to_event(document: Document) -> Event:
    return Event.model_validate({**document, "id": document["_id"]})


def _guarded(change: Change) -> UpdateOne:
    """The change as an update that matches only a message which has not had it, nor a later one."""
    guard: Document = {"_id": change.message, "session": change.session, change.clock: {"$lt": change.seq}}
    if change.only_if_queued:
        guard["status"] = "queued"
    update: Document = {
        "$set": {**change.fields, change.clock: change.seq},
        "$max": {"version": change.seq, "updated_at": change.at},
    }
    if change.finishes:
        update["$unset"] = {"unfinished": ""}
    return UpdateOne(guard, update)
