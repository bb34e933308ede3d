"""Records the histories of vaults that test_event_sourced replays.

`python -m tests.actors.durable.record_event_sourced`; see `record`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from temporalio.worker import Worker

from goatherd.actors.durable import ActorSystem, JournalActivities
from goatherd.actors.persistence import MemoryJournal
from goatherd.errors import GoatherdError
from goatherd.leaving import leave
from tests.actors.durable.vaults import Fill, Lock, OpenVault, Put, Shut, Unlock, VaultActor, ring
from tests.histories import record
from tests.temporal import temporal_server

HISTORIES = Path(__file__).parent / "event_sourced_histories"


async def vault(system: ActorSystem, name: str) -> str:
    """Recovery, commands at once and one by one, a stash, a refusal, snapshots, one too large, two runs."""
    one = system.entity(VaultActor, name)
    await one.start(OpenVault(owner="recorded", asks_per_run=12))
    await asyncio.gather(*(one.ask(Put(amount)) for amount in range(1, 6)))
    with suppress(GoatherdError):
        await one.ask(Put(-1_000_000))
    await one.ask(Put(2, parts=3))
    await one.ask(Lock())
    locked = [asyncio.create_task(one.ask(Put(1))) for _ in range(3)]
    await one.ask(Unlock())
    await asyncio.gather(*locked)
    await one.ask(Fill(1_100_000))
    for _ in range(5):
        await one.ask(Put(1))
    await one.ask(Fill(0))
    for _ in range(5):
        await one.ask(Put(1))
    await one.ask(Shut())
    return one.id


async def main() -> None:
    HISTORIES.mkdir(exist_ok=True)
    for old in HISTORIES.glob("*.json"):
        old.unlink()
    async with temporal_server() as environment:
        system = ActorSystem(environment.client, task_queue="record")
        worker = Worker(
            system.client,
            task_queue=system.task_queue,
            workflows=[VaultActor],
            activities=[ring, *JournalActivities(MemoryJournal()).all],
        )
        async with worker:
            for name in ("vault", "recovered"):
                await record(system.client, await vault(system, name), HISTORIES, name)


if __name__ == "__main__":
    asyncio.run(main())
    leave()  # Temporal's threads may abort an interpreter that ends.
