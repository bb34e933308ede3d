"""Long activities say that they live; short ones need not."""

from __future__ import annotations

import asyncio

from temporalio.testing import ActivityEnvironment

from activities.attending import beating


async def beats(work_s: float, *details: object) -> list[tuple[object, ...]]:
    """The heartbeats of an activity that takes so long."""
    said: list[tuple[object, ...]] = []
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *beat: said.append(beat)

    async def work() -> None:
        async with beating(*details):
            await asyncio.sleep(work_s)

    await environment.run(work)
    return said


async def test_what_is_short_says_nothing() -> None:
    assert await beats(0.05) == []


async def test_what_takes_long_says_that_it_lives() -> None:
    assert await beats(0.7) == [()]


async def test_what_the_next_try_needs_is_said_at_once() -> None:
    assert await beats(0.05, "a", 1) == [("a", 1)]
