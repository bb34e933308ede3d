"""Sharded entities: the semantics of any durable actor, in few workflows, and in memory only while used."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowUpdateStage
from temporalio.exceptions import CancelledError
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from goatherd.actors import ActorFailed, ActorStopped
from goatherd.actors.durable import ActorSystem, Entity, Resident, StateActivities
from goatherd.errors import Conflict, DeadlineExceeded, Invalid, Unavailable
from tests.actors.durable.accounts import (
    Account,
    AskHelper,
    Break,
    Close,
    Convert,
    Credit,
    Deposit,
    Later,
    OpenAccount,
    Total,
    Transfer,
    WatchOther,
    WhoStopped,
    Withdraw,
    double,
)
from tests.actors.durable.shared_accounts import Borrow, Lender, SharedAccount, Shelf, Use
from tests.actors.durable.watching import until_told
from tests.servers import embedded_store
from tests.temporal import cli, eventually
from workers.sandbox import workflow_runner

SHARD = SharedAccount.shard_of("any")


@dataclass
class Shards:
    """A system whose accounts are entities of one shard, with a worker of its own and a store."""

    system: ActorSystem
    client: Client
    shelf: Shelf

    def account(self, name: str | None = None) -> Resident:
        return self.system.entity(SharedAccount, name or f"acct-{uuid4()}")

    async def events(self) -> int:
        return len((await self.client.get_workflow_handle(SHARD).fetch_history()).events)

    async def run_id(self) -> str | None:
        return (await self.client.get_workflow_handle(SHARD).describe()).run_id

    async def is_away(self, account: Resident) -> bool:
        return not (await account.view()).actors

    async def until_away(self, account: Resident) -> None:
        await eventually(lambda: self.is_away(account))


async def end_shard(client: Client) -> None:
    for shard in (SHARD, Lender.shard_of("any")):
        with suppress(RPCError):
            await client.get_workflow_handle(shard).terminate()


def worker(client: Client, task_queue: str, shelf: Shelf) -> Worker:
    states = StateActivities(shelf)
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[SharedAccount, Lender, Account],
        activities=[double, states.load, states.save],
        workflow_runner=workflow_runner(sandboxed=True),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    )


@pytest.fixture
async def shards(temporal: WorkflowEnvironment) -> AsyncIterator[Shards]:
    system = ActorSystem(temporal.client, task_queue=str(uuid4()))
    shelf = Shelf()
    async with worker(temporal.client, system.task_queue, shelf):
        yield Shards(system, temporal.client, shelf)
        await end_shard(temporal.client)


# -- the same semantics, sharded or not


@dataclass
class Opened:
    """An account, and its address for other actors."""

    actor: Entity[OpenAccount] | Resident
    address: str

    async def ask(self, request: Any, **options: Any) -> Any:
        return await self.actor.ask(request, **options)


Open = Callable[[], Any]


@pytest.fixture(params=["sharded", "workflow"])
def open_account(request: pytest.FixtureRequest, shards: Shards) -> Open:
    async def entity() -> Opened:
        account = shards.account()
        await account.ask(Total())
        return Opened(account, SharedAccount.address(account.id))

    async def workflow() -> Opened:
        account = shards.system.entity(Account, f"acct-{uuid4()}")
        await account.start(OpenAccount())
        return Opened(account, account.id)

    return entity if request.param == "sharded" else workflow


async def test_an_ask_is_answered(open_account: Open) -> None:
    account = await open_account()
    assert await account.ask(Deposit(3)) == 3
    assert await account.ask(Deposit(3)) == 6


async def test_a_tell_is_handled_before_a_later_ask(open_account: Open) -> None:
    account = await open_account()
    await account.actor.tell(Credit(3))
    assert await account.ask(Total()) == 3


async def test_a_refusal_is_raised_as_what_it_was(open_account: Open) -> None:
    account = await open_account()
    with pytest.raises(Conflict, match="not enough"):
        await account.ask(Withdraw(1))
    with pytest.raises(Invalid, match="something"):
        await account.ask(Deposit(0))


async def test_what_an_actor_raises_fails_its_asker(open_account: Open) -> None:
    account = await open_account()
    with pytest.raises(ActorFailed, match="KeyError"):
        await account.ask(Break())


async def test_an_answer_may_come_later(open_account: Open) -> None:
    account = await open_account()
    late = asyncio.create_task(account.ask(Later(0.5)))
    await asyncio.sleep(0)
    assert await account.ask(Deposit(1)) == 1
    assert await late == 1


async def test_an_activity_and_a_child_answer(open_account: Open) -> None:
    account = await open_account()
    assert await account.ask(Convert(21)) == 42
    assert await account.ask(AskHelper(7)) == 7


async def test_a_repeated_id_counts_once(open_account: Open) -> None:
    account, other = await open_account(), await open_account()
    assert await account.ask(Deposit(3), id="one") == 3
    assert await account.ask(Deposit(3), id="one") == 3
    assert await other.ask(Deposit(4), id="one") == 4  # an id is one of its actor
    await account.actor.tell(Credit(5), id="two")
    await account.actor.tell(Credit(5), id="two")
    assert await account.ask(Total()) == 8


async def test_one_asks_another(open_account: Open) -> None:
    one, two = await open_account(), await open_account()
    assert await one.ask(Transfer(two.address, 4)) == 4
    assert await two.ask(Total()) == 4


async def test_one_is_told_that_another_that_it_watches_has_stopped(open_account: Open) -> None:
    one, two = await open_account(), await open_account()
    await one.ask(WatchOther(two.address))
    await two.ask(Close())
    await until_told(one, two.address)


async def test_watching_one_that_has_stopped_tells_at_once(open_account: Open) -> None:
    one, two = await open_account(), await open_account()
    await two.ask(Close())
    await one.ask(WatchOther(two.address))
    await until_told(one, two.address)


# -- life and death of entities


async def test_the_first_message_creates_an_entity_and_its_shard(shards: Shards) -> None:
    await shards.account("told").tell(Credit(2))
    assert await shards.account("told").ask(Total()) == 2
    assert await shards.account("asked").ask(Deposit(3)) == 3
    addresses = [one["address"] for one in (await shards.account("told").view()).actors]
    assert addresses[0] == f"{SHARD}/told"
    assert len(addresses) == 2  # with its helper


async def test_an_id_may_have_any_characters(shards: Shards) -> None:
    odd = shards.account("a/b#c~d$e é%2F")
    assert await odd.ask(Deposit(1)) == 1
    assert await odd.ask(Close()) == "a/b#c~d$e é%2F"


async def test_what_the_check_refuses_is_refused_before_there_is_an_entity(shards: Shards) -> None:
    with pytest.raises(Invalid, match="something"):
        await shards.account("new").ask(Deposit(0))


async def test_an_entity_that_fails_stops_alone(shards: Shards) -> None:
    one, two = shards.account(), shards.account()
    await asyncio.gather(one.ask(Deposit(1)), two.ask(Deposit(1)))
    outcomes = await asyncio.gather(
        one.ask(Break()), two.ask(Deposit(1)), two.ask(Total()), return_exceptions=True
    )
    assert isinstance(outcomes[0], ActorFailed)
    assert list(outcomes[1:]) == [2, 2]
    assert await one.ask(Total()) == 0  # anew


async def test_an_entity_without_a_behavior_fails_alone(shards: Shards) -> None:
    with pytest.raises(ActorFailed, match="KeyError"):
        await shards.account("nobody's").ask(Total())
    assert await shards.account().ask(Deposit(1)) == 1


async def test_a_stopped_entity_begins_anew(shards: Shards) -> None:
    account = shards.account()
    await account.ask(Deposit(5))
    await account.ask(Close())
    assert await account.ask(Deposit(1)) == 1


async def test_a_stopped_entity_does_not_come_back_from_the_store(shards: Shards) -> None:
    account = shards.account()
    await account.ask(Deposit(5))
    await shards.until_away(account)
    assert await account.ask(Total()) == 5
    await account.ask(Close())
    assert await account.ask(Deposit(1)) == 1
    await shards.until_away(account)
    assert await account.ask(Total()) == 1
    await account.ask(Close())
    stored = await shards.shelf.load("TestShared", account.id)
    await eventually(lambda: _is_deleted(shards, account))
    assert stored is not None
    assert await account.ask(Total()) == 0


async def _is_deleted(shards: Shards, account: Resident) -> bool:
    stored = await shards.shelf.load("TestShared", account.id)
    return stored is not None and stored.state is None


async def test_asks_of_many_entities_travel_together(shards: Shards) -> None:
    accounts = [shards.account() for _ in range(100)]
    await asyncio.gather(*(account.ask(Total()) for account in accounts))
    first, *others = accounts
    run, before = await shards.run_id(), await shards.events()
    waiting = asyncio.create_task(first.ask(Deposit(1)))
    await asyncio.sleep(0)
    assert await asyncio.gather(*(account.ask(Deposit(1)) for account in others)) == [1] * 99
    await waiting
    assert await shards.run_id() == run
    # One alone, the rest together, and at most one timer that rang meanwhile, with those who left.
    assert await shards.events() - before <= 5 + 6 + 12


async def test_first_messages_of_many_entities_are_loaded_together(shards: Shards) -> None:
    await shards.account().ask(Total())
    before = await shards.events()
    accounts = [shards.account() for _ in range(100)]
    assert await asyncio.gather(*(account.ask(Deposit(1)) for account in accounts)) == [1] * 100
    assert await shards.events() - before <= 60


# -- out of memory, and back


async def test_an_idle_entity_leaves_and_comes_back_as_it_was(shards: Shards) -> None:
    account = shards.account()
    await account.ask(Deposit(5))
    assert await account.ask(AskHelper(2)) == 2
    await shards.until_away(account)
    assert await account.ask(Deposit(1)) == 6
    assert await account.ask(AskHelper(2)) == 4  # the child below came back too
    await shards.until_away(account)
    assert await account.ask(Total()) == 6


async def test_an_entity_whose_timer_rings_soon_stays_until_it_has_rung(shards: Shards) -> None:
    account = shards.account()
    await account.ask(Deposit(5))
    assert await account.ask(Later(0.4)) == 5
    assert shards.shelf.saves == []
    await shards.until_away(account)
    assert await account.ask(Total()) == 5


async def test_an_entity_leaves_with_its_timers_and_is_back_when_they_ring(shards: Shards) -> None:
    account, other = shards.account(), shards.account()
    await asyncio.gather(account.ask(Deposit(5)), other.ask(Deposit(6)))
    late = [asyncio.create_task(account.ask(Later(after_s))) for after_s in (1.8, 1.5)]
    others = asyncio.create_task(other.ask(Later(1.6)))
    await shards.until_away(account)
    await shards.until_away(other)
    assert not any(one.done() for one in (*late, others))
    assert await asyncio.gather(*late, others) == [5, 5, 6]
    assert shards.shelf.loads.count(account.id) >= 2


async def test_a_timer_of_one_that_is_away_rings_in_the_next_run(shards: Shards) -> None:
    account, busy = shards.account(), shards.account()
    await account.ask(Deposit(5))
    late = asyncio.create_task(account.ask(Later(2.0)))
    await asyncio.sleep(0)
    await shards.until_away(account)
    run = await shards.run_id()
    for number in range(60):
        await busy.ask(Deposit(1), id=f"deposit {number}")
    assert await shards.run_id() != run
    assert await late == 5


async def test_an_entity_that_is_watched_or_watches_stays(shards: Shards) -> None:
    one, two, idle = shards.account(), shards.account(), shards.account()
    await two.ask(Total())
    await one.ask(WatchOther(SharedAccount.address(two.id)))
    await idle.ask(Total())
    await shards.until_away(idle)
    assert not await shards.is_away(one)
    assert not await shards.is_away(two)


async def test_watching_one_that_is_away_gets_it_back(shards: Shards) -> None:
    one, two = shards.account(), shards.account()
    await two.ask(Deposit(7))
    await shards.until_away(two)
    await one.ask(WatchOther(SharedAccount.address(two.id)))
    assert await two.ask(Total()) == 7
    await two.ask(Close())
    await until_told(one, SharedAccount.address(two.id))


async def test_the_address_of_an_actor_below_stays_good(shards: Shards) -> None:
    one, two = (shards.system.entity(Lender, name) for name in ("one", "two"))
    await one.ask(Borrow(Lender.address("two")))
    assert await one.ask(Use(3)) == 3
    for total in (4, 5):
        await shards.until_away(two)
        assert await one.ask(Use(1)) == total


async def test_messages_while_it_comes_back_are_kept_in_order(shards: Shards) -> None:
    account = shards.account()
    await account.ask(Deposit(5))
    await shards.until_away(account)
    shards.shelf.loading.clear()
    shards.shelf.entered.clear()
    totals = [asyncio.create_task(account.ask(Deposit(amount))) for amount in (1, 2, 0, 4)]
    await shards.shelf.entered.wait()
    await account.tell(Credit(100))
    totals.append(asyncio.create_task(account.ask(Total())))
    shards.shelf.loading.set()
    outcomes = await asyncio.gather(*totals, return_exceptions=True)
    assert isinstance(outcomes.pop(2), Invalid)
    assert outcomes[:1] == [6]
    assert await account.ask(Total()) == 112


async def test_a_message_while_it_is_saved_keeps_it_in_memory(shards: Shards) -> None:
    account = shards.account()
    await account.ask(Deposit(5))
    shards.shelf.entered.clear()
    shards.shelf.saving.clear()
    await shards.shelf.entered.wait()
    assert await account.ask(Deposit(1)) == 6
    loads = len(shards.shelf.loads)
    shards.shelf.saving.set()
    await shards.until_away(account)
    assert len(shards.shelf.loads) == loads
    assert [version for _, version in shards.shelf.saves] == [1, 2]
    assert await account.ask(Total()) == 6


async def test_an_entity_whose_state_can_not_be_saved_stays(shards: Shards) -> None:
    account = shards.account()
    shards.shelf.refuses = Invalid("This is too large.")
    await account.ask(Deposit(5))
    await eventually(lambda: _saved(shards, 2))
    assert not await shards.is_away(account)
    shards.shelf.refuses = None
    await shards.until_away(account)
    assert await account.ask(Total()) == 5


async def _saved(shards: Shards, times: int) -> bool:
    return len(shards.shelf.saves) >= times


async def test_an_entity_is_loaded_when_the_store_is_back(shards: Shards) -> None:
    account = shards.account()
    shards.shelf.loading.clear()
    asking = asyncio.create_task(account.ask(Deposit(1)))
    await shards.shelf.entered.wait()
    shards.shelf.loading.set()
    assert await asking == 1


async def test_all_goes_on_in_the_next_run(shards: Shards) -> None:
    account, other, away = shards.account(), shards.account(), shards.account()
    await away.ask(Deposit(9))
    await shards.until_away(away)
    run = await shards.run_id()
    await other.ask(Deposit(7))
    late = asyncio.create_task(other.ask(Later(3.0)))
    for number in range(60):
        assert await account.ask(Deposit(1), id=f"deposit {number}") == number + 1
    assert await shards.run_id() != run
    assert await account.ask(Deposit(1), id="deposit 59") == 60  # of a run before
    assert await late == 7
    assert await other.ask(Total()) == 7
    assert await away.ask(Total()) == 9


async def test_a_shard_that_is_asked_while_it_loads_goes_on_in_the_next_run(shards: Shards) -> None:
    account, slow = shards.account(), shards.account()
    await account.ask(Total())
    run = await shards.run_id()
    shards.shelf.loading.clear()
    shards.shelf.entered.clear()
    waiting = asyncio.create_task(slow.ask(Deposit(3)))
    await shards.shelf.entered.wait()
    for number in range(45):
        assert await account.ask(Deposit(1)) == number + 1
    shards.shelf.loading.set()
    assert await waiting == 3

    async def moved() -> bool:
        return await shards.run_id() != run

    await eventually(moved)
    assert await slow.ask(Total()) == 3
    assert await account.ask(Total()) == 45


# -- from elsewhere


async def test_a_durable_actor_asks_an_entity_that_is_away(shards: Shards) -> None:
    account = shards.account()
    await account.ask(Deposit(5))
    await shards.until_away(account)
    asker = shards.system.entity(Account, f"acct-{uuid4()}")
    await asker.start(OpenAccount(total=10))
    assert await asker.ask(Transfer(SharedAccount.address(account.id), 4)) == 9


async def test_a_durable_actor_starts_the_shard_that_it_sends_to(shards: Shards) -> None:
    asker = shards.system.entity(Account, f"acct-{uuid4()}")
    await asker.start(OpenAccount(total=10))
    assert await asker.ask(Transfer(SharedAccount.address("first"), 4)) == 4
    assert await shards.account("first").ask(Total()) == 4


async def test_by_hand(shards: Shards) -> None:
    await shards.account("hand").ask(Deposit(2))
    on = ("--workflow-id", SHARD)
    out = await cli(
        shards.client, "workflow", "update", "execute", *on, "--name", "Deposit",
        "--input", '{"amount": 3}', "--input", '"hand"',
    )  # fmt: skip
    assert "5" in out
    await cli(
        shards.client, "workflow", "signal", *on, "--name", "Credit",
        "--input", '{"amount": 2}', "--input", '"hand"',
    )  # fmt: skip
    assert await shards.account("hand").ask(Total()) == 7
    with pytest.raises(AssertionError, match="second input"):
        await cli(
            shards.client,
            "workflow",
            "update",
            "execute",
            *on,
            "--name",
            "Deposit",
            "--input",
            '{"amount": 3}',
        )


async def test_a_cancelled_shard_saves_its_entities_and_ends(shards: Shards) -> None:
    account, watched = shards.account(), shards.account()
    await asyncio.gather(account.ask(Deposit(2)), watched.ask(Deposit(3)))
    await account.ask(WatchOther(SharedAccount.address(watched.id)))
    owed = asyncio.create_task(account.ask(Later(60.0), timeout_s=30.0))
    await watched.ask(Total())
    handle = shards.client.get_workflow_handle(SHARD, run_id=await shards.run_id())
    await cli(shards.client, "workflow", "cancel", "--workflow-id", SHARD)
    with pytest.raises(WorkflowFailureError) as ended:
        await handle.result()
    assert isinstance(ended.value.cause, CancelledError)
    with pytest.raises(ActorStopped):
        await owed
    # They have seen nothing of it: what one watches, it watches still.
    assert (await account.ask(Total()), await watched.ask(Total())) == (2, 3)
    await watched.ask(Close())

    async def told() -> bool:
        return SharedAccount.address(watched.id) in await account.ask(WhoStopped())

    await eventually(told)


async def test_what_comes_while_a_cancelled_shard_saves_is_not_lost(shards: Shards) -> None:
    account, other = shards.account(), shards.account()
    await account.ask(Deposit(2))
    shards.shelf.saving.clear()
    shards.shelf.entered.clear()
    handle = shards.client.get_workflow_handle(SHARD, run_id=await shards.run_id())
    await cli(shards.client, "workflow", "cancel", "--workflow-id", SHARD)
    await shards.shelf.entered.wait()
    assert await account.ask(Deposit(3)) == 5
    await other.tell(Credit(4))
    shards.shelf.saving.set()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    assert (await account.ask(Total()), await other.ask(Total())) == (5, 4)


async def test_an_answer_that_is_owed_from_before_is_nobody_elses(shards: Shards) -> None:
    """The shard was terminated: its next one gives addresses anew, and an entity still has one of the old."""
    account = shards.account()
    await account.ask(Deposit(2))
    handle = shards.client.get_workflow_handle(SHARD)
    # By hand: an `Entity` would ask again.
    await handle.start_update(
        "Later", args=[Later(3.0), account.id], wait_for_stage=WorkflowUpdateStage.ACCEPTED
    )
    await shards.until_away(account)
    await handle.terminate()
    others = [asyncio.create_task(shards.account().ask(Later(3.5), timeout_s=9.0)) for _ in range(4)]
    await asyncio.sleep(0)  # They are asked first.
    assert await account.ask(Total()) == 2  # Back, and its timer rings.
    assert await asyncio.gather(*others) == [0] * 4


async def test_a_message_that_its_type_does_not_have_is_a_type_error(shards: Shards) -> None:
    with pytest.raises(TypeError):
        await shards.account().tell(OpenAccount())
    with pytest.raises(Invalid):
        shards.system.entity(SharedAccount, "")


async def test_an_ask_behind_the_stop_of_an_entity_begins_it_anew(shards: Shards) -> None:
    account = shards.account()
    await account.ask(Deposit(3))
    first = asyncio.create_task(shards.account().ask(Total()))
    await asyncio.sleep(0)
    outcomes = await asyncio.gather(account.ask(Close()), account.ask(Total()), return_exceptions=True)
    await first
    assert list(outcomes) == [account.id, 0]


# -- workers that are killed


async def test_nothing_is_lost_when_workers_are_killed(temporal: WorkflowEnvironment) -> None:
    system = ActorSystem(temporal.client, task_queue=str(uuid4()))
    accounts = [system.entity(SharedAccount, f"acct-{number}") for number in range(20)]

    async def deposit(account: Resident, number: int) -> None:
        while True:
            with suppress(DeadlineExceeded, Unavailable):
                await account.ask(Deposit(1), id=f"deposit {number}", timeout_s=3.0)
                return

    async with embedded_store() as server:
        arguments = (
            temporal.client.service_client.config.target_host, system.task_queue, server.uri, "killed",
        )  # fmt: skip
        try:
            for round_number in range(3):
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "tests.actors.durable.shared_worker", *arguments,
                    stdout=asyncio.subprocess.PIPE,
                )  # fmt: skip
                try:
                    assert process.stdout is not None
                    assert await process.stdout.readline() == b"ready\n"
                    deposits = [
                        asyncio.create_task(deposit(account, 2 * round_number + half))
                        for half in range(2)
                        for account in accounts
                    ]
                    await asyncio.wait(deposits, return_when=asyncio.FIRST_COMPLETED)
                    if round_number == 2:
                        await asyncio.gather(*deposits)
                        totals = await asyncio.gather(*(account.ask(Total()) for account in accounts))
                        assert totals == [6] * len(accounts)
                    else:
                        # Half of them are idle now, and leave while the worker dies.
                        await asyncio.gather(*deposits[: len(accounts)])
                        await asyncio.gather(*deposits)
                        await asyncio.wait((asyncio.create_task(accounts[0].ask(Later(0.31))),), timeout=3)
                finally:
                    process.kill()
                    await process.wait()
        finally:
            await end_shard(temporal.client)
