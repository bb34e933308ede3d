"""A rally and a fleet: the same in plain asyncio and on a real Temporal server."""

from __future__ import annotations

from examples.actors import fleet, ping_pong
from tests.temporal import temporal_server

SAID = [
    "boiler, report 1: fine",
    "boiler, report 2: too hot",
    "freezer, report 1: fine",
    "OSError.",
    "ValueError.",
    "boiler, report 1: fine",
    "boiler is retired",
    "freezer, report 1: fine",
    "freezer, freezer (lost)",
]


async def test_in_this_process() -> None:
    assert await ping_pong.in_this_process(1_000) == 1_000
    assert await fleet.in_this_process() == SAID


async def test_on_temporal() -> None:
    async with temporal_server() as environment:
        address = environment.client.service_client.config.target_host
        hits, events = await ping_pong.on_temporal(address, 1_000)
        assert hits == 1_000
        assert events <= 6
        assert await fleet.on_temporal(address) == SAID
