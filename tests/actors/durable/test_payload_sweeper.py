"""Large payloads are dropped when no history can name them any more, and not before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import (
    DeleteWorkflowExecutionRequest,
    ResetWorkflowExecutionRequest,
)
from temporalio.client import WorkflowHistory
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer

from goatherd.actors.durable import ActorSystem, Entity
from goatherd.payloads import MemoryPayloadStore, Owner, data_converter
from tests.activities.clock import Clock
from tests.actors.durable.hoarding import open_hoard, run_ids, system_of
from tests.actors.durable.hoards import MB, Fill, Hoard, OpenHoard, Put, Weight, hoard_worker
from tests.temporal import eventually
from workers.payload_sweeper import GRACE, MOST, PayloadSweeper
from workers.sandbox import workflow_runner

LATER_S = 2 * GRACE.total_seconds()


class Barn:
    """A system with a store, whose clock is moved by hand."""

    def __init__(self, system: ActorSystem, payloads: MemoryPayloadStore, clock: Clock) -> None:
        self.system = system
        self.client = system.client
        self.payloads = payloads
        self.clock = clock
        self.sweeper = PayloadSweeper(system.client, payloads, now=clock.now)

    async def sweep_later(self) -> int:
        self.clock.pass_seconds(LATER_S)
        return await self.sweeper.look()

    async def history(self, actor_id: str, run_id: str | None = None) -> WorkflowHistory:
        return await self.client.get_workflow_handle(actor_id, run_id=run_id).fetch_history()

    async def replay(self, actor_id: str, run_id: str | None = None) -> None:
        replayer = Replayer(
            workflows=[Hoard],
            data_converter=data_converter(self.payloads),
            workflow_runner=workflow_runner(sandboxed=False),
        )
        await replayer.replay_workflow(await self.history(actor_id, run_id))

    async def forget(self, actor_id: str, run_id: str) -> None:
        """As Temporal does by its retention."""
        execution = WorkflowExecution(workflow_id=actor_id, run_id=run_id)
        request = DeleteWorkflowExecutionRequest(namespace="default", workflow_execution=execution)
        await self.client.workflow_service.delete_workflow_execution(request)

        async def is_forgotten() -> bool:
            chosen = f'WorkflowId = "{actor_id}"'
            return run_id not in [one.run_id async for one in self.client.list_workflows(chosen)]

        await eventually(is_forgotten, within_s=60.0)


class Ago(Clock):
    """Begins so long ago that what is stored now is old: runs are begun by the server's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.pass_seconds(-10 * LATER_S)


@pytest.fixture
async def barn(temporal: WorkflowEnvironment) -> AsyncIterator[Barn]:
    clock = Clock()
    payloads = MemoryPayloadStore(now=clock.now)
    system = await system_of(temporal, payloads)
    async with hoard_worker(system.client, system.task_queue):
        yield Barn(system, payloads, clock)


async def moved_on(barn: Barn, hoard: Entity[OpenHoard], runs: int) -> None:
    async def has() -> bool:
        return len(await run_ids(barn.client, hoard.id)) >= runs

    await eventually(has)


async def test_what_a_living_actor_needs_stays_however_long_it_is_idle(barn: Barn) -> None:
    hoard = await open_hoard(barn.system)
    for seed in range(2):
        await hoard.ask(Fill(MB, seed=seed))
    await moved_on(barn, hoard, 2)
    for _ in range(100):
        assert await barn.sweep_later() == 0
    assert await hoard.ask(Weight()) == 2 * MB
    for run_id in await run_ids(barn.client, hoard.id):
        await barn.replay(hoard.id, run_id)


async def test_what_a_forgotten_run_needed_goes_and_its_successors_stays(
    temporal: WorkflowEnvironment,
) -> None:
    # Two runs, the second of which begins long after what the first one has stored.
    clock = Ago()
    payloads = MemoryPayloadStore(now=clock.now)
    system = await system_of(temporal, payloads)
    barn = Barn(system, payloads, clock)
    async with hoard_worker(system.client, system.task_queue):
        hoard = await open_hoard(system)
        await hoard.ask(Put("x" * MB))
        clock.pass_seconds(10 * LATER_S)
        await hoard.ask(Weight())
        await moved_on(barn, hoard, 2)
        last, first = await run_ids(system.client, hoard.id)
        assert len(payloads) == 2  # The message of the first run, and what it handed on.
        await barn.forget(hoard.id, first)
        assert await barn.sweep_later() == 1
        assert await barn.sweep_later() == 0
        assert await hoard.ask(Weight()) == MB
        await barn.replay(hoard.id, last)


async def test_all_that_a_forgotten_actor_had_goes(barn: Barn) -> None:
    hoard = await open_hoard(barn.system, asks_per_run=100)
    await hoard.ask(Put("x" * MB))
    run_id = (await run_ids(barn.client, hoard.id))[0]
    await barn.client.get_workflow_handle(hoard.id).terminate()
    assert await barn.sweep_later() == 0  # Its history can still be read.
    await barn.forget(hoard.id, run_id)
    assert await barn.sweep_later() == 1
    assert len(barn.payloads) == 0


async def test_a_run_that_a_reset_has_made_has_what_the_one_before_had(barn: Barn) -> None:
    hoard = await open_hoard(barn.system, asks_per_run=100)
    await hoard.ask(Put("x" * MB))
    await hoard.ask(Weight())
    first = (await run_ids(barn.client, hoard.id))[0]
    history = await barn.history(hoard.id)
    completed = [
        event.event_id
        for event in history.events
        if event.HasField("workflow_task_completed_event_attributes")
    ]
    await barn.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id=hoard.id, run_id=first),
            workflow_task_finish_event_id=completed[-1],
            request_id=str(uuid4()),
            reason="a test",
        )
    )
    await barn.forget(hoard.id, first)
    for _ in range(3):
        assert await barn.sweep_later() == 0
    assert await hoard.ask(Weight()) == MB
    await barn.replay(hoard.id)


async def test_what_is_new_is_left_alone_even_without_a_run(barn: Barn) -> None:
    """Its start may be on its way."""
    await barn.payloads.put(Owner("default", f"nobody-{uuid4()}"), b"x")
    assert await barn.sweeper.look() == 0
    assert await barn.sweep_later() == 1


async def test_other_namespaces_are_not_ours_to_sweep(barn: Barn) -> None:
    await barn.payloads.put(Owner("elsewhere", "somebody"), b"x")
    for _ in range(3):
        assert await barn.sweep_later() == 0


async def test_an_id_may_have_any_characters(barn: Barn) -> None:
    await barn.payloads.put(Owner("default", """a "quoted" \\ 'id' é"""), b"x")
    assert await barn.sweep_later() == 1


async def test_however_many_are_due_all_are_swept(barn: Barn) -> None:
    for number in range(2 * MOST + 50):
        await barn.payloads.put(Owner("default", f"nobody-{number}"), b"x")
        # Not ours, so that it stays: what is left over does not keep the sweeper going.
        await barn.payloads.put(Owner("elsewhere", f"somebody-{number}"), b"x")
    dropped = [await barn.sweep_later() for _ in range(2)]
    assert dropped == [2 * MOST + 50, 0]
