from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from activities.task_ports import TaskChange
from api.task_writer import MOST_WAITING, TaskWriter
from goatherd.contracts.task import Counts, TaskEvent, TaskStatus, TaskSummary
from goatherd.errors import Unavailable

A, B = "task_01k9w2x6hj3v8m5r7t0q4n1b2c", "task_01k9w2x6hj3v8m5r7t0q4n1b2d"


class Store:
    """`apply` alone, which waits to be let through."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, list[int], int]]] = []
        self.gate: asyncio.Event | None = None
        self.down = False
        self.begun = asyncio.Event()

    async def apply(self, changes: Sequence[TaskChange]) -> None:
        self.calls.append(
            [(one.task, [event.seq for event in one.events], one.summary.version) for one in changes]
        )
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise Unavailable("away")


@pytest.fixture
def store() -> Store:
    return Store()


def add(writer: TaskWriter, task: str, *numbers: int, kind: str = "subtask.updated") -> None:
    events = [
        TaskEvent.model_validate({"seq": seq, "type": kind, "task": task, "ts": "2026-11-22T12:00:00Z"})
        for seq in numbers
    ]
    last = max(numbers, default=0)
    writer.add(task, events, TaskSummary(version=last, status=TaskStatus.PENDING, counts=Counts()))


async def test_what_gathers_while_one_is_written_is_written_together(store: Store) -> None:
    writer = TaskWriter(store)  # type: ignore[arg-type]
    store.gate = asyncio.Event()
    add(writer, A, 1)
    await store.begun.wait()
    add(writer, A, 2, 3)
    add(writer, B, 7)
    add(writer, A, 4)
    settled = asyncio.create_task(writer.settled(A))
    await asyncio.sleep(0)
    assert not settled.done()
    store.gate.set()
    await settled
    assert store.calls == [[(A, [1], 1)], [(A, [2, 3, 4], 4), (B, [7], 7)]]
    assert writer.acks(A) == [(1, 4)]
    assert writer.acks(A) == []
    assert writer.acks(B) == [(7, 7)]


async def test_nobody_waits_for_what_he_does_not_read(store: Store) -> None:
    writer = TaskWriter(store)  # type: ignore[arg-type]
    store.gate = asyncio.Event()
    add(writer, A, 1)
    await store.begun.wait()
    await writer.settled(B)
    store.gate.set()
    await writer.settled(A)
    await writer.settled(A)


async def test_what_could_not_be_written_is_not_told_and_not_waited_for(store: Store) -> None:
    writer = TaskWriter(store)  # type: ignore[arg-type]
    store.down = True
    add(writer, A, 1)
    await writer.settled(A)
    assert writer.acks(A) == []
    store.down = False
    add(writer, A, 2)
    await writer.settled(A)
    assert writer.acks(A) == [(2, 2)]


async def test_what_could_not_be_told_is_told_later_as_ranges(store: Store) -> None:
    writer = TaskWriter(store)  # type: ignore[arg-type]
    add(writer, A, 5, 1, 2)
    await writer.settled(A)
    acks = writer.acks(A)
    assert acks == [(1, 2), (5, 5)]
    add(writer, A, 3)
    await writer.settled(A)
    writer.put_back(A, acks)
    assert writer.acks(A) == [(1, 3), (5, 5)]


async def test_too_much_is_left_to_the_actors(store: Store) -> None:
    writer = TaskWriter(store)  # type: ignore[arg-type]
    store.gate = asyncio.Event()
    add(writer, A, 1)
    await store.begun.wait()
    add(writer, A, *range(2, MOST_WAITING + 2))
    add(writer, B, 1)
    store.gate.set()
    await writer.close()
    assert writer.acks(B) == []
    assert sum(len(numbers) for call in store.calls for _, numbers, _ in call) == MOST_WAITING + 1


async def test_closing_writes_what_there_is(store: Store) -> None:
    writer = TaskWriter(store, linger_s=60)  # type: ignore[arg-type]
    add(writer, A, *range(1, 50))
    await asyncio.sleep(0)
    add(writer, A, 50)
    async with asyncio.timeout(2):
        await writer.close()
    assert writer.acks(A) == [(1, 50)]


async def test_what_somebody_may_wait_for_takes_along_what_nobody_does(store: Store) -> None:
    writer = TaskWriter(store, linger_s=60)  # type: ignore[arg-type]
    store.gate = asyncio.Event()
    add(writer, A, *range(1, 20), kind="subtask.leased")
    await store.begun.wait()
    add(writer, A, 20, kind="subtask.completed")
    store.begun.clear()
    store.gate.set()
    add(writer, A, 21, kind="subtask.released")
    async with asyncio.timeout(10):
        await store.begun.wait()
    assert store.calls[1:] == [[(A, [20, 21], 21)]]
    await writer.close()


async def test_what_nobody_waits_for_is_kept_back_until_somebody_reads(store: Store) -> None:
    writer = TaskWriter(store, linger_s=60)  # type: ignore[arg-type]
    store.gate = asyncio.Event()
    add(writer, A, *range(1, 20), kind="subtask.leased")
    await store.begun.wait()
    begun = asyncio.create_task(writer.settled(A))
    await asyncio.sleep(0)
    add(writer, A, 20, kind="subtask.completed")
    store.gate.set()
    async with asyncio.timeout(10):
        await begun
        assert len(store.calls) == 1
        add(writer, A, 21, kind="subtask.completed")
        await writer.settled(A)
    assert store.calls[1:] == [[(A, [20, 21], 21)]]
    await writer.close()
