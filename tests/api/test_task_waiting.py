from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from api.task_schemas import TakeBody
from goatherd.contracts.task_messages import TakeSubtasks
from goatherd.errors import Unavailable
from goatherd.security.access import Principal
from tests.api.conftest import House, check_problem
from tests.api.task_house import TaskHouse


@pytest.fixture
def tasks(house: House) -> TaskHouse:
    return house.tasks


def takes(tasks: TaskHouse) -> int:
    return sum(isinstance(one, TakeSubtasks) for one in tasks.actors.asked)


async def test_nothing_is_an_empty_answer_at_once(tasks: TaskHouse) -> None:
    task = await tasks.create()
    assert await tasks.take(task) == []
    too_long = await tasks.http.post(f"/task/{task}/subtask/__take", json={"worker": "w", "wait_s": 31})
    assert check_problem(too_long, 422, "invalid")["errors"][0]["pointer"] == "/wait_s"


async def test_one_who_waits_gets_what_comes(tasks: TaskHouse) -> None:
    task = await tasks.create()
    waiting = asyncio.create_task(tasks.take(task, wait_s=20))
    await tasks.until_waiting(task, 1)
    await tasks.add(task, {"title": "new"})
    (held,) = await asyncio.wait_for(waiting, 2)
    assert (held["title"], takes(tasks)) == ("new", 2)
    assert not tasks.parts.feed._lines._lines


async def test_waiting_in_vain_ends_and_asks_once(tasks: TaskHouse) -> None:
    task = await tasks.create()
    began = time.monotonic()
    assert await tasks.take(task, wait_s=0.1) == []
    assert 0.1 <= time.monotonic() - began < 1
    assert takes(tasks) == 1


async def test_as_many_are_waked_as_came(tasks: TaskHouse) -> None:
    task = await tasks.create()
    waiting = [asyncio.create_task(tasks.take(task, f"w{n}", wait_s=20)) for n in range(20)]
    await tasks.until_waiting(task, 20)
    await tasks.add(task, [{}, {}, {}])
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=2)
    await tasks.until_waiting(task, 17)
    assert sum(task.done() for task in waiting) == 3
    assert all(task.done() for task in waiting[:3]), "who came first is first"
    assert takes(tasks) == 23
    await tasks.add(task, [{} for _ in range(17)])
    assert all(len(held) == 1 for held in await asyncio.wait_for(asyncio.gather(*waiting), 2))


async def test_who_can_t_take_it_wakes_the_next(tasks: TaskHouse) -> None:
    task = await tasks.create()
    unable = [asyncio.create_task(tasks.take(task, f"u{n}", wait_s=20)) for n in range(3)]
    await tasks.until_waiting(task, 3)
    able = asyncio.create_task(tasks.take(task, "able", capabilities=["gpu"], wait_s=20))
    await tasks.until_waiting(task, 4)
    await tasks.add(task, {"requires": ["gpu"]})
    assert len(await asyncio.wait_for(able, 2)) == 1
    assert takes(tasks) == 8
    for one in unable:
        one.cancel()
    await asyncio.gather(*unable, return_exceptions=True)


@pytest.mark.parametrize("how", ["released", "unblocked", "requeued", "resumed", "expired"])
async def test_whatever_makes_work_wakes(tasks: TaskHouse, how: str) -> None:
    task = await tasks.create(
        {"key": "a"}, *([{"depends_on": ["a"]}] if how == "unblocked" else []), max_attempts=1, lease_s=1,
        backoff={"initial_s": 0},
    )  # fmt: skip
    if how == "expired":
        await tasks.http.delete(f"/task/{task}")
        task = await tasks.create({}, max_attempts=2, lease_s=1, backoff={"initial_s": 0.2})
    (held,) = await tasks.take(task, "first")
    if how == "requeued":
        await tasks.put(task, held, status="failed")
    if how == "resumed":
        await tasks.put(task, held, status="pending")
        await tasks.http.post(f"/task/{task}/__pause")
    waiting = asyncio.create_task(tasks.take(task, "second", wait_s=20))
    await tasks.until_waiting(task, 1)
    match how:
        case "released":
            await tasks.put(task, held, status="pending")
        case "unblocked":
            await tasks.done(task, held)
        case "requeued":
            await tasks.http.post(f"/task/{task}/__requeue")
        case "resumed":
            await tasks.http.post(f"/task/{task}/__resume")
    assert len(await asyncio.wait_for(waiting, 5)) == 1


