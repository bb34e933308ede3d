"""What comes again, too late, or all at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from api.task_lines import Line
from goatherd.contracts.ids import new_id
from goatherd.contracts.task import TaskEvent, TaskEventType
from tests.api.conftest import House, check_problem
from tests.api.task_house import TaskHouse


@pytest.fixture
def tasks(house: House) -> TaskHouse:
    return house.tasks


def sub_path(task: str, held: dict[str, Any]) -> str:
    return f"/task/{task}/subtask/{held['subtask']}"


@pytest.mark.parametrize("result", [{"label": "goat"}, "x" * 9_000], ids=["small", "large"])
@pytest.mark.parametrize("how", ["completes", "is cancelled"])
async def test_the_report_that_closes_the_task_is_answered_the_same_again(
    tasks: TaskHouse, how: str, result: Any
) -> None:
    task = await tasks.create({}, linger_s=0 if how == "completes" else 60)
    (held,) = await tasks.take(task)
    if how == "is cancelled":
        assert (await tasks.http.delete(f"/task/{task}")).status_code == 202
    first = await tasks.put(task, held, status="completed", result=result)
    assert (first.status_code, first.json()["status"]) == (200, "completed")
    again = await tasks.put(task, held, status="completed", result=result)
    assert (again.status_code, again.content) == (200, first.content)
    for other in ({"status": "completed", "result": "another"}, {"status": "failed"}, {"status": "pending"}):
        check_problem(await tasks.put(task, held, **other), 409, "task-closed")
    assert (await tasks.get(sub_path(task, held)))["result"] == result


@pytest.mark.parametrize("status", ["failed", "pending", "cancelled"])
async def test_whatever_closes_a_task_that_is_cancelled_is_answered_the_same_again(
    tasks: TaskHouse, status: str
) -> None:
    task = await tasks.create({})
    (held,) = await tasks.take(task)
    await tasks.http.delete(f"/task/{task}")
    first = await tasks.put(task, held, status=status)
    assert (first.status_code, first.json()["status"]) == (200, "cancelled")
    assert (await tasks.put(task, held, status=status)).content == first.content
    if status == "pending":
        body = {"lease_token": held["lease_token"]}
        assert (await tasks.http.post(f"{sub_path(task, held)}/release", json=body)).content == first.content
    check_problem(await tasks.put(task, held, status="completed"), 409, "task-closed")


async def test_an_earlier_answer_of_several_is_known_after_the_end(tasks: TaskHouse) -> None:
    task = await tasks.create({}, overlap=2, linger_s=0)
    (one,), (two,) = await tasks.take(task, "ada"), await tasks.take(task, "bob")
    first = await tasks.put(task, one, status="completed", result=1)
    assert first.json()["status"] == "leased"
    await asyncio.sleep(0.002)  # They are told apart by their time.
    second = await tasks.put(task, two, status="completed", result=2)
    assert (await tasks.put(task, one, status="completed", result=1)).content == first.content
    assert (await tasks.put(task, two, status="completed", result=2)).content == second.content


async def test_a_lease_that_is_over_leaves_no_large_result_behind(tasks: TaskHouse) -> None:
    task = await tasks.create({})
    (held,) = await tasks.take(task, "ada")
    await tasks.put(task, held, status="pending")
    answer = await tasks.put(task, held, status="completed", result="x" * 9_000)
    check_problem(answer, 409, "invalid-transition")
    assert await tasks.store.answers(task, [held["subtask"]]) == []
    assert "ada" not in (await tasks.get(f"/task/{task}/stats"))["workers"]


@pytest.mark.parametrize("end", ["completed", "failed"])
async def test_who_waits_for_work_learns_that_all_is_done(tasks: TaskHouse, end: str) -> None:
    task = await tasks.create({})
    (held,) = await tasks.take(task)
    path, body = f"/task/{task}/subtask/__take", {"worker": "w", "wait_s": 20}
    waiting = [asyncio.create_task(tasks.http.post(path, json=body)) for _ in range(3)]
    await tasks.until_waiting(task, 3)
    await tasks.put(task, held, status=end, retryable=False)
    for answer in await asyncio.wait_for(asyncio.gather(*waiting), 2):
        assert (answer.json()["assignments"], answer.json()["task"]["status"]) == ([], end)
    # Who comes now waits for what may be added.
    late = asyncio.create_task(tasks.take(task, wait_s=20))
    await tasks.until_waiting(task, 1)
    await tasks.add(task, {"title": "more"})
    assert [one["title"] for one in await asyncio.wait_for(late, 2)] == ["more"]


async def test_one_backoff_after_another_wakes(tasks: TaskHouse) -> None:
    task = await tasks.create({}, {})
    one, two = await tasks.take(task, "first", max=2)
    await tasks.put(task, one, status="failed", retry_after_s=0.2)
    await tasks.put(task, two, status="failed", retry_after_s=0.6)
    waiting = [asyncio.create_task(tasks.take(task, f"w{n}", wait_s=20)) for n in range(2)]
    done = await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert all(len(held) == 1 for held in done)


async def test_the_actor_s_refusal_says_where(tasks: TaskHouse) -> None:
    task = await tasks.create({})
    first = (await tasks.get(f"/task/{task}/subtask"))["first_id"]
    answer = await tasks.http.put(f"/task/{task}/subtask/{first}/status", json={"status": "completed"})
    assert check_problem(answer, 422, "invalid")["errors"][0]["pointer"] == "/lease_token"
    coming = first[:-1] + "2"
    for body in (
        [{"depends_on": [coming]}],
        [{"depends_on": [coming]}, *({"input": "x"} for _ in range(300))],
    ):
        answer = await tasks.http.post(f"/task/{task}/subtask", json=body)
        assert check_problem(answer, 422, "invalid")["errors"][0]["pointer"] == "/0/depends_on"
    answer = await tasks.http.post(f"/task/{task}/subtask", json={"depends_on": [coming]})
    assert check_problem(answer, 422, "invalid")["errors"][0]["pointer"] == "/depends_on"


async def test_a_large_change_is_read_as_it_was_written(tasks: TaskHouse) -> None:
    task = await tasks.create({"input": "old"})
    first = (await tasks.get(f"/task/{task}/subtask"))["first_id"]
    path = f"/task/{task}/subtask/{first}"
    large = "x" * 200_000
    answer = await tasks.http.put(path, json={"input": large}, headers={"if-match": "*"})
    assert (answer.status_code, answer.json()["input"] == large) == (200, True)
    assert (await tasks.http.get(path)).headers["etag"] == answer.headers["etag"]
    (held,) = await tasks.take(task)
    assert held["input"] == large


@pytest.mark.parametrize(
    "raw",
    [
        b'{"result": "\\ud800"}',
        b'{"result": "\xff"}',
        b'{"result": NaN}',
        b'{"result": 1e999}',
        b'{"result": 123456789012345678901234567890}',
        b'{"result": ' + b"[" * 70 + b"]" * 70 + b"}",
        b'{"result": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"result": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}",
        b"",
        b"[]",
    ],
)
async def test_bad_reports_are_never_a_500(tasks: TaskHouse, raw: bytes) -> None:
    task = await tasks.create({})
    (held,) = await tasks.take(task)
    if raw.startswith(b"{"):
        raw = raw[:-1] + f', "status": "completed", "lease_token": "{held["lease_token"]}"}}'.encode()
    path = f"{sub_path(task, held)}/status"
    answer = await tasks.http.put(path, content=raw, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_who_was_told_of_nothing_right_before_the_end_learns_of_it_too() -> None:
    """The end may be seen while his answer is on its way to him."""
    line = Line(1, lambda: None)
    waiter = line.enter(1)
    line.asks(waiter)
    line.answered(waiter, 4, 0, None)
    line.on_events(
        [TaskEvent(seq=5, type=TaskEventType.TASK_COMPLETED, task=new_id("task"), ts=datetime.now(UTC))]
    )
    until = asyncio.get_running_loop().time() + 20
    assert await asyncio.wait_for(line.wait(waiter, until), 1)
    assert waiter.ended
    line.leave(waiter)
