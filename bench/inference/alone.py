"""One call alone: what it takes more than the direct call, and where."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

from temporalio.client import Client

from bench.chat.stack import Stack
from bench.inference.library import Library
from bench.inference.raw import QUEUE, echo
from bench.measure import Load

CALLS, BLOCK = 100, 10
TEXT = "A goat is a goat, and a herd of goats is what a goatherd looks after."
SETTLE_S = 0.3
AIM_MS = 15.0
_LONGEST = timedelta(seconds=30)

Metrics = Callable[[], Awaitable[dict[str, float]]]


async def measure(
    stack: Stack, library: Library, ask: Callable[[str], Awaitable[Any]], metrics: Metrics
) -> None:
    """Alternately, in blocks, so that what else goes on concerns all sides alike."""
    print(f"one call alone, {CALLS} times each, alternately")
    client = await Client.connect(stack.temporal)
    direct: list[float] = []
    ours: list[float] = []
    refused: list[float] = []
    bare: list[float] = []
    inside = {"queue_seconds": 0.0, "compute_seconds": 0.0}
    async with _raw_worker(stack.temporal):
        await _timed(BLOCK, lambda: _bare(client), [])
        for _ in range(CALLS // BLOCK):
            await asyncio.sleep(SETTLE_S)
            direct += await library.compute([TEXT] * BLOCK, batch=1)
            await asyncio.sleep(SETTLE_S)
            before = await metrics()
            await _timed(BLOCK, lambda: ask(TEXT), ours)
            after = await metrics()
            for name in inside:
                inside[name] += after[f"{name}_sum"] - before[f"{name}_sum"]
            await asyncio.sleep(SETTLE_S)
            await _timed(BLOCK, lambda: _refused(stack), refused)
            await _timed(BLOCK, lambda: _bare(client), bare)
    for name, times in (
        ("direct", direct), ("ours", ours), ("HTTP that is refused at once", refused),
        ("an activity that does nothing", bare),
    ):  # fmt: skip
        loads = Load(0, times)
        print(f"  {name:30} p50 {loads.quantile(50):6.1f} ms   p99 {loads.quantile(99):6.1f} ms")
    queue, compute = (seconds / CALLS * 1e3 for seconds in inside.values())
    print(f"  in the worker, on average: waits {queue:.1f} ms, is computed {compute:.1f} ms")
    more = (statistics.median(ours) - statistics.median(direct)) * 1e3
    late = Load(0, ours).quantile(99) - Load(0, direct).quantile(99)
    missed = "" if more <= AIM_MS else "   MISSED"
    print(f"  → more than the direct call: p50 {more:.1f} ms, p99 {late:.1f} ms (aim {AIM_MS:g}){missed}\n")


async def _timed(count: int, call: Callable[[], Awaitable[object]], into: list[float]) -> None:
    for _ in range(count):
        started = time.perf_counter()
        await call()
        into.append(time.perf_counter() - started)


async def _refused(stack: Stack) -> None:
    async with stack.http.post("/v1/embeddings", json={"input": TEXT}) as answer:
        assert answer.status == 422, await answer.text()
        await answer.read()


async def _bare(client: Client) -> None:
    await client.execute_activity(
        echo, TEXT, id=f"bare-{uuid4().hex}", task_queue=QUEUE, schedule_to_close_timeout=_LONGEST
    )


@asynccontextmanager
async def _raw_worker(temporal: str) -> AsyncIterator[None]:
    worker = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.inference.raw", temporal)
    try:
        yield
    finally:
        worker.kill()
        await worker.wait()
