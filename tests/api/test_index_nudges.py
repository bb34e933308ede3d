"""Word to ingestions that there is work: what Temporal gets of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from temporalio.api.enums.v1 import EventType

from api.index_nudges import Nudges, by_signal
from goatherd.contracts.retrieval import Index, IndexSpec, Ingest, Version
from goatherd.errors import Unavailable
from tests.api.conftest import make_settings
from tests.temporal import temporal_server

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def index_of(id: str = "idx_01k9w2x6hj3v8m5r7t0q4n1b2c") -> Index:
    version = Version(number=1, spec=IndexSpec(dimensions=0), created_at=NOW)
    return Index(id=id, name="docs", owner="ada", serving=version, created_at=NOW, updated_at=NOW)


async def test_the_first_word_starts_an_ingestion_and_the_next_are_signals_to_it() -> None:
    index = index_of()
    async with temporal_server() as environment:
        tell = by_signal(environment.client, make_settings(task_queue_prefix="farm"))
        await tell(index)
        await tell(index)
        handle = environment.client.get_workflow_handle(f"ingest-{index.id}")
        events = [event async for event in handle.fetch_history_events()]
    started = events[0].workflow_execution_started_event_attributes
    assert (started.workflow_type.name, started.task_queue.name) == ("Ingestion", "farm-actors")
    given = environment.client.data_converter.payload_converter.from_payloads(
        started.input.payloads, [Ingest]
    )
    assert given == [Ingest(index=index.id, owner="ada", task_queue_prefix="farm")]
    signals = [one for one in events if one.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED]
    assert [one.workflow_execution_signaled_event_attributes.signal_name for one in signals] == ["nudge"] * 2


async def test_words_that_are_asked_for_while_one_is_said_are_one_more() -> None:
    said: list[str] = []
    gate, begun = asyncio.Event(), asyncio.Event()

    async def tell(index: Index) -> None:
        said.append(index.id)
        begun.set()
        await gate.wait()

    async with Nudges(tell, apart_s=0).running() as nudges:
        nudges.nudge(index_of())
        await begun.wait()
        for _ in range(10):
            nudges.nudge(index_of())
        nudges.nudge(index_of("idx_2"))
        gate.set()
        await nudges.said(index_of().id)
        await nudges.said("idx_2")
    assert sorted(said) == ["idx_01k9w2x6hj3v8m5r7t0q4n1b2c"] * 2 + ["idx_2"]


async def test_a_word_that_fails_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.index_nudges._AGAIN_S", (0.0,))
    left = [Unavailable("away")] * 3

    async def tell(_: Index) -> None:
        if left:
            raise left.pop()

    async with Nudges(tell, apart_s=0).running() as nudges:
        nudges.nudge(index_of())
        await nudges.said(index_of().id)
    assert left == []


async def test_what_is_still_to_be_said_at_the_end_is_said() -> None:
    said: list[str] = []

    async def tell(index: Index) -> None:
        said.append(index.id)

    async with Nudges(tell).running() as nudges:
        nudges.nudge(index_of())
    assert said == [index_of().id]
