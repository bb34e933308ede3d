"""Durable actors on a real Temporal server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from goatherd.actors.durable import ActorSystem, Entity
from tests.actors.durable.accounts import Account, OpenAccount, double, wait_for_release
from tests.actors.durable.offices import OfficeActor
from tests.temporal import PATIENCE_S, temporal_server
from workers.sandbox import workflow_runner


@dataclass
class Bank:
    """A system, and a queue of its own whose worker runs."""

    system: ActorSystem
    client: Client

    async def account(self, total: int = 0) -> Entity[OpenAccount]:
        account = self.system.entity(Account, f"acct-{uuid4()}")
        await account.start(OpenAccount(owner="me", total=total))
        return account

    async def history_events(self, account: Entity[OpenAccount]) -> int:
        history = await self.client.get_workflow_handle(account.id).fetch_history()
        return len(history.events)


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    async with temporal_server() as environment:
        yield environment


def account_worker(client: Client, task_queue: str) -> Worker:
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[Account, OfficeActor],
        activities=[double, wait_for_release],
        workflow_runner=workflow_runner(sandboxed=True),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    )


@pytest.fixture
async def bank(temporal: WorkflowEnvironment) -> AsyncIterator[Bank]:
    system = ActorSystem(temporal.client, task_queue=str(uuid4()), ask_timeout_s=PATIENCE_S)
    async with account_worker(temporal.client, system.task_queue):
        yield Bank(system, temporal.client)
