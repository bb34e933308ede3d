"""The clocks of the asynchronous kit, and what it is to wait by each."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from goatherd.actors._duration import Duration, seconds
from goatherd.actors._runtime import Runtime

_QUIET = 20
"""Turns of the event loop in which nothing happens, after which nothing will: work that goes on without
waiting for anything has a step in each of them."""


class Time(ABC):
    """A clock for one kit. The kit attaches its runtime before anything else is called."""

    def __init__(self) -> None:
        self._runtime: Runtime
        self._patience_s: float

    def attach(self, runtime: Runtime, patience_s: float) -> None:
        self._runtime = runtime
        self._patience_s = patience_s

    @abstractmethod
    def now(self) -> float:
        """Seconds, as the actors see them."""

    @abstractmethod
    async def advance(self, duration: Duration) -> None:
        """Has so much time pass."""

    @abstractmethod
    async def until(self, met: Callable[[], bool], changed: asyncio.Event) -> bool:
        """Waits until `met`, which can change when `changed` is set; False: it will not be."""

    @abstractmethod
    async def rest(self, met: Callable[[], bool], changed: asyncio.Event, during_s: float) -> None:
        """Waits as long as it takes to be sure that `met` does not come by itself, or until it has."""

    async def settle(self) -> None:
        """Until no actor has anything to do. Work that waits for something outside is not waited for.

        Raises:
            AssertionError: the actors never come to rest.
        """
        runtime, loop = self._runtime, asyncio.get_running_loop()
        give_up = loop.time() + self._patience_s
        quiet, before = 0, (-1, -1)
        while quiet < _QUIET:
            due = runtime.deadlines.earliest
            if due is not None and due <= self.now():
                runtime.ring()
            await asyncio.sleep(0)
            after = (runtime.processed, sum(len(cell.work) for cell in runtime.cells()))
            quiet = quiet + 1 if runtime.is_idle and after == before else 0
            before = after
            if loop.time() > give_up:
                raise AssertionError(f"The actors did not come to rest in {self._patience_s} s.")


class ManualTime(Time):
    """Stands still until it is moved. Nothing sleeps.

    Real time counts only where actors wait for work from outside (a thread, a socket): a probe waits for that
    as long as the kit has patience.
    """

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self._now = start

    def now(self) -> float:
        return self._now

    async def advance(self, duration: Duration) -> None:
        """Moves the clock. Timers due by then ring in their order, each at its own time, and what comes of
        one is over before the next rings."""
        until = self._now + seconds(duration)
        await self.settle()
        while (due := self._runtime.deadlines.earliest) is not None and due <= until:
            self._now = max(self._now, due)
            await self.settle()
        self._now = until

    async def until(self, met: Callable[[], bool], changed: asyncio.Event) -> bool:
        await self.settle()
        give_up = time.monotonic() + self._patience_s
        while not met():
            handles = [work.handle for cell in self._runtime.cells() for work in cell.work.values()]
            waiting = [handle for handle in handles if isinstance(handle, asyncio.Future)]
            left_s = give_up - time.monotonic()
            if not waiting or left_s <= 0:
                return False
            await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            await self.settle()
        return True

    async def rest(self, met: Callable[[], bool], changed: asyncio.Event, during_s: float) -> None:
        await self.settle()


class RealTime(Time):
    """The clock of the machine."""

    def now(self) -> float:
        return time.time()

    async def advance(self, duration: Duration) -> None:
        """Sleeps, so that the same test can run by either clock."""
        await asyncio.sleep(seconds(duration))
        await self.settle()

    async def until(self, met: Callable[[], bool], changed: asyncio.Event) -> bool:
        return await self._within(met, changed, self._patience_s)

    async def rest(self, met: Callable[[], bool], changed: asyncio.Event, during_s: float) -> None:
        await self._within(met, changed, during_s)

    async def _within(self, met: Callable[[], bool], changed: asyncio.Event, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                while not met():
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            return met()
        return True
