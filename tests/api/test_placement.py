"""Which worker a call goes to, also while nobody can say who is there."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from activities.backends.memory import MemoryWorkerRegistry
from activities.ports import WorkerStatus
from api.placement import Place, Placement
from goatherd.errors import Unavailable

STATUS = WorkerStatus(
    identity="a", pools=("inference",), state="ready", queue="own", models={"shout": "ready"}
)
OWN = Place("own", "a")
SHARED = Place("shared")


class Registry(MemoryWorkerRegistry):
    """That may be away, or slow."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.slow = asyncio.Event()
        self.slow.set()
        self.reads = 0

    async def alive(self, *, within_s: float) -> list[WorkerStatus]:
        self.reads += 1
        await self.slow.wait()
        if self.away:
            raise Unavailable("the store is away")
        return await super().alive(within_s=within_s)


@pytest.fixture
async def registry() -> Registry:
    made = Registry()
    await made.report(STATUS)
    return made


@pytest.fixture
def placement(registry: Registry) -> Placement:
    return Placement(registry, "shared")


async def test_while_the_store_is_away_calls_go_by_what_was_known(
    registry: Registry, placement: Placement
) -> None:
    assert await placement.choose("shout") == OWN
    registry.away = True
    placement.forget()
    assert await placement.choose("shout") == OWN


async def test_if_nothing_is_known_the_caller_is_told_why(registry: Registry, placement: Placement) -> None:
    registry.away = True
    with pytest.raises(Unavailable, match="away"):
        await placement.choose("shout")
    registry.away = False
    assert await placement.choose("shout") == OWN


async def test_nobody_waits_for_a_store_that_is_slow(registry: Registry, placement: Placement) -> None:
    await placement.choose("shout")
    registry.slow.clear()
    placement.forget()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*(placement.choose("shout") for _ in range(50))) == [OWN] * 50
    assert registry.reads == 2
    registry.slow.set()


async def test_who_gives_up_does_not_keep_others_from_knowing(
    registry: Registry, placement: Placement
) -> None:
    registry.slow.clear()
    first, second = (asyncio.create_task(placement.choose("shout")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    registry.slow.set()
    assert await second == OWN


async def test_a_worker_is_heard_if_it_has_said_something_of_late(
    registry: Registry, placement: Placement
) -> None:
    assert await placement.hears(OWN)
    assert not await placement.hears(Place("other", "b"))
    await registry.report(replace(STATUS, at=datetime.now(UTC) - timedelta(seconds=4)))
    assert not await placement.hears(OWN)


async def test_the_only_worker_that_is_left_alone_is_named_to_who_needs_one(placement: Placement) -> None:
    placement.shun(OWN)
    assert await placement.choose("shout") == SHARED
    assert await placement.choose("shout", some_worker=True) == OWN
