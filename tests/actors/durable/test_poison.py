"""What goes wrong with one message, one answer or a part that is for people only does not stop the actor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from goatherd.actors import ActorFailed, ActorStopped
from goatherd.actors.durable import ActorSystem, Entity
from goatherd.actors.durable import _protocol as protocol
from goatherd.errors import Invalid
from tests.actors.durable.accounts import Account, Close, Total
from tests.actors.durable.poisons import (
    Apprentice,
    Brew,
    ChemistActor,
    Mix,
    OpenChemist,
    Pour,
    Spill,
)
from tests.temporal import PATIENCE_S, eventually
from workers.sandbox import workflow_runner

Open = Entity[OpenChemist]


@pytest.fixture
async def system(temporal: WorkflowEnvironment) -> AsyncIterator[ActorSystem]:
    system = ActorSystem(temporal.client, task_queue=str(uuid4()), ask_timeout_s=PATIENCE_S)
    async with Worker(
        temporal.client,
        task_queue=system.task_queue,
        workflows=[ChemistActor, Account],
        workflow_runner=workflow_runner(sandboxed=True),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
    ):
        yield system


async def chemist(system: ActorSystem, asks_per_run: int = 1_000) -> Open:
    one = system.entity(ChemistActor, f"chemist-{uuid4()}")
    await one.start(OpenChemist(asks_per_run=asks_per_run))
    return one


async def together(system: ActorSystem, one: Open, *asked: tuple[str, dict[str, Any]]) -> list[Any]:
    """One update of several, whatever a lane would make of them."""
    items = [protocol.Item(name=name, value=value, id=str(uuid4())) for name, value in asked]
    outcomes: protocol.Outcomes = await system.client.get_workflow_handle(one.id).execute_update(
        protocol.DELIVER, protocol.Delivery(items=items), result_type=protocol.Outcomes
    )
    return [outcome.code or outcome.value for outcome in outcomes.items]


async def signal(client: Client, one: Open, name: str, *inputs: Any) -> None:
    await client.get_workflow_handle(one.id).signal(name, args=inputs)


async def test_what_a_check_raises_refuses_its_message_alone(system: ActorSystem) -> None:
    one = await chemist(system)
    with pytest.raises(ActorFailed, match="KeyError"):
        await one.ask(Spill("check"))
    mix, spill = ("Mix", {"name": "m"}), ("Spill", {"how": "check"})
    assert await together(system, one, mix, spill, mix) == [1, "actor-failed", 2]


async def test_a_message_that_its_class_can_not_be_made_of_is_refused_alone(system: ActorSystem) -> None:
    one = await chemist(system)
    mix, brew = ("Mix", {"name": "m"}), ("Brew", {"name": ""})
    assert await together(system, one, mix, brew, mix) == [1, "invalid", 2]
    handle = system.client.get_workflow_handle(one.id)
    await handle.signal("Brew", {"name": ""})
    await handle.signal("Brew", {"name": "good"})
    assert await one.ask(Mix("m")) == 4


async def test_an_answer_that_can_not_be_written_fails_its_asker_alone(system: ActorSystem) -> None:
    one = await chemist(system, asks_per_run=3)
    with pytest.raises(ActorFailed, match="can't be written"):
        await one.ask(Spill("answer"))
    mix, spill = ("Mix", {"name": "m"}), ("Spill", {"how": "answer"})
    assert await together(system, one, mix, spill, mix) == [1, "actor-failed", 2]
    # Nor does it keep the actor from its next run.
    assert [await one.ask(Mix("m")) for _ in range(6)] == [3, 4, 5, 6, 7, 8]


async def test_an_answer_of_another_type_fails_its_asker_alone(system: ActorSystem) -> None:
    one = await chemist(system)
    first = asyncio.create_task(one.ask(Mix("first")))
    await asyncio.sleep(0)
    outcomes = await asyncio.gather(
        one.ask(Mix("a")), one.ask(Spill("text")), one.ask(Mix("b")), return_exceptions=True
    )
    assert await first == 1
    assert [outcomes[0], type(outcomes[1]), outcomes[2]] == [2, ActorFailed, 3]


async def test_a_message_that_the_asker_can_not_write_fails_alone(system: ActorSystem) -> None:
    one = await chemist(system)
    first = asyncio.create_task(one.ask(Mix("first")))
    await asyncio.sleep(0)
    bad = Mix(object())  # type: ignore[arg-type]
    asked = (one.ask(Mix("a")), one.ask(bad), one.ask(Mix("b")))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert await first == 1
    assert [outcomes[0], outcomes[2]] == [2, 3]
    assert isinstance(outcomes[1], Exception)


async def test_what_can_not_be_shown_does_not_keep_an_actor_from_going_on(system: ActorSystem) -> None:
    one = await chemist(system)
    assert await one.ask(Spill("show")) == 0
    assert await one.ask(Mix("m")) == 1


@pytest.mark.parametrize(
    "message",
    [
        {"type": "no.such:Thing", "value": {}},
        {"type": "tests.actors.durable.poisons:Mix", "value": {"name": [1]}},
        {},
    ],
)
async def test_a_signal_that_can_not_be_read_is_dropped(system: ActorSystem, message: Any) -> None:
    one = await chemist(system)
    await signal(system.client, one, protocol.DELIVER, {"to": one.id, "message": message})
    await signal(
        system.client, one, protocol.SEVERAL,
        {"signals": [
            {"name": protocol.WATCH, "inputs": [{"watched": 1}]},
            {"name": protocol.DELIVER, "inputs": []},
            {"name": "Pour", "inputs": [{"name": "p"}]},
        ]},
    )  # fmt: skip
    assert await one.ask(Mix("m")) == 2


async def test_the_address_of_an_adapter_that_is_not_there_is_nobody(system: ActorSystem) -> None:
    one = await chemist(system)
    pour = {"type": "tests.actors.durable.poisons:Pour", "value": {"name": "p"}}
    for address in (f"{one.id}~0", f"{one.id}~99", f"{one.id}~²"):
        await signal(system.client, one, protocol.DELIVER, {"to": address, "message": pour})
    assert await one.ask(Mix("m")) == 1


async def test_a_child_that_lives_is_not_started_again(system: ActorSystem) -> None:
    one, child = await chemist(system), system.entity(Account, f"child-{uuid4()}")
    assert await one.ask(Apprentice(child.id)) == []

    async def runs() -> bool:
        try:
            return await child.ask(Total()) == 1
        except ActorStopped:
            return False

    await eventually(runs)
    assert [await one.ask(Apprentice(child.id)) for _ in range(2)] == [[], []]
    assert (await one.view()).children == [child.id]
    await child.ask(Close())

    async def gone() -> bool:
        return (await one.view()).children == []

    await eventually(gone)


async def test_a_child_started_twice_stops_with_its_parent(system: ActorSystem) -> None:
    one, child = await chemist(system), system.entity(Account, f"child-{uuid4()}")
    for _ in range(2):
        await one.ask(Apprentice(child.id))
    await signal(system.client, one, protocol.STOP)
    await system.client.get_workflow_handle(one.id).result()
    assert await system.client.get_workflow_handle(child.id).result() == 1


async def test_a_request_that_does_not_fit_is_invalid(system: ActorSystem) -> None:
    one = await chemist(system)
    assert await one.ask(Brew("good")) == 1
    assert await together(system, one, ("Mix", {"title": "m"}), ("Nothing", {})) == ["invalid", "unhandled"]
    with pytest.raises(Invalid):
        system.entity(ChemistActor, "a/b")
    await one.tell(Pour("p"))
    assert await one.ask(Mix("m")) == 3
