"""A worker that has its hands full is not taken for gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.backends.machine import Machine
from activities.backends.model_host import ModelHost
from activities.backends.scripted_models import ScriptedModel
from activities.inference import InferenceActivities
from api.inference_flight import HEARTBEAT_S
from api.model_admin import ModelAdmin
from api.placement import Place
from goatherd.contracts.inference_work import InferAnswer, InferOrder, Outcome
from goatherd.errors import TooManyRequests, Unavailable
from goatherd.temporal import failure
from tests.inference.stack import Desk, Office
from tests.temporal import temporal_server

_HALF = timedelta(milliseconds=300)


@pytest.fixture(scope="module")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    async with temporal_server() as environment:
        yield environment


@pytest.fixture
async def office(temporal: WorkflowEnvironment) -> AsyncIterator[Office]:
    made = Office(temporal.client)
    async with made.inference.running():
        yield made


async def test_what_a_busy_worker_does_not_take_goes_to_everybody(office: Office) -> None:
    """It is named to those who call other models all the same."""
    busy = office.desk("busy")  # Says that it lives, and takes nothing.
    async with office.desk("b", shared=True).running() as other:
        await office.report(busy, shout="ready")
        await office.report(other)

        async def says_so() -> None:
            while True:
                await office.report(busy, shout="ready")
                await asyncio.sleep(0.2)

        saying = asyncio.create_task(says_so())
        assert (await office.run("shout", "hello"))[0].output == "HELLO"
        assert (await office.placement.choose("shout")).worker == "busy"
        saying.cancel()


async def test_a_worker_that_makes_enough_texts_sends_the_next_elsewhere(office: Office) -> None:
    async def full(desk: Desk, order: InferOrder) -> InferAnswer:
        raise failure(TooManyRequests("enough"))

    async def talk(desk: Desk, order: InferOrder) -> InferAnswer:
        return InferAnswer(outcomes=[Outcome(output={"generated_text": "hi"})])

    async with office.desk("a").running() as one, office.desk("b").running() as other:
        one.answering, other.answering = full, talk
        await office.report(one, talk="ready")
        await office.report(other)
        seen = [text async for text in office.texts("talk", "hello")]
        assert isinstance(seen[-1], Outcome)
        other.answering = full
        with pytest.raises(TooManyRequests):
            [text async for text in office.texts("talk", "hello")]


@pytest.fixture
async def real(office: Office, tmp_path: Path) -> AsyncIterator[Desk]:
    """A worker with a host of models, as far as load and unload go."""
    desk = office.desk("real")
    host = ModelHost(office.settings, machine=Machine("cpu", 1 << 30))
    calls = InferenceActivities(host)
    worker = Worker(
        office.client,
        task_queue=desk.queues[0],
        activities=[calls.infer, calls.load_model, calls.unload_model],
        max_heartbeat_throttle_interval=_HALF,
        default_heartbeat_throttle_interval=_HALF,
    )
    async with worker:
        await office.report(desk)
        yield desk
    await host.close()


def admin(office: Office) -> ModelAdmin:
    return ModelAdmin(office.client, office.registry, office.placement, office.settings)


async def test_a_worker_that_is_left_alone_may_be_told_to_load(office: Office, real: Desk) -> None:
    office.placement.shun(Place(real.queues[0], real.name))
    assert (await admin(office).load("shout", wait_s=20)).state == "ready"


async def test_without_any_worker_nothing_can_be_loaded(office: Office) -> None:
    with pytest.raises(Unavailable) as refused:
        await admin(office).load("shout", wait_s=20)
    assert refused.value.code == "no-worker"


async def test_a_model_that_closes_slowly_is_unloaded_all_the_same(
    office: Office, real: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(self: ScriptedModel) -> None:
        await asyncio.sleep(HEARTBEAT_S + 1)  # There is no other sign of a worker's life than time.

    monkeypatch.setattr(ScriptedModel, "close", slow)
    await admin(office).load("shout", wait_s=20)
    await office.report(real, shout="ready")
    await admin(office).unload("shout")
    await office.report(real)
    assert (await office.placement.choose("shout")).worker == real.name
