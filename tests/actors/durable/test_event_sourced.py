"""Event-sourced actors on a real server, with their journal in a real store."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from pymongo.asynchronous.database import AsyncDatabase
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer, Worker

from activities.backends.mongo_actor_state import MongoStateStore
from activities.backends.mongo_client import connect
from activities.backends.mongo_journal import Followed, MongoJournal
from activities.backends.projection import Document
from goatherd.actors.durable import ActorSystem, Entity, JournalActivities, StateActivities
from goatherd.errors import Conflict, DeadlineExceeded, Fenced, Unavailable
from goatherd.payloads import MemoryPayloadStore, data_converter
from tests.actors.durable.vaults import (
    RINGS,
    Fill,
    Inside,
    Lock,
    OpenVault,
    PlainVaultActor,
    Put,
    Shut,
    Told,
    Unlock,
    VaultActor,
    VaultShelf,
    ring,
)
from tests.servers import EmbeddedStore, embedded_store
from tests.temporal import PATIENCE_S, cli, eventually
from workers.sandbox import workflow_runner

FOLDER = Path(__file__).parent / "event_sourced_histories"
RECORDED = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.json"))}
KILLED = 3
PUTS = 60


@pytest.fixture(scope="module")
async def store() -> AsyncIterator[EmbeddedStore]:
    async with embedded_store() as server:
        yield server


@dataclass
class Vaults:
    """A system whose vaults keep their events in a database of its own."""

    system: ActorSystem
    client: Client
    database: AsyncDatabase[Document]
    journal: MongoJournal

    async def open(self, owner: str, asks_per_run: int = 1_000) -> Entity[OpenVault]:
        vault = self.system.entity(VaultActor, f"vault-{uuid4()}")
        await vault.start(OpenVault(owner=owner, asks_per_run=asks_per_run))
        return vault

    def handle(self, vault: Entity[OpenVault]) -> WorkflowHandle[object, object]:
        return self.client.get_workflow_handle(vault.id)

    async def amounts(self, owner: str) -> list[int]:
        events = [entry.event async for entry in self.journal.read(owner)]
        return [event["value"]["amount"] for event in events if event["type"].endswith(":Came")]


def worker(vaults: Vaults, *, cached: int = 100, sandboxed: bool = False) -> Worker:
    states = StateActivities(MongoStateStore(vaults.database))
    return Worker(
        vaults.client,
        task_queue=vaults.system.task_queue,
        workflows=[VaultActor, PlainVaultActor, VaultShelf],
        activities=[ring, *JournalActivities(vaults.journal).all, states.load, states.save],
        workflow_runner=workflow_runner(sandboxed=sandboxed),
        max_cached_workflows=cached,
        max_concurrent_workflow_tasks=100 if cached else 1,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    )


@asynccontextmanager
async def system_of(temporal: WorkflowEnvironment, store: EmbeddedStore) -> AsyncIterator[Vaults]:
    database = connect(store.uri, f"test_{secrets.token_hex(6)}")
    journal = MongoJournal(database)
    await journal.prepare()
    await MongoStateStore(database).prepare()
    system = ActorSystem(temporal.client, task_queue=str(uuid4()), ask_timeout_s=PATIENCE_S)
    yield Vaults(system, temporal.client, database, journal)
    await database.client.close()


@pytest.fixture
async def idle(temporal: WorkflowEnvironment, store: EmbeddedStore) -> AsyncIterator[Vaults]:
    """Without a worker."""
    async with system_of(temporal, store) as vaults:
        yield vaults


@pytest.fixture
async def vaults(idle: Vaults) -> AsyncIterator[Vaults]:
    async with worker(idle):
        yield idle


@pytest.fixture
def owner() -> str:
    return f"owner-{secrets.token_hex(4)}"


async def rings(what: str, count: int) -> None:
    async def has_rung() -> bool:
        return RINGS[what] >= count

    await eventually(has_rung)
    assert RINGS[what] == count


# -- commands and recovery


async def test_an_event_is_in_the_journal_before_it_is_answered(vaults: Vaults, owner: str) -> None:
    vault = await vaults.open(owner)
    assert await vault.ask(Put(3)) == 3
    assert await vaults.amounts(owner) == [3]
    assert await vault.ask(Put(1, parts=3)) == 6
    assert await vaults.amounts(owner) == [3, 1, 1, 1]


async def test_recovery_completes_on_an_empty_journal(vaults: Vaults, owner: str) -> None:
    vault = await vaults.open(owner)
    assert await vault.ask(Told()) == ["RecoveryCompleted"]
    assert await vaults.journal.highest(owner) == 0


async def test_another_workflow_recovers_by_the_persistence_id_without_side_effects(
    vaults: Vaults, owner: str
) -> None:
    vault = await vaults.open(owner)
    for total in range(1, 7):
        assert await vault.ask(Put(1)) == total
    await rings(f"{owner} 1", 6)
    assert await vault.ask(Shut()) == 6
    other = await vaults.open(owner)
    assert await other.ask(Inside()) == 6
    assert await other.ask(Told()) == ["RecoveryCompleted"]
    assert await other.ask(Put(10)) == 16
    await rings(f"{owner} recovered", 2)
    await rings(f"{owner} 1", 6)


async def test_people_see_the_users_behavior_and_its_state(vaults: Vaults, owner: str) -> None:
    vault = await vaults.open(owner)
    await vault.ask(Put(3))
    with pytest.raises(Conflict):
        await vault.ask(Put(-4))
    assert (await vault.view()).actors[0]["behavior"] == "tests.vault"
    details = await vaults.handle(vault).query("__temporal_workflow_metadata")
    assert "3 inside after event 1" in str(details)
    await vault.ask(Shut())
    assert await vaults.handle(vault).result() == 3


async def test_the_second_of_two_with_one_persistence_id_is_fenced(vaults: Vaults, owner: str) -> None:
    one, other = await vaults.open(owner), await vaults.open(owner)
    await other.ask(Inside())
    await one.ask(Put(1))
    with pytest.raises(Fenced):
        await other.ask(Put(2))
    assert await vaults.amounts(owner) == [1]


async def test_commands_that_come_while_events_are_written_keep_their_order(
    vaults: Vaults, owner: str
) -> None:
    vault = await vaults.open(owner)
    await vault.ask(Lock())
    locked = [asyncio.create_task(vault.ask(Put(amount))) for amount in range(1, 21)]
    await vault.ask(Inside())
    assert await vaults.amounts(owner) == []
    await vault.ask(Unlock())
    sums = await asyncio.gather(*locked)
    assert sums == [sum(range(1, amount + 1)) for amount in range(1, 21)]
    assert await vaults.amounts(owner) == list(range(1, 21))


async def test_without_a_journal_its_history_is_enough(vaults: Vaults, owner: str) -> None:
    vault = vaults.system.entity(PlainVaultActor, f"vault-{uuid4()}")
    await vault.start(OpenVault(owner=owner, asks_per_run=3))
    for total in range(1, 11):
        assert await vault.ask(Put(1)) == total
    assert await vaults.journal.highest(owner) == 0
    assert await vaults.database["journal_snapshots"].count_documents({}) == 0


# -- snapshots


async def test_a_snapshot_every_n_events_of_which_the_last_k_are_kept(vaults: Vaults, owner: str) -> None:
    vault = await vaults.open(owner)
    for _ in range(14):
        await vault.ask(Put(1))

    async def kept() -> bool:
        return await seqs() == [8, 12]

    async def seqs() -> list[int]:
        found = vaults.database["journal_snapshots"].find({"persistence_id": owner}, sort=[("seq", 1)])
        return [one["seq"] async for one in found]

    await eventually(kept)
    assert (await vault.ask(Told())).count("SnapshotCompleted") == 3
    await vault.ask(Shut())
    assert await (await vaults.open(owner)).ask(Inside()) == 14


async def test_a_state_of_3_mb_gives_snapshot_failed_and_the_actor_lives(vaults: Vaults, owner: str) -> None:
    vault = await vaults.open(owner)
    assert await vault.ask(Fill(3_000_000)) == 3_000_000
    for total in range(1, 4):
        assert await vault.ask(Put(1)) == total
    assert await vault.ask(Told()) == ["RecoveryCompleted", "SnapshotFailed"]
    assert await vault.ask(Put(1)) == 4
    await vault.ask(Shut())
    assert await (await vaults.open(owner)).ask(Put(1)) == 5


async def test_a_state_of_3_mb_is_kept_if_there_is_a_store_for_large_payloads(
    idle: Vaults, owner: str
) -> None:
    address = idle.client.service_client.config.target_host
    client = await Client.connect(address, data_converter=data_converter(MemoryPayloadStore()))
    roomy = replace(idle, client=client, system=ActorSystem(client, task_queue=str(uuid4())))
    async with worker(roomy):
        vault = await roomy.open(owner)
        assert await vault.ask(Fill(3_000_000)) == 3_000_000
        for total in range(1, 4):
            assert await vault.ask(Put(1)) == total

        async def kept() -> bool:
            return "SnapshotCompleted" in await vault.ask(Told())

        await eventually(kept)
        snapshot = await idle.journal.load_snapshot(owner)
        assert snapshot is not None
        assert len(snapshot.state["value"]["filling"]) == 3_000_000
        await vault.ask(Shut())
        assert await (await roomy.open(owner)).ask(Put(1)) == 4


# -- runs


@pytest.mark.parametrize("asks_per_run", [1, 2, 3])
async def test_continue_as_new_in_the_middle_of_commands_loses_none(
    vaults: Vaults, owner: str, asks_per_run: int
) -> None:
    vault = await vaults.open(owner, asks_per_run)
    sums = await asyncio.gather(*(vault.ask(Put(1)) for _ in range(10)))
    sums += [await vault.ask(Put(1)) for _ in range(10)]
    assert sorted(sums) == list(range(1, 21))
    assert await vaults.amounts(owner) == [1] * 20
    description = await vaults.handle(vault).describe()
    assert description.run_id != description.raw_info.first_run_id


async def test_each_run_recovers_once_and_a_replay_never(idle: Vaults, owner: str) -> None:
    async with worker(idle, cached=0):
        vault = await idle.open(owner, 4)
        for total in range(1, 4):
            assert await vault.ask(Put(1)) == total
        await rings(f"{owner} recovered", 1)
        for total in range(4, 8):
            assert await vault.ask(Put(1)) == total
        await rings(f"{owner} recovered", 2)
        await rings(f"{owner} 1", 7)


async def test_a_stash_goes_along_to_the_next_run(vaults: Vaults, owner: str) -> None:
    vault = await vaults.open(owner, 3)
    await vault.ask(Lock())
    locked = [asyncio.create_task(vault.ask(Put(1))) for _ in range(5)]
    for _ in range(8):
        await vault.ask(Inside())
    await vault.ask(Unlock())
    assert await asyncio.gather(*locked) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("sandboxed", [True, False], ids=["sandboxed", "bare"])
@pytest.mark.parametrize("recorded", RECORDED)
async def test_a_recorded_history_replays(recorded: str, sandboxed: bool) -> None:
    text = RECORDED[recorded]
    started = json.loads(text)["events"][0]["workflowExecutionStartedEventAttributes"]
    replayer = Replayer(
        workflows=[VaultActor],
        data_converter=pydantic_data_converter,
        workflow_runner=workflow_runner(sandboxed=sandboxed),
    )
    await replayer.replay_workflow(WorkflowHistory.from_json(started["workflowId"], text))


@pytest.mark.parametrize("sandboxed", [True, False], ids=["sandboxed", "bare"])
async def test_its_history_replays(idle: Vaults, owner: str, sandboxed: bool) -> None:
    async with worker(idle, sandboxed=sandboxed):
        vault = await idle.open(owner)
        for _ in range(5):
            await vault.ask(Put(1))
        await vault.ask(Fill(2_000_000))
        await vault.ask(Put(1, parts=3))
        history = await idle.handle(vault).fetch_history()
    replayer = Replayer(
        workflows=[VaultActor],
        data_converter=pydantic_data_converter,
        workflow_runner=workflow_runner(sandboxed=sandboxed),
    )
    await replayer.replay_workflow(history)


async def test_a_workflow_that_was_reset_is_another_writer(vaults: Vaults, owner: str) -> None:
    vault = await vaults.open(owner)
    for total in range(1, 4):
        assert await vault.ask(Put(1)) == total
    history = await vaults.handle(vault).fetch_history()
    appends = [
        event.activity_task_scheduled_event_attributes
        for event in history.events
        if event.activity_task_scheduled_event_attributes.activity_type.name == "actor.journal.append"
    ]
    await cli(
        vaults.client, "workflow", "reset", "-w", vault.id, "--reason", "test", "--reapply-exclude", "All",
        "--event-id", str(appends[2].workflow_task_completed_event_id),
    )  # fmt: skip
    with pytest.raises(Fenced):
        await vault.ask(Put(10))
    assert await vaults.amounts(owner) == [1, 1, 1]
    assert await (await vaults.open(owner)).ask(Put(1)) == 4


# -- others


async def test_a_sharded_entity_keeps_a_journal_and_comes_back(vaults: Vaults) -> None:
    name = f"acct-{uuid4()}"
    vault = vaults.system.entity(VaultShelf, name)
    assert await vault.ask(Put(2)) == 2

    async def away() -> bool:
        return not (await vault.view()).actors

    await eventually(away)
    assert await vault.ask(Put(3)) == 5
    assert await vaults.amounts(f"tests.shelf-vault|{name}") == [2, 3]
    await vaults.client.get_workflow_handle(VaultShelf.shard_of(name)).terminate()


async def test_a_projection_follows_the_journal(vaults: Vaults, owner: str) -> None:
    vault = await vaults.open(owner)
    await vault.ask(Put(1))
    followed: list[Followed] = []
    feed = vaults.journal.follow()
    for put in range(3):
        followed.append(await anext(feed))
        await vault.ask(Put(put + 2))
    await feed.aclose()
    assert [(one.persistence_id, one.seq, one.event["value"]["amount"]) for one in followed] == [
        (owner, 1, 1), (owner, 2, 2), (owner, 3, 3),
    ]  # fmt: skip


async def test_each_command_counts_once_while_workers_are_killed(
    idle: Vaults, store: EmbeddedStore, owner: str
) -> None:
    arguments = (
        *("-m", "tests.actors.durable.vault_worker"),
        *(idle.client.service_client.config.target_host, idle.system.task_queue),
        *(store.uri, idle.database.name),
    )

    async def start() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return process

    async def put(vault: Entity[OpenVault], number: int) -> int:
        while True:
            try:
                total: int = await vault.ask(Put(1), id=f"{owner}-{number}", timeout_s=10.0)
                return total
            except (DeadlineExceeded, Unavailable):
                continue

    process = await start()
    try:
        vault = await idle.open(owner, 25)
        answered = []
        for number in range(KILLED):
            puts = [
                asyncio.create_task(put(vault, number * PUTS // KILLED + one))
                for one in range(PUTS // KILLED)
            ]
            await asyncio.wait(puts, return_when=asyncio.FIRST_COMPLETED)
            process.kill()
            await process.wait()
            process = await start()
            answered += await asyncio.gather(*puts)
        assert sorted(answered) == list(range(1, PUTS + 1))
        assert await idle.amounts(owner) == [1] * PUTS
    finally:
        process.kill()
        await process.wait()
