"""The store's change stream of tasks: for clients that follow one, and for those who wait for work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress

from activities.ports import Resync
from activities.task_ports import TaskNews, TaskStore
from api.frames import Cursor, Frame, task_wire
from api.listening import Listener, Unwanted
from api.subscription import Limits
from api.task_follower import TaskFollower
from api.task_lines import Lines
from goatherd.errors import MalformedCursor

IDLE_S = 30.0
"""So long it goes on being listened to when nobody wants it."""
_OPENS_WITHIN_S = 1.0
_DEFAULTS = Limits()


class TaskFeed(Listener[TaskNews]):
    """One a process. See `Listener`."""

    def __init__(
        self, store: TaskStore, lines: Lines, limits: Limits = _DEFAULTS, *, idle_s: float = IDLE_S
    ) -> None:
        super().__init__(limits)
        self.store = store
        self._lines = lines
        self._idle_s = idle_s
        self._used_at = 0.0
        # All that happens to all tasks comes by: it is listened to while somebody wants it.
        self._wanted.clear()

    def _watch(self) -> AbstractAsyncContextManager[AsyncIterator[TaskNews | Resync]]:
        return self.store.watch()

    async def check(self, task: str, cursor: Cursor) -> bool:
        """Whether the task is closed and the cursor has seen its end: there is nothing to follow then.

        Raises `MalformedCursor` if the task has never come as far as the cursor says.
        """
        if cursor.message is not None:
            raise MalformedCursor("A cursor here is the `seq` of an event, as you were sent it.")
        if cursor.seq == 0:
            return False
        document = await self.store.task(task)
        newest = max(document.version if document else 0, 0)
        if cursor.seq > newest and cursor.seq > await self.store.last_seq(task):
            raise MalformedCursor(
                f"The task has no event {cursor.seq} yet. Leave the cursor out, or use one you were sent."
            )
        return document is not None and document.closed_at is not None and cursor.seq >= newest

    async def listen(self) -> None:
        """Returns when changes come in; or after a moment, when the store is away."""
        self._want()
        if not self._ready.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_OPENS_WITHIN_S):
                    await self.wait_ready()

    async def follow(self, task: str, cursor: Cursor) -> AsyncGenerator[Frame]:
        """What comes after `cursor`, until the task is closed: events in order, each once; a comment after a
        quiet while. Close the generator (`aclosing`).

        Raises:
            SlowConsumer: too much waits, since the frames are taken too slowly.
            FeedClosed: the process is shutting down.
        """
        self._want()
        with self._subscribed(task) as subscription:
            follower = TaskFollower(self.store, subscription, task, cursor, self._limits)
            while not follower.done:
                for frame in await follower.step():
                    yield frame

    def close(self) -> None:
        super().close()
        self._lines.close()

    def _want(self) -> None:
        self._used_at = asyncio.get_running_loop().time()
        self._wanted.set()

    def _hand_out(self, item: TaskNews) -> None:
        now = asyncio.get_running_loop().time()
        if self._followers or self._lines:
            self._used_at = now
        elif now - self._used_at > self._idle_s:
            self._wanted.clear()
            raise Unwanted
        self._lines.on_events(item.task, item.events)
        followers = self._followers.get(item.task)
        if followers:
            for event in item.events:
                wire = task_wire(event)
                for subscription in followers:
                    subscription.offer(wire)

    def _miss_all(self) -> None:
        super()._miss_all()
        self._lines.on_missed()
