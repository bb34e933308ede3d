"""The event-sourced account does what it says: in this process, and on Temporal."""

from __future__ import annotations

import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator

import pytest

from activities.backends.mongo_client import connect
from activities.backends.mongo_journal import MongoJournal
from examples.actors import bank
from goatherd.actors import LocalSystem
from goatherd.actors.persistence import MemoryJournal
from goatherd.errors import Invalid
from tests.servers import embedded_store, free_port
from tests.temporal import temporal_server

SAID = [
    "Opened with 0.",
    "After a deposit: 100.",
    "After a withdrawal: 70.",
    "There are 70, not 100.",
    "Recovered: 70.",
    "Closed, and paid out 70.",
    "The account is closed.",
]


@pytest.fixture
async def journal() -> AsyncIterator[MongoJournal]:
    async with embedded_store() as store:
        database = connect(store.uri, "bank")
        journal = MongoJournal(database)
        await journal.prepare()
        yield journal
        await database.client.close()


async def test_the_account_in_this_process() -> None:
    assert await bank.in_this_process() == SAID


async def test_the_account_on_temporal_with_its_journal_in_the_store(journal: MongoJournal) -> None:
    async with temporal_server() as environment:
        address = environment.client.service_client.config.target_host
        assert await bank.on_temporal(address, journal) == SAID
    events = [entry.event["type"].partition(":")[2] async for entry in journal.read("account-7")]
    assert events == ["Opened", "Deposited", "Withdrawn", "Withdrawn", "Closed"]


async def test_an_amount_is_more_than_nothing() -> None:
    async with LocalSystem(journal=MemoryJournal()) as system:
        account = system.spawn(bank.AccountBehavior("7"), "account")
        await system.ask(account, bank.Open("Ada"))
        for amount in (bank.Deposit(-5), bank.Withdraw(-5), bank.Withdraw(0)):
            with pytest.raises(Invalid):
                await system.ask(account, amount)
        assert await system.ask(account, bank.Balance()) == 0


@pytest.mark.parametrize("example", ["bank", "fleet", "ping_pong", "tickets"])
async def test_an_example_says_in_one_line_that_nobody_answers(example: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    process = await create_subprocess_exec(
        sys.executable, "-m", f"examples.actors.{example}", address, stdout=PIPE, stderr=STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 1
    assert output.decode() == (
        f"No Temporal server answers at {address}. `goatherd up` starts one and says where.\n"
    )
