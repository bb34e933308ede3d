"""What a take and a report cost each process in CPU, which other work on the machine changes much less than
wall time; and what they leave in the history.

`python -m bench.tasks.cost [pairs [rounds]]`
"""

from __future__ import annotations

import asyncio
import sys

from temporalio.client import Client

from bench import processes
from bench.chat.stack import running
from bench.measure import Load
from bench.tasks.run import make_task, nothing, take_all


async def main(pairs: int, rounds: int) -> None:
    async with running() as stack:
        client = await Client.connect(stack.temporal)
        await take_all(stack, await make_task(stack, pairs // 4), pairs // 4)  # Warms up all of them.
        for _ in range(rounds):
            task = await make_task(stack, pairs)
            await asyncio.sleep(1)
            before = processes.spent(stack.pid)
            load = await take_all(stack, task, pairs)
            await asyncio.sleep(1)  # What is written behind belongs to it.
            _tell("take and complete", load, before, processes.spent(stack.pid), pairs)
            print(f"    {await _history(client, task, pairs)}", flush=True)
        before = processes.spent(stack.pid)
        load = await nothing(stack, pairs)
        _tell("no-op POST", load, before, processes.spent(stack.pid), pairs)


def _tell(name: str, load: Load, before: dict[str, float], after: dict[str, float], count: int) -> None:
    print(f"  {name} {load}\n    {processes.told(before, after, count)}", flush=True)


async def _history(client: Client, task: str, pairs: int) -> str:
    """Of the task's newest run: Temporal's list of the others comes late."""
    described = await client.get_workflow_handle(task).describe()
    info = described.raw_description.workflow_execution_info
    runs = "one run" if info.first_run_id == described.run_id else "newest run"
    return (
        f"history, {runs}: {info.history_length} events, {info.history_size_bytes:,} bytes "
        f"({info.history_size_bytes / pairs:,.0f} a pair)"
    )


if __name__ == "__main__":
    given = [int(one) for one in sys.argv[1:]]
    asyncio.run(main(*given, *(2_000, 2)[len(given) :]))