async def test_a_backoff_that_ends_wakes(tasks: TaskHouse) -> None:
    task = await tasks.create({}, backoff={"initial_s": 0.3})
    (held,) = await tasks.take(task, "first")
    await tasks.put(task, held, status="failed")
    began = time.monotonic()
    assert len(await tasks.take(task, "second", wait_s=20)) == 1
    assert 0.2 < time.monotonic() - began < 2
    assert takes(tasks) <= 4


async def test_what_another_process_makes_wakes(tasks: TaskHouse) -> None:
    """Its events come by the store's feed only."""
    task = await tasks.create()
    waiting = asyncio.create_task(tasks.take(task, wait_s=20))
    await tasks.until_waiting(task, 1)
    await tasks.parts.feed.listen()
    writer, on_events = tasks.parts.actors.writer, tasks.parts.actors._on_events
    tasks.parts.actors._on_events = lambda *_: None
    await tasks.add(task, {"title": "theirs"})
    tasks.parts.actors._on_events = on_events
    await writer.settled(task)
    assert (await asyncio.wait_for(waiting, 2))[0]["title"] == "theirs"


async def test_a_feed_that_was_lost_has_one_look(tasks: TaskHouse) -> None:
    task = await tasks.create()
    waiting = [asyncio.create_task(tasks.take(task, f"w{n}", wait_s=20)) for n in range(3)]
    await tasks.until_waiting(task, 3)
    before = takes(tasks)
    tasks.parts.feed._miss_all()
    await asyncio.sleep(0.02)
    await tasks.until_waiting(task, 3)
    assert takes(tasks) == before + 1
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_the_end_of_the_task_ends_the_wait(tasks: TaskHouse) -> None:
    task = await tasks.create()
    path = f"/task/{task}/subtask/__take"
    waiting = [
        asyncio.create_task(tasks.http.post(path, json={"worker": f"w{n}", "wait_s": 20})) for n in range(2)
    ]
    await tasks.until_waiting(task, 2)
    await tasks.http.delete(f"/task/{task}")
    for answer in await asyncio.wait_for(asyncio.gather(*waiting), 2):
        check_problem(answer, 409, "task-closed")


async def test_a_process_that_goes_ends_the_wait(tasks: TaskHouse) -> None:
    task = await tasks.create()
    path = f"/task/{task}/subtask/__take"
    waiting = asyncio.create_task(tasks.http.post(path, json={"worker": "w", "wait_s": 20}))
    await tasks.until_waiting(task, 1)
    tasks.parts.feed.close()
    check_problem(await asyncio.wait_for(waiting, 2), 503, "restarting")


async def test_a_client_that_goes_away_leaves_its_place_to_the_next(tasks: TaskHouse) -> None:
    task = await tasks.create()
    left, gone = asyncio.Event(), asyncio.Event()

    async def leaves() -> None:
        await left.wait()
        gone.set()

    body: Any = TakeBody(worker="first", wait_s=20)
    first = asyncio.create_task(
        tasks.parts.work.take(Principal("local"), task, body, take_id=None, gone=leaves)
    )
    await tasks.until_waiting(task, 1)
    second = asyncio.create_task(tasks.take(task, "second", wait_s=20))
    await tasks.until_waiting(task, 2)
    left.set()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(first, 2)
    await tasks.add(task, {})
    assert len(await asyncio.wait_for(second, 2)) == 1


async def test_a_hundred_takers_lose_nothing(tasks: TaskHouse) -> None:
    task = await tasks.create()
    seen: list[str] = []

    async def work(name: str) -> None:
        while len(seen) < 400:
            for held in await tasks.take(task, name, wait_s=1, max=1 + len(name) % 2):
                await tasks.done(task, held)
                seen.append(held["subtask"])

    workers = [asyncio.create_task(work(f"w{n}")) for n in range(100)]
    for _ in range(40):
        await tasks.add(task, [{} for _ in range(10)])
        await asyncio.sleep(0)
    await asyncio.wait_for(asyncio.gather(*workers), 30)
    assert sorted(seen) == sorted(set(seen))
    assert len(seen) == 400
    assert (await tasks.get(f"/task/{task}"))["status"] == "completed"
