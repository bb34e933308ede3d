"""Tasks by HTTP, on a whole Goatherd whose processes are killed: nothing is done twice, nothing is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import httpx
import pytest

from goatherd.embedded._ports import any_free
from tests.e2e.stack import Up, running_up, until_ready
from tests.e2e.working import Books, Driver, listed, send, work_through
from tests.embedded.waiting import gone
from tests.temporal import eventually

API, ACTORS, TEMPORAL, STORE = ("goatherd", "api"), ("goatherd", "actors"), ("start-dev",), ("secantusd",)
TAKERS = 64
SUBTASKS = 5_000
_CHUNK = 500


@pytest.fixture(scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    async with running_up(tmp_path_factory.mktemp("tasks") / "data", any_free()) as running:
        await running.ready()
        yield running


@pytest.fixture
async def http(up: Up) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=up.url, timeout=60) as client:
        await until_ready(client)
        yield client


async def kill(up: Up, *words: str) -> None:
    """kill -9; returns when it runs again."""
    part = up.part(*words)
    part.kill()
    await gone(part.pid)

    async def back() -> bool:
        return up.child(*words) is not None

    await eventually(back, within_s=30)


async def begin(http: httpx.AsyncClient, **body: object) -> str:
    made = await send(http, "POST", "/task", json={"title": "test", "lease_s": 60, "max_attempts": 5} | body)
    assert made.status_code == 201, made.text
    task: str = made.json()["id"]
    return task


async def test_sixty_four_takers_do_five_thousand_each_once_while_workers_die(
    up: Up, http: httpx.AsyncClient
) -> None:
    task = await begin(http, lease_s=600)
    for start in range(0, SUBTASKS, _CHUNK):
        body = [{"input": number} for number in range(start, start + _CHUNK)]
        assert (await send(http, "POST", f"/task/{task}/subtask", json=body)).status_code == 201
    books = Books()

    async def kills() -> None:
        for count in (500, 1_500, 3_000):

            async def reached(count: int = count) -> bool:
                return len(books.accepted) >= count

            await eventually(reached, within_s=120)
            await kill(up, *ACTORS)

    async def work(worker: str) -> None:
        # Each with connections of its own: httpx is slow with many in one pool.
        async with httpx.AsyncClient(base_url=up.url, timeout=60) as client:
            await work_through(client, task, worker, books)

    async with asyncio.TaskGroup() as group:
        group.create_task(kills())
        for number in range(TAKERS):
            group.create_task(work(f"worker-{number}"))
    assert len(books.accepted) == SUBTASKS
    assert all(len(fences) == 1 for fences in books.accepted.values())
    stored = [one async for one in listed(http, f"/task/{task}/subtask")]
    assert len(stored) == SUBTASKS
    for number, one in enumerate(stored):
        assert one["status"] == "completed"
        assert one["result"]["fence"] == books.accepted[one["id"]][0]
        assert one["result"]["of"] == number
    summary = (await send(http, "GET", f"/task/{task}")).json()
    assert (summary["status"], summary["counts"]["completed"]) == ("completed", SUBTASKS)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_random_work_keeps_the_rules_while_anything_dies(
    up: Up, http: httpx.AsyncClient, seed: int
) -> None:
    luck = random.Random(seed)
    driver = Driver(http, await begin(http, lease_s=600, max_attempts=1_000, backoff={"initial_s": 0}), luck)
    await driver.add()
    victims = [ACTORS, API, STORE, TEMPORAL]
    for step in range(60):
        if step % 15 == 7:
            # While it is down and coming up again, the work goes on.
            killing = asyncio.create_task(kill(up, *victims[step // 15]))
            await driver.step()
            await driver.step()
            await killing
        await driver.step()
    await driver.finish()
    await driver.check()


async def test_a_waiting_taker_has_what_is_added_at_once(up: Up, http: httpx.AsyncClient) -> None:
    task = await begin(http)
    path = f"/task/{task}/subtask"
    waiting = asyncio.create_task(send(http, "POST", f"{path}/__take", json={"worker": "ada", "wait_s": 30}))
    await asyncio.wait([waiting], timeout=1.0)
    assert not waiting.done()
    started = asyncio.get_running_loop().time()
    await send(http, "POST", path, json={"input": "here"})
    (assignment,) = (await waiting).json()["assignments"]
    assert assignment["input"] == "here"
    assert asyncio.get_running_loop().time() - started < 10


async def test_a_lease_that_nobody_keeps_up_is_given_to_another(up: Up, http: httpx.AsyncClient) -> None:
    task = await begin(http, lease_s=1, backoff={"initial_s": 0})
    path = f"/task/{task}/subtask"
    await send(http, "POST", path, json={"input": 1})
    (first,) = (await send(http, "POST", f"{path}/__take", json={"worker": "ada"})).json()["assignments"]
    beat = {"lease_token": first["lease_token"], "extend_s": 1, "checkpoint": {"page": 7}}
    assert (await send(http, "POST", f"{path}/{first['subtask']}/heartbeat", json=beat)).status_code == 200
    taken = await send(http, "POST", f"{path}/__take", json={"worker": "bob", "wait_s": 20})
    (second,) = taken.json()["assignments"]
    assert (second["subtask"], second["attempt"]) == (first["subtask"], 2)
    assert second["checkpoint"] == {"page": 7}
    report = {"status": "completed", "lease_token": first["lease_token"], "result": 1}
    late = await send(http, "PUT", f"{path}/{first['subtask']}/status", json=report)
    assert (late.status_code, late.json()["code"]) == (409, "lease-lost")
    report["lease_token"] = second["lease_token"]
    done = await send(http, "PUT", f"{path}/{first['subtask']}/status", json=report)
    assert done.status_code == 200
    stored = (await send(http, "GET", f"{path}/{first['subtask']}")).json()
    assert [lease["outcome"] for lease in stored["leases"]] == ["expired", "completed"]
