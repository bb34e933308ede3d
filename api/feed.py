"""The store's change stream, brought to every client of this process that follows a session.

One `ChatFeed` a process listens to the store and hands each change to those who follow its session. It
never waits for a client, and a client never depends on it alone: what a follower misses here it reads from
the store (`api/follower.py`), so any process serves any session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Self

from activities.ports import ChatStore, FeedItem, Resync
from api.follower import Follower
from api.frames import Cursor, Frame, wire_form
from api.subscription import FeedClosed, Limits, Subscription
from goatherd.contracts.chat import EventType
from goatherd.errors import MalformedCursor
from goatherd.telemetry import get_logger
from goatherd.telemetry.metrics import FEED_RESYNCS
from goatherd.waiting import put_down

_RETRY_S, _RETRY_MAX_S = 0.1, 5.0
_DEFAULTS = Limits()

log = get_logger(__name__)


class ChatFeed:
    """Listens while `running`. While the store is away, it and its followers wait for it."""

    def __init__(self, store: ChatStore, limits: Limits = _DEFAULTS) -> None:
        self.store = store
        self._limits = limits
        self._followers: dict[str, set[Subscription]] = {}
        self._ready = asyncio.Event()
        self._closed = False

    @property
    def ready(self) -> bool:
        """Whether the store's changes are coming in right now."""
        return self._ready.is_set()

    async def wait_ready(self) -> None:
        await self._ready.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        task = asyncio.create_task(self.run())
        try:
            yield self
        finally:
            self.close()
            await put_down(task)

    async def run(self) -> None:
        """Listens until cancelled, whatever happens to the store; begins anew with all to be read again."""
        retry_s = _RETRY_S
        while True:
            try:
                async with self.store.watch() as items:
                    self._miss_all()
                    self._ready.set()
                    async for item in items:
                        retry_s = _RETRY_S
                        self._dispatch(item)
                log.warning("the change feed ended, listening again")
            except Exception as error:
                log.warning("the change feed is lost, listening again", error=repr(error))
            finally:
                self._ready.clear()
            FEED_RESYNCS.inc()
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, _RETRY_MAX_S)

    def close(self) -> None:
        """Ends everybody's following with `FeedClosed`, at once: the process is about to go."""
        self._closed = True
        for followers in self._followers.values():
            for subscription in followers:
                subscription.close()

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
        if self._closed:
            raise FeedClosed
        subscription = Subscription(self._limits, ephemeral=ephemeral)
        followers = self._followers.setdefault(session, set())
        followers.add(subscription)
        try:
            follower = Follower(
                self.store, subscription, session, cursor, messages=messages, limits=self._limits
            )
            while not follower.done:
                for frame in await follower.step():
                    yield frame
        finally:
            followers.discard(subscription)
            if not followers and self._followers.get(session) is followers:
                del self._followers[session]

    def _dispatch(self, item: FeedItem) -> None:
        if isinstance(item, Resync):
            FEED_RESYNCS.inc()
            self._miss_all()
            return
        followers = self._followers.get(item.session)
        if followers:
            wire = wire_form(item)
            for subscription in followers:
                subscription.offer(wire)

    def _miss_all(self) -> None:
        for followers in self._followers.values():
            for subscription in followers:
                subscription.miss()
