"""Long activities say that they live; short ones need not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from temporalio.testing import ActivityEnvironment

from activities.attending import beating

Beats = list[tuple[object, ...]]


async def beats(work: Callable[[asyncio.Event], Awaitable[object]], *details: object) -> Beats:
    """The heartbeats of an activity that does this, and is told when there is one."""
    said: Beats = []
    heard = asyncio.Event()

    def beat(*what: object) -> None:
        said.append(what)
        heard.set()

    async def activity() -> None:
        async with beating(*details):
            await work(heard)

    environment = ActivityEnvironment()
    environment.on_heartbeat = beat
    await environment.run(activity)
    return said


async def a_moment(_: asyncio.Event) -> None:
    """So long that what is to be done at once is done."""
    await asyncio.sleep(0)


async def test_what_is_short_says_nothing() -> None:
    assert await beats(a_moment) == []


async def test_what_takes_long_says_that_it_lives() -> None:
    assert await beats(asyncio.Event.wait) == [()]


async def test_what_the_next_try_needs_is_said_at_once() -> None:
    assert await beats(a_moment, "a", 1) == [("a", 1)]
