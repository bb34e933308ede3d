"""A durable actor: asked, told, refused, ended, by its system and by hand."""

from __future__ import annotations

import asyncio
import json

import pytest
from temporalio.client import WorkflowExecutionStatus

from goatherd.actors import ActorFailed, ActorStopped
from goatherd.errors import Conflict, Invalid
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
    Withdraw,
)
from tests.actors.durable.conftest import Bank
from tests.actors.durable.watching import until_closed, until_told
from tests.temporal import cli


async def test_an_ask_is_answered(bank: Bank) -> None:
    account = await bank.account(total=5)
    assert await account.ask(Deposit(3)) == 8


async def test_ask_or_start_starts_what_does_not_exist(bank: Bank) -> None:
    account = bank.system.entity(Account, "acct-new")
    assert await account.ask(Deposit(3), start=OpenAccount(total=1)) == 4
    assert await account.ask(Deposit(3), start=OpenAccount(total=1)) == 7


async def test_starting_tells_whether_it_runs_already(bank: Bank) -> None:
    account = bank.system.entity(Account, "acct-twice")
    assert [await account.start(OpenAccount()) for _ in range(2)] == [True, False]


async def test_a_tell_is_handled_before_a_later_ask(bank: Bank) -> None:
    account = await bank.account()
    await account.tell(Credit(3))
    assert await account.ask(Total()) == 3


async def test_a_refusal_is_raised_as_what_it_was(bank: Bank) -> None:
    account = await bank.account()
    with pytest.raises(Conflict, match="not enough"):
        await account.ask(Withdraw(1))


async def test_a_request_that_the_check_refuses_leaves_no_event(bank: Bank) -> None:
    account = await bank.account()
    await account.ask(Total())
    before = await bank.history_events(account)
    with pytest.raises(Invalid, match="something"):
        await account.ask(Deposit(0))
    assert await bank.history_events(account) == before


async def test_an_actor_that_does_not_exist_is_an_error_at_once(bank: Bank) -> None:
    with pytest.raises(ActorStopped):
        await bank.system.entity(Account, "acct-nobody").ask(Total())


async def test_an_actor_that_stops_ends_its_workflow_with_its_result(bank: Bank) -> None:
    account = await bank.account(total=5)
    assert await account.ask(Close()) == "me"
    assert await bank.client.get_workflow_handle(account.id).result() == 5
    with pytest.raises(ActorStopped):
        await account.ask(Total())
    with pytest.raises(ActorStopped):
        await account.start()


async def test_what_an_actor_raises_fails_its_asker_and_its_workflow(bank: Bank) -> None:
    account = await bank.account()
    with pytest.raises(ActorFailed, match="KeyError"):
        await account.ask(Break())
    handle = bank.client.get_workflow_handle(account.id)
    await until_closed(handle, WorkflowExecutionStatus.FAILED)


async def test_an_answer_may_come_later(bank: Bank) -> None:
    account = await bank.account(total=2)
    late = asyncio.create_task(account.ask(Later(0.3)))
    assert await account.ask(Deposit(1)) == 3
    assert await late == 3


async def test_an_activity_is_piped_to_the_actor(bank: Bank) -> None:
    account = await bank.account()
    assert await account.ask(Convert(21)) == 42


async def test_an_actor_inside_of_the_tree_answers_the_asker(bank: Bank) -> None:
    account = await bank.account()
    before = await bank.history_events(account)
    assert await account.ask(AskHelper(7)) == 7
    assert await bank.history_events(account) - before <= 8  # messages inside cost nothing


async def test_a_durable_actor_asks_another(bank: Bank) -> None:
    one, two = await bank.account(total=10), await bank.account(total=1)
    assert await one.ask(Transfer(two.id, 4)) == 5
    assert await one.ask(Total()) == 6


async def test_a_durable_actor_that_asks_nobody_is_told_so(bank: Bank) -> None:
    account = await bank.account(total=10)
    with pytest.raises(ActorStopped):
        await account.ask(Transfer("acct-nobody", 4))


