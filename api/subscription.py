"""What waits for one client that follows a session: bounded, and never in the way of anybody else."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from api.frames import Wire
from goatherd.contracts.chat import Ephemeral
from goatherd.errors import GoatherdError, Unavailable

Result = TypeVar("Result")


class SlowConsumer(GoatherdError):
    """The client reads slower than its session goes on. It may come back with its cursor."""

    code = "slow-consumer"

    def __init__(self) -> None:
        super().__init__("The client reads too slowly; connect again with the last cursor.")


class FeedClosed(Unavailable):
    """This process is shutting down; any other serves the session as well."""

    code = "restarting"

    def __init__(self) -> None:
        super().__init__("The server restarts; connect again with the last cursor.")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait for one client, and how often things are done that nothing calls for."""

    queue_items: int = 1_000
    queue_bytes: int = 4 << 20
    check_s: float = 7.5
    """After so long without a change the store is asked whether one was missed."""
    ping_s: float = 15.0
    retry_s: float = 0.02
    """The first wait for what the store doesn't have yet; it doubles up to `retry_max_s`."""
    retry_max_s: float = 1.0


class Subscription:
    """Between the feed, which offers and never waits, and one follower, which takes.

    It begins, and after `miss` again becomes, `stale`: what is offered is dropped until the follower calls
    `begin` and reads the store. Overflow while it reads (`reading`) makes it stale again; overflow when it
    was up to date is the client's fault.
    """

    def __init__(self, limits: Limits, *, ephemeral: bool) -> None:
        self.stale = True
        self.reading = True
        self._limits = limits
        self._ephemeral = ephemeral
        self._queue: deque[Wire] = deque()
        self._bytes = 0
        self._overflowed = False
        self._wake = asyncio.Event()
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # -- the feed's side

    def offer(self, wire: Wire) -> None:
        if self.stale or self._overflowed:
            return
        passing = isinstance(wire.item, Ephemeral)
        room = self._limits.queue_items // 2 if passing else self._limits.queue_items
        fits = not self._queue or self._bytes + len(wire.body) <= self._limits.queue_bytes
        if passing and (not self._ephemeral or len(self._queue) >= room):
            return
        if len(self._queue) < room and fits:
            self._queue.append(wire)
            self._bytes += len(wire.body)
        else:
            self._clear()
            self.stale = self.reading
            self._overflowed = not self.reading
        self._wake.set()

    def miss(self) -> None:
        """Something was not offered that should have been."""
        self._clear()
        self.stale = True
        self._wake.set()

    def close(self) -> None:
        if not self._closed.done():
            self._closed.set_result(None)
        self._wake.set()

    # -- the follower's side

    def begin(self) -> None:
        """From now on what is offered waits, since it may be newer than what is read next."""
        self.stale, self.reading = False, True

    def take(self) -> Wire | None:
        if not self._queue:
            return None
        wire = self._queue.popleft()
        self._bytes -= len(wire.body)
        return wire

    def check(self) -> None:
        """Raises `FeedClosed` or `SlowConsumer` if there is no going on."""
        if self._closed.done():
            raise FeedClosed
        if self._overflowed:
            raise SlowConsumer

    async def wait(self, timeout_s: float) -> bool:
        """Until something new is offered, or goes wrong; False if nothing did in time."""
        if self.stale or self._overflowed or self._closed.done():
            return True
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                return await self._wake.wait()
        return False

    async def unless_closed(self, work: Awaitable[Result]) -> Result:
        """The result of `work`, which a shutdown does not wait for: then `FeedClosed`."""
        task = asyncio.ensure_future(work)
        both: list[asyncio.Future[Any]] = [task, self._closed]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise FeedClosed
            return task.result()
        finally:
            task.cancel()

    def _clear(self) -> None:
        self._queue.clear()
        self._bytes = 0
