"""`WorkerRegistry`: the contract, on every backend."""

from __future__ import annotations

from dataclasses import replace

from activities.ports import WorkerRegistry, WorkerStatus
from tests.activities.clock import Clock

STATUS = WorkerStatus(
    "host-1",
    ("inference", "store"),
    "ready",
    detail="fine",
    models={"$org/model.v1": "failed: no weights"},
    queue="goatherd-inference.host-1",
    memory_bytes=8 << 30,
    used_bytes=3 << 30,
    device="cuda",
)


async def test_report_is_read_as_it_was_made(workers: WorkerRegistry, clock: Clock) -> None:
    await workers.report(STATUS)
    assert await workers.alive(within_s=10) == [replace(STATUS, at=clock.now())]


async def test_newest_report_of_each_worker_counts(workers: WorkerRegistry, clock: Clock) -> None:
    await workers.report(replace(STATUS, state="starting"))
    clock.pass_seconds(1)
    await workers.report(STATUS)
    await workers.report(replace(STATUS, identity="host-2"))
    assert [(one.identity, one.state) for one in await workers.alive(within_s=10)] == [
        ("host-1", "ready"),
        ("host-2", "ready"),
    ]


async def test_worker_that_fell_silent_is_not_alive(workers: WorkerRegistry, clock: Clock) -> None:
    await workers.report(STATUS)
    clock.pass_seconds(8)
    await workers.report(replace(STATUS, identity="host-2"))
    clock.pass_seconds(8)
    assert [one.identity for one in await workers.alive(within_s=10)] == ["host-2"]


async def test_worker_that_signs_off_is_gone(workers: WorkerRegistry) -> None:
    await workers.report(STATUS)
    await workers.sign_off("host-1")
    await workers.sign_off("host-9")
    assert await workers.alive(within_s=10) == []
