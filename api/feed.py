"""The store's change stream of chats, brought to every client of this process that follows a session."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager

from activities.ports import ChatStore, Resync
from api.follower import Follower
from api.frames import Cursor, Frame, wire_form
from api.listening import Listener
from api.subscription import Limits
from goatherd.contracts.chat import Delta, Ephemeral, Event, EventType
from goatherd.errors import MalformedCursor

_DEFAULTS = Limits()

Change = Event | Delta | Ephemeral


class ChatFeed(Listener[Change]):
    """One a process. See `Listener`."""

    def __init__(self, store: ChatStore, limits: Limits = _DEFAULTS) -> None:
        super().__init__(limits)
        self.store = store

    def _watch(self) -> AbstractAsyncContextManager[AsyncIterator[Change | Resync]]:
        return self.store.watch()

    async def check(self, session: str, cursor: Cursor) -> bool:
        """Whether the session has ended and the cursor has seen it: there is nothing to follow then.

        Raises `MalformedCursor` if the session has never come as far as the cursor says.
        """
        if cursor.seq == 0:
            return False
        found = await self.store.events(session, after=cursor.seq - 1, limit=1)
        if not found:
            raise MalformedCursor(
                f"The session has no event {cursor.seq} yet. Leave the cursor out, or use one you were sent."
            )
        return found[0].seq == cursor.seq and found[0].type is EventType.SESSION_ENDED

    async def end_of(self, session: str) -> Cursor:
        """The cursor of a client that wants only what is new, and the reply that is under way."""
        return Cursor(await self.store.last_seq(session))

    async def follow(
        self,
        session: str,
        cursor: Cursor,
        *,
        ephemeral: bool = False,
        messages: Collection[str] | None = None,
    ) -> AsyncGenerator[Frame]:
        """What comes after `cursor`, until the session ends: events in order, each once; deltas of replies
        that are not finished, each piece once; a ping after a quiet while; what passes by, if `ephemeral`.

        `messages` narrows it to events and deltas of these messages. Close the generator (`aclosing`).

        Raises:
            SlowConsumer: too much waits, since the frames are taken too slowly.
            FeedClosed: the process is shutting down.
        """
        with self._subscribed(session, ephemeral=ephemeral) as subscription:
            follower = Follower(
                self.store, subscription, session, cursor, messages=messages, limits=self._limits
            )
            while not follower.done:
                for frame in await follower.step():
                    yield frame

    def _hand_out(self, item: Change) -> None:
        followers = self._followers.get(item.session)
        if followers:
            wire = wire_form(item)
            for subscription in followers:
                subscription.offer(wire)
