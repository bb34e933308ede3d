"""What is large of a call: where it goes, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from api.inference import InferenceParts, ModelInference
from api.inference_groups import MOST_FILE_BYTES
from goatherd.contracts.inference_tasks import Media, Task
from goatherd.contracts.inference_work import InferAnswer, InferOrder, Outcome, WorkItem
from goatherd.payloads import LARGE, MemoryPayloadStore, data_converter
from tests.inference.stack import Desk, Office
from tests.temporal import eventually, temporal_server


class Shed(MemoryPayloadStore):
    """Knows how much was ever put there."""

    def __init__(self) -> None:
        super().__init__()
        self.puts = 0

    async def put(self, owner: Any, content: bytes) -> str:
        self.puts += 1
        return await super().put(owner, content)


@pytest.fixture(scope="module")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    async with temporal_server() as environment:
        yield environment


@pytest.fixture
def shed() -> Shed:
    return Shed()


@pytest.fixture
async def office(temporal: WorkflowEnvironment, shed: Shed) -> AsyncIterator[Office]:
    """Its client has a store for what is too large for a message."""
    config = temporal.client.config()
    config["data_converter"] = data_converter(shed)
    made = Office(Client(**config))
    made.payloads = shed
    made.inference = ModelInference(
        InferenceParts(made.client, made.registry, made.placement, made.pieces, shed)
    )
    async with made.inference.running():
        yield made


async def empty(shed: Shed) -> None:
    async def is_empty() -> bool:
        return len(shed) == 0

    await eventually(is_empty)


async def test_a_large_order_and_its_large_answer_are_dropped(office: Office, shed: Shed) -> None:
    async with office.desk("a").running() as desk:
        await office.report(desk, shout="ready")
        outcomes = await office.run("shout", "x" * LARGE)
        assert outcomes[0].output == "X" * LARGE
        assert shed.puts == 2
        await empty(shed)


async def test_a_small_call_stores_nothing(office: Office, shed: Shed) -> None:
    async with office.desk("a").running() as desk:
        await office.report(desk, shout="ready")
        await office.run("shout", "hello")
    assert shed.puts == 0


async def test_a_large_order_that_nobody_waits_for_is_dropped(office: Office, shed: Shed) -> None:
    async def never(desk: Desk, order: InferOrder) -> InferAnswer:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with office.desk("a").running() as desk:
        desk.answering = never
        await office.report(desk, shout="ready")
        call = asyncio.create_task(office.run("shout", "x" * LARGE))
        await desk.arrived.wait()
        call.cancel()
        await empty(shed)
        assert shed.puts == 1


async def test_who_leaves_while_it_is_started_frees_the_worker(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def until_cancelled(desk: Desk, order: InferOrder) -> InferAnswer:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    start = Client.start_activity
    told = asyncio.Event()

    async def slow(self: Client, *arguments: Any, **named: Any) -> Any:
        handle = await start(self, *arguments, **named)
        await told.wait()  # Temporal's answer is on its way.
        return handle

    monkeypatch.setattr(Client, "start_activity", slow)
    async with office.desk("a").running() as desk:
        desk.answering = until_cancelled
        await office.report(desk, shout="ready")
        call = asyncio.create_task(office.run("shout", "hello"))
        await desk.arrived.wait()
        call.cancel()
        await asyncio.wait({call})
        told.set()
        async with asyncio.timeout(8):
            await desk.cancelled.wait()


async def test_an_order_has_no_more_files_than_a_worker_likes_to_hold(office: Office) -> None:
    size = MOST_FILE_BYTES // 4
    go_on = asyncio.Event()

    async def look(desk: Desk, order: InferOrder) -> InferAnswer:
        await go_on.wait()
        return InferAnswer(outcomes=[Outcome(output=[]) for _ in order.items])

    async with office.desk("a").running() as desk:
        desk.answering = look
        await office.report(desk, eye="ready")
        entry = office.registry.entry("eye")

        def ask(n: int) -> asyncio.Task[list[Outcome]]:
            items = [WorkItem(inputs=Media(data=n.to_bytes(4, "big") + bytes(size - 4)))]
            return asyncio.create_task(
                office.inference.run(entry, Task.IMAGE_CLASSIFICATION, items, caller="ann")
            )

        first = ask(0)
        await desk.arrived.wait()
        others = [ask(n) for n in range(1, 13)]

        async def stored() -> bool:
            return len(office.payloads) == 13

        await eventually(stored)
        go_on.set()
        await asyncio.gather(first, *others)
        assert max(len(order.items) for order in desk.orders) == 4


async def test_a_files_bytes_are_let_go_of_when_they_are_stored(office: Office) -> None:
    items = [WorkItem(inputs=Media(data=secrets.token_bytes(200_000)))]

    async def look(desk: Desk, order: InferOrder) -> InferAnswer:
        assert items[0].inputs.keys() == {"claim", "data"}
        assert not items[0].inputs["data"]
        return InferAnswer(outcomes=[Outcome(output=[])])

    async with office.desk("a").running() as desk:
        desk.answering = look
        await office.report(desk, eye="ready")
        entry = office.registry.entry("eye")
        await office.inference.run(entry, Task.IMAGE_CLASSIFICATION, items, caller="ann")
