"""Hoards on a system, with a store for what is too large or without one, and the runs that they have had."""

from __future__ import annotations

from uuid import uuid4

from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from goatherd.actors.durable import ActorSystem, Entity
from goatherd.payloads import PayloadStore
from tests.actors.durable.hoards import Hoard, OpenHoard
from tests.histories import runs


def address(temporal: WorkflowEnvironment) -> str:
    host: str = temporal.client.service_client.config.target_host
    return host


async def system_of(temporal: WorkflowEnvironment, payloads: PayloadStore | None) -> ActorSystem:
    return await ActorSystem.connect(address(temporal), task_queue=str(uuid4()), payloads=payloads)


async def open_hoard(system: ActorSystem, asks_per_run: int = 2) -> Entity[OpenHoard]:
    hoard = system.entity(Hoard, f"hoard-{uuid4()}")
    await hoard.start(OpenHoard(asks_per_run=asks_per_run))
    return hoard


async def run_ids(client: Client, actor_id: str) -> list[str]:
    """Of an actor's runs, the latest first."""
    return list(await runs(client, actor_id))[::-1]
