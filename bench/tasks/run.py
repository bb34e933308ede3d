"""Tasks by HTTP, on a whole `goatherd up` of its own: take and complete, and a hundred thousand at once.

All sides of every ratio run in the same run on the same machine. The load comes from this process; what is
measured runs in others.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.service import RPCError

from bench.chat.stack import Stack, running
from bench.measure import Load, load, median, ratio
from bench.tasks import postgres
from bench.tasks.raw import QUEUE, BareTask

TAKERS, SUBTASKS, ROUNDS = 64, 5_000, 3
RAW_IN_FLIGHT, RAW_PAIRS = 8, 450
"""A bare workflow takes ten updates at once, and 2,000 in its life."""
BULK, BATCH = 100_000, 1_000


async def main() -> None:
    async with running() as stack:
        await _pairs(stack)
        await _bulk(stack)


async def _pairs(stack: Stack) -> None:
    print(f"take and complete, {TAKERS} takers on one task of {SUBTASKS:,} subtasks, {ROUNDS} rounds")
    idle, ours, raw = [], [], []
    errors = 0
    client = await Client.connect(stack.temporal)
    async with _raw_worker(stack.temporal):
        for number in range(ROUNDS):
            idle.append(await nothing(stack, SUBTASKS))
            task = await make_task(stack, SUBTASKS)
            ours.append(await take_all(stack, task, SUBTASKS))
            done, failed = await _raw(client, number)
            raw.append(done)
            errors += failed
            print(f"  no-op POST {idle[-1]}\n  ours, pairs{ours[-1]}\n  raw, pairs {raw[-1]}")
    theirs = await postgres.measure(takers=TAKERS, items=SUBTASKS)
    if isinstance(theirs, Load):
        print(f"  PostgreSQL, SKIP LOCKED, no HTTP, pairs {theirs}")
    else:
        print(f"  PostgreSQL: not measured ({theirs})")
    print(f"  errors of raw Temporal with {RAW_IN_FLIGHT} in flight: {errors} of {ROUNDS * RAW_PAIRS} pairs")
    each = median(ours)
    requests = Load(each.rate * 2, each.latencies)
    ratio("requests that take or complete against no-op POSTs", requests, median(idle), 0.6)
    ratio("take + complete by HTTP against two raw updates", each, median(raw), 1)


async def nothing(stack: Stack, total: int) -> Load:
    """The same route and client, with a body that is refused at the door."""
    task = await make_task(stack, 1)
    path = f"/task/{task}/subtask/__take"

    async def post(_: int) -> None:
        async with stack.http.post(path, json={}) as answer:
            assert answer.status == 422
            await answer.read()

    return await load(post, clients=TAKERS, total=total)


async def take_all(stack: Stack, task: str, total: int) -> Load:
    """Takes and completes each of a task's subtasks once; that it was once is checked."""
    seen: set[str] = set()

    async def pair(number: int) -> None:
        body = {"worker": f"taker-{number % TAKERS}", "wait_s": 5}
        path = f"/task/{task}/subtask"
        taken = await _json(stack, "POST", f"{path}/__take", body)
        (assignment,) = taken["assignments"]
        assert assignment["subtask"] not in seen
        seen.add(assignment["subtask"])
        report = {"status": "completed", "lease_token": assignment["lease_token"], "result": number}
        await _json(stack, "PUT", f"{path}/{assignment['subtask']}/status", report)

    measured = await load(pair, clients=TAKERS, total=total)
    assert len(seen) == total
    return measured


async def _raw(client: Client, number: int) -> tuple[Load, int]:
    bare = await client.start_workflow(BareTask.run, id=f"bare-task-{number}", task_queue=QUEUE)
    errors = 0

    async def pair(_: int) -> None:
        nonlocal errors
        try:
            await bare.execute_update(BareTask.complete, await bare.execute_update(BareTask.take))
        except (RPCError, WorkflowUpdateFailedError):
            errors += 1

    measured = await load(pair, clients=RAW_IN_FLIGHT, total=RAW_PAIRS)
    await bare.terminate()
    return measured, errors


async def _bulk(stack: Stack) -> None:
    print(f"{BULK:,} subtasks in one task, {BATCH:,} a request")
    worker = next(
        process
        for process in psutil.Process(stack.pid).children(recursive=True)
        if "actors" in " ".join(process.cmdline()) and "_exec" not in " ".join(process.cmdline())
    )
    before = worker.memory_full_info().pss / 1e6
    task = await make_task(stack, 0)
    started = time.perf_counter()
    for first in range(0, BULK, BATCH):
        batch = [{"input": {"number": number}} for number in range(first, first + BATCH)]
        await _json(stack, "POST", f"/task/{task}/subtask", batch)
    seconds = time.perf_counter() - started
    after = worker.memory_full_info().pss / 1e6
    found = await _json(stack, "GET", f"/task/{task}")
    assert found["counts"]["pending"] == BULK
    handle = (await Client.connect(stack.temporal)).get_workflow_handle(task)
    described = await handle.describe()
    state = described.raw_description.workflow_execution_info
    print(f"  {BULK / seconds:,.0f} subtasks/s; the actors' worker has {before:.0f} MB, then {after:.0f} MB")
    runs = "in one run" if state.first_run_id == described.run_id else "in its newest run"
    print(
        f"  history {runs}: {state.history_length} events "
        f"({state.history_length / (BULK / 1_000):.1f} for 1,000 subtasks), "
        f"{state.history_size_bytes / 1e6:.2f} MB\n"
    )


async def make_task(stack: Stack, count: int) -> str:
    """A task with so many subtasks."""
    task = str((await _json(stack, "POST", "/task", {"title": "bench"}))["id"])
    for first in range(0, count, BATCH):
        batch = [{"input": number} for number in range(first, min(first + BATCH, count))]
        await _json(stack, "POST", f"/task/{task}/subtask", batch)
    return task


async def _json(stack: Stack, method: str, path: str, body: Any = None) -> Any:
    async with stack.http.request(method, path, json=body) as answer:
        assert answer.status in (200, 201), await answer.text()
        return await answer.json()


@asynccontextmanager
async def _raw_worker(temporal: str) -> AsyncIterator[None]:
    worker = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.tasks.raw", temporal)
    try:
        yield
    finally:
        worker.kill()
        await worker.wait()


if __name__ == "__main__":
    asyncio.run(main())
