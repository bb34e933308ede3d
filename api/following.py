"""How a client is led along what happens: step by step, as long as it stays, whatever the store does."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import TypeVar

from api.frames import Frame
from api.subscription import FeedClosed, Limits, SlowConsumer, Subscription
from goatherd.errors import GoatherdError
from goatherd.telemetry import get_logger

Result = TypeVar("Result")

log = get_logger(__name__)


class Following(ABC):
    """`step` gives what is next. Only `step` moves on, so a step that fails is simply taken again.

    `done`: there is nothing to follow any more.
    """

    def __init__(self, subscription: Subscription, limits: Limits, **name: str) -> None:
        """`name`: what is followed, for the log: `session=…` or `task=…`."""
        self.done = False
        self._subscription = subscription
        self._limits = limits
        self._name = name
        self._retry_s = limits.retry_s
        self._failing = False
        self._clock = asyncio.get_running_loop().time
        # When anything was said last, and when anything but a ping.
        self._spoke = self._moved = self._clock()
        self._out: list[Frame] = []

    async def step(self) -> list[Frame]:
        """What is next, which may be nothing yet. Returns within seconds, or as soon as there is something.

        Raises `SlowConsumer` or `FeedClosed`. What the store raises is tried again for as long as it takes.
        """
        self._subscription.check()
        if self._subscription.stale:
            self._subscription.begin()
            self._begin()
        try:
            await self._advance()
            self._failing = False
        except (SlowConsumer, FeedClosed):
            raise
        except Exception as error:
            self._complain(error)
            await self._rest()
        out, self._out = self._out, []
        if out:
            self._spoke = self._moved = self._clock()
        elif self._clock() - self._spoke >= self._limits.ping_s:
            self._spoke = self._clock()
            out = [self._ping()]
        return out

    @abstractmethod
    def _begin(self) -> None:
        """Something may have been missed: the store is read next."""

    @abstractmethod
    async def _advance(self) -> None:
        """Puts what is next into `_out`."""

    @abstractmethod
    def _ping(self) -> Frame:
        """What says that the line is alive."""

    async def _read(self, work: Awaitable[Result]) -> Result:
        """What the store answers, which a shutdown does not wait for."""
        return await self._subscription.unless_closed(work)

    async def _rest(self) -> None:
        """Until something comes by, or the store is to be asked again."""
        await self._subscription.wait(self._next_retry_s())

    def _next_retry_s(self) -> float:
        """How long to wait now for what the store does not have. The next time it is longer."""
        wait_s = self._retry_s
        self._retry_s = min(wait_s * 2, self._limits.retry_max_s)
        return wait_s

    def _complain(self, error: Exception) -> None:
        """Once for each time that reads begin to fail; that the store is away is said elsewhere."""
        if not self._failing and not (isinstance(error, GoatherdError) and error.retryable):
            what = next(iter(self._name))
            log.error(f"following a {what} fails, trying again", **self._name, exc_info=error)
        self._failing = True
