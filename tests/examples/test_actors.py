"""The examples do what they say, in plain asyncio and on a real Temporal server."""

from __future__ import annotations

from examples.actors import tickets
from tests.temporal import temporal_server

SAID = ["Seat 1 is yours, Ada.", "Seat 2 is held for Cem.", "Seat 2 is yours, Cem.", "It is sold out."]


async def test_the_box_office_in_this_process() -> None:
    assert await tickets.in_this_process() == SAID


async def test_the_box_office_on_temporal() -> None:
    async with temporal_server() as environment:
        assert await tickets.on_temporal(environment.client.service_client.config.target_host) == SAID