async def test_a_durable_actor_is_told_that_one_it_watches_has_stopped(bank: Bank) -> None:
    one, two = await bank.account(), await bank.account()
    await one.ask(WatchOther(two.id))
    await two.ask(Close())
    await until_told(one, two.id)


async def test_watching_one_that_has_stopped_tells_at_once(bank: Bank) -> None:
    one, two = await bank.account(), await bank.account()
    await two.ask(Close())
    await bank.client.get_workflow_handle(two.id).result()
    await one.ask(WatchOther(two.id))
    await until_told(one, two.id)


async def test_by_hand(bank: Bank) -> None:
    account = await bank.account(total=5)
    on = ("--workflow-id", account.id)
    out = await cli(
        bank.client, "workflow", "update", "execute", *on, "--name", "Deposit", "--input", '{"amount": 3}'
    )
    assert "8" in out
    await cli(bank.client, "workflow", "signal", *on, "--name", "Credit", "--input", '{"amount": 2}')
    assert await account.ask(Total()) == 10
    view = await account.view()
    assert [one["behavior"] for one in view.actors] == ["tests.bank.account", "tests.bank.helper"]
    description = await bank.client.get_workflow_handle(account.id).describe()
    assert description.status is not None


async def test_started_by_hand_without_an_input(bank: Bank) -> None:
    await cli(
        bank.client, "workflow", "start", "--type", "TestAccount", "--workflow-id", "acct-hand",
        "--task-queue", bank.system.task_queue,
    )  # fmt: skip
    assert await bank.system.entity(Account, "acct-hand").ask(Deposit(2)) == 2


async def test_cancelled_by_hand_it_stops(bank: Bank) -> None:
    account = await bank.account(total=5)
    await account.ask(Total())
    await cli(bank.client, "workflow", "cancel", "--workflow-id", account.id)
    handle = bank.client.get_workflow_handle(account.id)
    await until_closed(handle, WorkflowExecutionStatus.CANCELED)


async def test_a_repeated_id_counts_once(bank: Bank) -> None:
    account = await bank.account()
    assert await account.ask(Deposit(3), id="one") == 3
    assert await account.ask(Deposit(3), id="one") == 3
    await account.tell(Credit(5), id="two")
    await account.tell(Credit(5), id="two")
    assert await account.ask(Total()) == 8


async def test_asks_at_once_travel_together(bank: Bank) -> None:
    account = await bank.account()
    await account.ask(Total())
    before = await bank.history_events(account)
    totals = await asyncio.gather(*(account.ask(Deposit(1)) for _ in range(500)))
    assert totals == list(range(1, 501))
    # The first goes alone; what waits for it goes together.
    assert await bank.history_events(account) - before <= 5 + 6


async def test_in_a_batch_each_has_its_own_outcome(bank: Bank) -> None:
    account = await bank.account(total=1)
    outcomes = await asyncio.gather(
        account.ask(Total()),
        account.ask(Deposit(0)),
        account.ask(Withdraw(100)),
        account.ask(Later(0.2)),
        account.ask(Deposit(1)),
        return_exceptions=True,
    )
    assert outcomes[0] == 1
    assert isinstance(outcomes[1], Invalid)
    assert isinstance(outcomes[2], Conflict)
    assert list(outcomes[3:]) == [2, 2]


async def test_all_goes_on_in_the_next_run(bank: Bank) -> None:
    account = await bank.account()
    first = await bank.client.get_workflow_handle(account.id).describe()
    late = asyncio.create_task(account.ask(Later(2.0)))
    for number in range(100):
        assert await account.ask(Deposit(1), id=f"deposit {number}") == number + 1
    assert await account.ask(AskHelper(3)) == 3
    now = await bank.client.get_workflow_handle(account.id).describe()
    assert now.run_id != first.run_id
    assert await account.ask(Deposit(1), id="deposit 99") == 100  # of a run before
    assert await account.ask(AskHelper(3)) == 6
    assert await late >= 1
    assert json.loads(json.dumps(await account.ask(Total()))) == 100
