from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from activities.backends.memory_tasks import MemoryTaskStore
from activities.task_ports import TaskChange
from api.frames import Cursor, Frame
from api.sse import encode
from api.subscription import FeedClosed, Limits, SlowConsumer
from api.task_feed import TaskFeed
from api.task_lines import Lines
from goatherd.contracts.task import Counts, TaskEvent, TaskStatus, TaskSummary
from tests.api.conftest import House, check_problem
from tests.api.streams import PATIENT, QUICK
from tests.api.task_house import TaskHouse


@pytest.fixture
def tasks(house: House) -> TaskHouse:
    return house.tasks


async def read(feed: TaskFeed, task: str, count: int, since: int = 0) -> list[dict[str, Any]]:
    """So many events; fewer if the stream ends before."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(5), aclosing(feed.follow(task, Cursor(since))) as frames:
        async for frame in frames:
            if frame.cursor is not None:
                found.append(orjson.loads(frame.wire.body))
            if len(found) == count:
                break
    return found


async def test_events_are_told_from_the_beginning_and_as_they_happen(tasks: TaskHouse) -> None:
    task = await tasks.create({}, {})
    following = asyncio.create_task(read(tasks.parts.feed, task, 100))
    for held in await tasks.take(task, max=2):
        await tasks.done(task, held, {"secret": "mine"})
    await tasks.http.delete(f"/task/{task}")
    events = await following
    assert [one["seq"] for one in events] == list(range(1, len(events) + 1))
    assert [one["type"] for one in events] == [
        "task.created", "subtasks.created", "subtask.leased", "subtask.leased", "subtask.completed",
        "subtask.completed", "task.completed", "task.closed",
    ]  # fmt: skip
    text = orjson.dumps(events).decode()
    assert "lease_token" not in text
    assert "mine" not in text


async def test_it_goes_on_after_a_cursor_and_not_past_the_end(tasks: TaskHouse) -> None:
    task = await tasks.create({}, {})
    await tasks.http.delete(f"/task/{task}")
    await tasks.parts.actors.writer.settled(task)
    events = await read(tasks.parts.feed, task, 100, since=1)
    assert [one["type"] for one in events] == ["subtasks.created", "task.cancelled"]
    path = f"/task/{task}/events"
    answer = await tasks.http.get(path)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "id: 3\n" in answer.text
    assert (await tasks.http.get(path, headers={"last-event-id": "3"})).status_code == 204
    assert (await tasks.http.get(f"{path}?since=3")).status_code == 204
    check_problem(await tasks.http.get(f"{path}?since=4"), 400, "malformed-cursor")
    check_problem(await tasks.http.get(f"{path}?since=x"), 400, "malformed-cursor")
    check_problem(await tasks.http.get(f"{path}?sinc=1"), 422, "unknown-parameter")


async def test_what_a_deadline_cancels_is_told_before_the_end(tasks: TaskHouse) -> None:
    at = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    task = await tasks.create({}, {}, deadline=at)
    await tasks.take(task)
    types = [one["type"] for one in await read(tasks.parts.feed, task, 100)]
    assert types[-2:] == ["subtask.cancelled", "task.expired"]


# -- with events of one's own

TASK = "task_01k9w2x6hj3v8m5r7t0q4n1b2c"


class Book:
    """A task's events, written when a test says so."""

    def __init__(self) -> None:
        self.store = MemoryTaskStore()

    def event(self, seq: int) -> TaskEvent:
        return TaskEvent.model_validate(
            {"seq": seq, "type": "subtask.updated", "task": TASK, "ts": "2026-11-22T12:00:00Z"}
        )

    async def write(self, *numbers: int, last: int = 100) -> None:
        summary = TaskSummary(version=last, status=TaskStatus.PENDING, counts=Counts())
        events = [self.event(seq) for seq in numbers]
        await self.store.apply([TaskChange(TASK, events, summary)])


@pytest.fixture
def book() -> Book:
    return Book()


async def feed_of(book: Book, limits: Limits) -> AsyncIterator[TaskFeed]:
    async with TaskFeed(book.store, Lines(), limits).running() as feed:
        yield feed


