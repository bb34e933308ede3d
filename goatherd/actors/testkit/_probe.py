"""A probe: an actor of the asynchronous kit that a test looks into and speaks for."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from goatherd.actors._duration import Duration, seconds
from goatherd.actors._ref import Ref
from goatherd.actors._runtime import Runtime
from goatherd.actors.testkit._mail import Mail, Recorder, shown
from goatherd.actors.testkit._receiving import Receiving
from goatherd.actors.testkit._time import Time

M = TypeVar("M")
Kind = TypeVar("Kind")


class Probe(Receiving[M]):
    """`ref` is an actor's: it can be watched, asked and handed out. Messages are taken in their order.

    With manual time an expectation fails as soon as nothing moves any more; with real time, after the kit's
    patience. One that fails raises `AssertionError` and takes nothing out.
    """

    def __init__(self, runtime: Runtime, time: Time, name: str) -> None:
        self._changed = asyncio.Event()
        super().__init__(Mail(name, self._changed.set))
        self._runtime = runtime
        self._time = time
        self._cell = runtime.make(None, Recorder(self._mail), name)
        self.ref: Ref[M] = self._cell.ref

    async def expect_nothing(self, during: Duration = 0.1) -> None:
        """Nothing waits, and nothing comes: `during` so much real time, or until nothing moves by itself."""
        await self._time.rest(lambda: self._mail.has_messages, self._changed, seconds(during))
        self._mail.take_none()

    async def expect_terminated(self, ref: Ref[Any]) -> None:
        """Watches an actor, and waits until it has stopped; one that has already will do."""
        terminated = self._mail.terminated
        if ref not in terminated:
            self._cell.watch(ref, None)
        if not await self._time.until(lambda: ref in terminated, self._changed):
            raise AssertionError(
                f"{self._mail.owner} expected that {ref!r} stops, but only {shown(terminated)} did."
            )

    async def _arrival(self) -> None:
        # If nothing comes, what is taken next says so.
        await self._time.until(lambda: self._mail.has_messages, self._changed)
