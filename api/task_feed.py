"""The store's change stream of tasks: for clients that follow one, and for those who wait for work."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager

from activities.ports import Resync
from activities.task_ports import TaskNews, TaskStore
from api.frames import Cursor, Frame, task_wire
from api.listening import Listener
from api.subscription import Limits
from api.task_follower import TaskFollower
from api.task_lines import Lines
from goatherd.errors import MalformedCursor

_DEFAULTS = Limits()


class TaskFeed(Listener[TaskNews]):
    """One a process. See `Listener`."""

    def __init__(self, store: TaskStore, lines: Lines, limits: Limits = _DEFAULTS) -> None:
        super().__init__(limits)
        self.store = store
        self._lines = lines

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

    async def follow(self, task: str, cursor: Cursor) -> AsyncGenerator[Frame]:
        """What comes after `cursor`, until the task is closed: events in order, each once; a ping after a
        quiet while. Close the generator (`aclosing`).

        Raises:
            SlowConsumer: too much waits, since the frames are taken too slowly.
            FeedClosed: the process is shutting down.
        """
        with self._subscribed(task) as subscription:
            follower = TaskFollower(self.store, subscription, task, cursor, self._limits)
            while not follower.done:
                for frame in await follower.step():
                    yield frame

    def close(self) -> None:
        super().close()
        self._lines.close()

    def _hand_out(self, item: TaskNews) -> None:
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
