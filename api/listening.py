"""Listening to one of the store's change streams for all clients of this process: the same for every kind of
thing that is followed.

It never waits for a client, and a client never depends on it alone: what a follower misses here it reads from
the store, so any process serves any client.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Generic, Self, TypeVar

from activities.ports import Resync
from api.subscription import FeedClosed, Limits, Subscription
from goatherd.telemetry import get_logger
from goatherd.telemetry.metrics import FEED_RESYNCS
from goatherd.waiting import put_down

_RETRY_S, _RETRY_MAX_S = 0.1, 5.0

Item = TypeVar("Item")

log = get_logger(__name__)


class Unwanted(Exception):
    """Nobody follows anything: there is no need to listen."""


class Listener(ABC, Generic[Item]):
    """Listens while `running`. While the store is away, it and its followers wait for it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._followers: dict[str, set[Subscription]] = {}
        self._ready = asyncio.Event()
        self._closed = False
        self._wanted = asyncio.Event()
        self._wanted.set()

    @abstractmethod
    def _watch(self) -> AbstractAsyncContextManager[AsyncIterator[Item | Resync]]:
        """The store's change stream."""

    @abstractmethod
    def _hand_out(self, item: Item) -> None:
        """Hands a change to those whom it concerns. Raises `Unwanted` to end listening until it is wanted."""

    @property
    def ready(self) -> bool:
        """Whether the store's changes are coming in right now, if anybody wants them."""
        return self._ready.is_set() or not self._wanted.is_set()

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
            await self._wanted.wait()
            try:
                async with self._watch() as items:
                    self._miss_all()
                    self._ready.set()
                    async for item in items:
                        retry_s = _RETRY_S
                        self._dispatch(item)
                log.warning("the change feed ended, listening again")
            except Unwanted:
                continue
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

    @contextmanager
    def _subscribed(self, followed: str, *, ephemeral: bool = False) -> Iterator[Subscription]:
        """A subscription to what happens to one thing. Raises `FeedClosed`."""
        if self._closed:
            raise FeedClosed
        subscription = Subscription(self._limits, ephemeral=ephemeral)
        followers = self._followers.setdefault(followed, set())
        followers.add(subscription)
        try:
            yield subscription
        finally:
            followers.discard(subscription)
            if not followers and self._followers.get(followed) is followers:
                del self._followers[followed]

    def _dispatch(self, item: Item | Resync) -> None:
        if isinstance(item, Resync):
            FEED_RESYNCS.inc()
            self._miss_all()
        else:
            self._hand_out(item)

    def _miss_all(self) -> None:
        for followers in self._followers.values():
            for subscription in followers:
                subscription.miss()