@pytest.mark.parametrize("order", [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [2, 5, 2, 1, 4, 4, 3]])
async def test_whatever_the_order_each_comes_once(book: Book, order: list[int]) -> None:
    async for feed in feed_of(book, QUICK):
        following = asyncio.create_task(read(feed, TASK, 5))
        for seq in order:
            await book.write(seq)
            await asyncio.sleep(0.003)
        assert [one["seq"] for one in await following] == [1, 2, 3, 4, 5]


async def test_a_gap_is_awaited_without_asking_for_each_later_event(book: Book) -> None:
    reads = 0
    events = book.store.events

    async def counted(*given: Any, **named: Any) -> Any:
        nonlocal reads
        reads += 1
        return await events(*given, **named)

    book.store.events = counted  # type: ignore[method-assign]
    async for feed in feed_of(book, Limits(check_s=60, retry_s=0.05, retry_max_s=0.1)):
        following = asyncio.create_task(read(feed, TASK, 301))
        await book.write(1)
        for seq in range(3, 302):
            await book.write(seq)
            if seq % 20 == 0:
                await asyncio.sleep(0.001)
        assert not following.done()
        await book.write(2)
        assert [one["seq"] for one in await following] == list(range(1, 302))
        assert reads < 30


async def test_an_idle_stream_has_comments(book: Book) -> None:
    async for feed in feed_of(book, Limits(check_s=0.005, ping_s=0.01)):
        async with asyncio.timeout(2), aclosing(feed.follow(TASK, Cursor(0))) as frames:
            assert encode(await anext(frames)) == b": ping\n\n"


async def test_it_listens_while_somebody_wants_it(book: Book) -> None:
    async with TaskFeed(book.store, Lines(), QUICK, idle_s=0).running() as feed:
        await asyncio.sleep(0)
        assert feed.ready
        assert not book.store._watchers
        following = asyncio.create_task(read(feed, TASK, 2))
        await feed.listen()
        assert len(book.store._watchers) == 1
        await book.write(1, 2)
        await following
        await asyncio.sleep(0.01)
        await book.write(3)
        async with asyncio.timeout(2):
            while book.store._watchers:  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0)
        assert feed.ready
        assert [one["seq"] for one in await read(feed, TASK, 3)] == [1, 2, 3]


async def test_what_the_feed_missed_is_read(book: Book) -> None:
    async for feed in feed_of(book, PATIENT):
        following = asyncio.create_task(read(feed, TASK, 3))
        await feed.wait_ready()
        await book.write(1)
        watchers = set(book.store._watchers)
        book.store._watchers.clear()
        await book.write(2)
        book.store._watchers.update(watchers)
        book.store.break_feeds()
        await book.write(3)
        assert [one["seq"] for one in await following] == [1, 2, 3]


async def test_a_number_that_nobody_will_write_is_passed_over_once_the_task_is_closed(
    book: Book, monkeypatch: pytest.MonkeyPatch, tasks: TaskHouse
) -> None:
    monkeypatch.setattr("api.task_follower.GIVE_UP_S", 0.05)
    task = await tasks.create({})
    document = await tasks.store.task(task)
    assert document is not None
    await book.store.put_task(document.model_copy(update={"id": TASK, "version": 0}))
    await book.write(1, 2, 4, last=4)
    await book.store.close_task(TASK, "cancelled", "lost", document.created_at)
    async for feed in feed_of(book, QUICK):
        events = await read(feed, TASK, 100)
        assert [one["seq"] for one in events][:3] == [1, 2, 4]
        assert events[-1]["type"] == "task.closed"


async def _all_of(frames: AsyncGenerator[Frame]) -> None:
    async for _ in frames:
        await asyncio.sleep(0)


async def test_a_slow_reader_is_cut_off_and_a_shutdown_ends_all(book: Book) -> None:
    async for feed in feed_of(book, Limits(queue_items=10, check_s=60)):
        await feed.listen()
        await book.write(1)
        frames = feed.follow(TASK, Cursor(0))
        assert (await anext(frames)).cursor == Cursor(1)
        waiting = asyncio.ensure_future(anext(frames))
        await asyncio.sleep(0.01)
        await book.write(2)
        await waiting
        await asyncio.sleep(0)
        await book.write(*range(3, 60))
        with pytest.raises(SlowConsumer):
            await _all_of(frames)
        other = asyncio.create_task(read(feed, TASK, 1_000))
        await asyncio.sleep(0.01)
        feed.close()
        with pytest.raises(FeedClosed):
            await other
