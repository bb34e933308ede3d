"""A session's actor on a real Temporal server, with a store in memory and a scripted model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from temporalio.api.enums.v1 import EventType as TemporalEvent
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment

from activities.backends.memory import MemoryChatStore
from activities.backends.model_host import ModelHost
from goatherd.contracts.chat import (
    Changed,
    Event,
    EventType,
    Message,
    Posted,
    PostMessage,
    StartSession,
)
from goatherd.contracts.ids import new_id
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.model import Contract
from goatherd.contracts.queues import Pool
from goatherd.settings import Settings
from goatherd.temporal import ask
from tests.temporal import eventually, temporal_server
from workers.pools import Parts, build_workers

ALL_POOLS = (Pool.ACTORS, Pool.INFERENCE, Pool.STORE)


@dataclass
class House:
    """One of everything, and short words for what tests do with it."""

    client: Client
    store: MemoryChatStore
    settings: Settings

    async def begin(self, **fields: object) -> WorkflowHandle[object, object]:
        start = StartSession.model_validate(
            {"task_queue_prefix": self.settings.task_queue_prefix, "model": "scripted"} | fields
        )
        return await self.client.start_workflow(
            "ChatSession", start, id=new_id("chat"), task_queue=self.settings.task_queue(Pool.ACTORS)
        )

    async def post(self, session: str, content: str, **fields: object) -> Posted:
        message = PostMessage.model_validate({"content": content} | fields)
        return await ask(self.client, session, message, Posted, timeout_s=20)

    async def tell(self, session: str, message: Contract) -> Changed:
        return await ask(self.client, session, message, Changed, timeout_s=20)

    async def finished(self, session: str, reply: str) -> Message:
        """The reply, once the store has it as finished."""
        found: Message | None = None

        async def check() -> bool:
            nonlocal found
            found = await self.store.message(session, reply)
            return found is not None and found.status not in ("queued", "in_progress")

        await eventually(check, within_s=20)
        assert found is not None
        return found

    async def growing(self, session: str, reply: str) -> None:
        """Until the first piece of a reply is there."""

        async def check() -> bool:
            return bool(await self.store.deltas(reply))

        await eventually(check)

    async def settled(self, session: str) -> int:
        """The events of the session's history, once nothing is under way in it."""
        count = 0

        async def check() -> bool:
            nonlocal count
            history = await self.client.get_workflow_handle(session).fetch_history()
            kinds = [event.event_type for event in history.events]
            count = len(kinds)
            begun = kinds.count(TemporalEvent.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED)
            done = kinds.count(TemporalEvent.EVENT_TYPE_ACTIVITY_TASK_COMPLETED)
            return begun == done and kinds[-1] == TemporalEvent.EVENT_TYPE_WORKFLOW_TASK_COMPLETED

        await eventually(check)
        return count

    async def ended(self, session: str) -> str | None:
        """Why the store's session ended, once it has."""

        async def check() -> bool:
            stored = await self.store.session(session)
            return stored is not None and stored.status == "ended"

        await eventually(check)
        stored = await self.store.session(session)
        assert stored is not None
        return stored.end_reason

    async def events(self, session: str) -> list[Event]:
        events = await self.store.events(session, after=0, limit=100_000)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        return events

    async def kinds(self, session: str) -> list[EventType]:
        return [event.type for event in await self.events(session)]


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    async with temporal_server() as environment:
        yield environment


def make_house(client: Client) -> House:
    settings = Settings(
        task_queue_prefix=new_id("req"),
        models={"scripted": ModelSpec(provider="scripted")},
        model="scripted",
        inference_slots=4,
        workflow_sandbox=True,
    )
    return House(client, MemoryChatStore(), settings)


@pytest.fixture
async def house(temporal: WorkflowEnvironment) -> AsyncIterator[House]:
    house = make_house(temporal.client)
    parts = Parts(house.client, house.store, ModelHost(house.settings), house.settings)
    async with AsyncExitStack() as stack:
        for worker in build_workers(ALL_POOLS, parts):
            await stack.enter_async_context(worker)
        yield house
        await asyncio.sleep(0)
