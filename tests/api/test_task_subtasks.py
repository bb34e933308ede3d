from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.task_schemas import TakeBody
from goatherd.contracts.task_messages import AddSubtasks, ReportStatus
from goatherd.security.access import Principal
from tests.api.conftest import House, check_problem
from tests.api.task_house import TaskHouse


@pytest.fixture
def tasks(house: House) -> TaskHouse:
    return house.tasks


def path_of(task: str, held: dict[str, Any]) -> str:
    return f"/task/{task}/subtask/{held['subtask']}"


async def test_one_is_added_and_read(tasks: TaskHouse) -> None:
    task = await tasks.create()
    answer = await tasks.http.post(f"/task/{task}/subtask", json={"title": "Goat", "input": {"n": 7}})
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["location"] == f"/task/{task}/subtask/{made['id']}"
    read = await tasks.http.get(answer.headers["location"])
    assert (read.json(), read.headers["etag"]) == (made, answer.headers["etag"])
    assert (made["status"], made["input"], made["priority"], made["leases"]) == ("pending", {"n": 7}, 3, [])


async def test_several_are_added_together(tasks: TaskHouse) -> None:
    task = await tasks.create({})
    first = (await tasks.get(f"/task/{task}/subtask"))["first_id"]
    listed = await tasks.add(
        task, [{"key": "a", "input": 1}, {"key": "b", "depends_on": ["a", first]}, {"depends_on": ["b"]}]
    )
    assert [one["status"] for one in listed["data"]] == ["pending", "blocked", "blocked"]
    assert [one["number"] for one in listed["data"]] == [2, 3, 4]
    last = await tasks.get(f"/task/{task}/subtask/{listed['last_id']}")
    assert last["depends_on"] == [listed["data"][1]["id"]]


async def test_large_ones_go_by_way_of_the_store(tasks: TaskHouse) -> None:
    task = await tasks.create({})
    bodies: list[dict[str, Any]] = [{"input": "x" * 100, "key": f"k{n}"} for n in range(300)]
    bodies[200] |= {"depends_on": ["k7"], "priority": 1, "requires": ["gpu"]}
    listed = await tasks.add(task, bodies)
    (order,) = (one for one in tasks.actors.asked if isinstance(one, AddSubtasks))
    assert (order.subtasks, order.count, len(order.places)) == ([], 300, 201)
    one = await tasks.get(f"/task/{task}/subtask/{listed['data'][200]['id']}")
    assert (one["status"], one["priority"], one["input"]) == ("blocked", 1, "x" * 100)
    assert one["depends_on"] == [listed["data"][7]["id"]]
    made = await tasks.create(*bodies)
    assert (await tasks.get(f"/task/{made}"))["counts"]["blocked"] == 1
    assert len(await tasks.take(made, max=100)) == 100


async def test_a_dependency_that_is_not_there_is_refused_with_all(tasks: TaskHouse) -> None:
    task, other = await tasks.create({}), await tasks.create({})
    theirs = (await tasks.get(f"/task/{other}/subtask"))["first_id"]
    for name in (theirs, "nobody"):
        answer = await tasks.http.post(f"/task/{task}/subtask", json=[{}, {"depends_on": [name]}])
        problem = check_problem(answer, 422, "invalid")
        assert problem["errors"][0]["pointer"] == "/1/depends_on/0"
    assert (await tasks.get(f"/task/{task}"))["counts"]["pending"] == 1
    check_problem(await tasks.http.post(f"/task/{task}/subtask", json=[]), 422, "invalid")


async def test_a_key_adds_once(tasks: TaskHouse) -> None:
    task = await tasks.create()
    path, headers = f"/task/{task}/subtask", {"idempotency-key": "k"}
    first = await tasks.http.post(path, json=[{}, {}], headers=headers)
    assert (await tasks.http.post(path, json=[{}, {}], headers=headers)).content == first.content
    assert (await tasks.get(f"/task/{task}"))["counts"]["pending"] == 2
    check_problem(await tasks.http.post(path, json=[{}], headers=headers), 422, "idempotency-key-reused")


async def test_work_is_taken_by_priority_then_age(tasks: TaskHouse) -> None:
    task = await tasks.create({"title": "c", "priority": 5}, {"title": "b"}, {"title": "a", "priority": 1})
    held = await tasks.take(task, max=2) + await tasks.take(task)
    assert [one["title"] for one in held] == ["a", "b", "c"]
    assert held[0].keys() == {
        "id", "subtask", "lease_token", "fence", "expires_at", "attempt", "title", "input", "labels",
        "checkpoint",
    }  # fmt: skip
    assert await tasks.take(task) == []


async def test_only_who_can_is_given_it(tasks: TaskHouse) -> None:
    task = await tasks.create({"requires": ["gpu", "lang:de"]})
    assert await tasks.take(task, capabilities=["gpu"]) == []
    assert len(await tasks.take(task, capabilities=["lang:de", "gpu", "x"])) == 1


async def test_inputs_come_from_the_store_if_another_process_made_them(tasks: TaskHouse) -> None:
    task = await tasks.create({"input": {"a": [1]}, "labels": ["l"]})
    await tasks.parts.actors.writer.settled(task)
    tasks.parts.work._inputs._kept.clear()
    (held,) = await tasks.take(task)
    assert (held["input"], held["labels"]) == ({"a": [1]}, ["l"])


async def test_what_is_not_in_the_store_yet_is_awaited(
    tasks: TaskHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await tasks.create({"input": 1})
    tasks.parts.work._inputs._kept.clear()
    infos, asked = tasks.store.infos, 0

    async def late(ids: Any) -> Any:
        nonlocal asked
        asked += 1
        return await infos(ids) if asked == 3 else {}

    monkeypatch.setattr(tasks.store, "infos", late)
    assert (await tasks.take(task))[0]["input"] == 1


async def test_the_same_key_gives_the_same_leases(tasks: TaskHouse) -> None:
    task = await tasks.create({}, {}, {})
    path, headers = f"/task/{task}/subtask/__take", {"idempotency-key": "k"}
    first = await tasks.http.post(path, json={"worker": "w", "max": 2}, headers=headers)
    assert (await tasks.http.post(path, json={"worker": "w", "max": 2}, headers=headers)).content == (
        first.content
    )
    taken = await tasks.parts.work.take(
        Principal("local"),
        task,
        TakeBody(worker="w", max=2),
        take_id=tasks.actors.asked[-1].id,
        gone=asyncio.Event().wait,  # type: ignore[arg-type]
    )
    assert taken.partition(b',"task"')[0] == first.content.partition(b',"task"')[0]


async def test_a_report_again_is_answered_the_same(tasks: TaskHouse) -> None:
    task = await tasks.create({})
    (held,) = await tasks.take(task)
    answers = [await tasks.put(task, held, status="completed", result={"b": 1, "a": [2]}) for _ in range(2)]
    answers.append(await tasks.put(task, held, status="completed", result={"a": [2], "b": 1}))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json() == {
        "object": "subtask.report",
        "subtask": held["subtask"],
        "task": task,
        "status": "completed",
        "assignment": held["id"],
        "attempt": 1,
        "outcome": "completed",
    }
    other = await tasks.put(task, held, status="completed", result={"b": 2})
    check_problem(other, 409, "invalid-transition")
    assert other.headers["x-should-retry"] == "false"
    read = await tasks.get(path_of(task, held))
    assert (read["status"], read["result"], read["leases"][0]["outcome"]) == (
        "completed",
        {"a": [2], "b": 1},
        "completed",
    )
    assert (await tasks.get(f"/task/{task}"))["status"] == "completed"


async def test_a_large_result_goes_to_the_store_first(tasks: TaskHouse) -> None:
    task = await tasks.create({}, {})
    held, other = await tasks.take(task, max=2)
    big = {"text": "x" * 5_000}
    answers = [await tasks.put(task, held, status="completed", result=big) for _ in range(2)]
    assert answers[0].content == answers[1].content
    order = tasks.actors.asked[-1]
    assert isinstance(order, ReportStatus)
    assert (order.stored, order.result) == (True, None)
    assert (await tasks.get(path_of(task, held)))["result"] == big
    # By the wrong token nothing is kept, and nothing spoilt.
    crossed = {"subtask": other["subtask"], "lease_token": held["lease_token"]}
    assert (await tasks.put(task, crossed, status="completed", result=big)).status_code == 409
    forged = {"subtask": other["subtask"], "lease_token": other["lease_token"][:-1] + "!"}
    check_problem(await tasks.put(task, forged, status="completed", result=1), 409, "lease-lost")
    await tasks.done(task, other, {"text": "y" * 5_000})
    assert (await tasks.get(path_of(task, other)))["result"] == {"text": "y" * 5_000}


async def test_a_failure_is_retried_and_then_dead(tasks: TaskHouse) -> None:
    task = await tasks.create({}, max_attempts=2, backoff={"initial_s": 0})
    for attempt, status in ((1, "pending"), (2, "dead")):
        (held,) = await tasks.take(task)
        assert held["attempt"] == attempt
        error = {"code": "broken", "message": "It is broken.", "details": {"at": attempt}}
        answer = await tasks.put(task, held, status="failed", error=error, checkpoint={"n": attempt})
        assert answer.json()["status"] == status
    read = await tasks.get(path_of(task, held))
    assert (read["status"], read["error"]["details"], read["attempts"]) == ("dead", {"at": 2}, 2)
    assert [one["outcome"] for one in read["leases"]] == ["failed", "failed"]
    assert held["checkpoint"] == {"n": 1}


async def test_giving_back_costs_nothing(tasks: TaskHouse) -> None:
    task = await tasks.create({})
    (held,) = await tasks.take(task)
    path = f"{path_of(task, held)}/release"
    answers = [await tasks.http.post(path, json={"lease_token": held["lease_token"]}) for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert answers[0].json()["status"] == "pending"
    (again,) = await tasks.take(task)
    assert again["attempt"] == 1
    check_problem(await tasks.put(task, held, status="completed"), 409, "invalid-transition")


async def test_a_heartbeat_extends_and_keeps_a_checkpoint(tasks: TaskHouse) -> None:
    task = await tasks.create({}, lease_s=10)
    (held,) = await tasks.take(task)
    body = {
        "lease_token": held["lease_token"],
        "extend_s": 100,
        "progress": 0.5,
        "checkpoint": {"page": 3},
    }
    answer = await tasks.http.post(f"{path_of(task, held)}/heartbeat", json=body)
    assert answer.status_code == 200
    assert answer.json()["expires_at"] > held["expires_at"]
    assert (answer.json()["cancel_requested"], answer.json()["paused"]) == (False, False)
    assert (await tasks.get(path_of(task, held)))["progress"] == 0.5
    await tasks.put(task, held, status="pending")
    assert (await tasks.take(task))[0]["checkpoint"] == {"page": 3}
    large = await tasks.http.post(
        f"{path_of(task, held)}/heartbeat", json=body | {"checkpoint": "x" * 70_000}
    )
    assert check_problem(large, 422, "invalid")["errors"][0]["pointer"] == "/checkpoint"


async def test_the_owner_cancels_and_requeues_without_a_token(tasks: TaskHouse) -> None:
    task = await tasks.create({}, {"depends_on": []})
    first = (await tasks.get(f"/task/{task}/subtask"))["first_id"]
    path = f"/task/{task}/subtask/{first}/status"
    assert (await tasks.http.put(path, json={"status": "cancelled"})).json()["status"] == "cancelled"
    assert (await tasks.http.put(path, json={"status": "pending"})).json()["status"] == "pending"
    check_problem(await tasks.http.put(path, json={"status": "completed"}), 422, "invalid")


async def test_others_answers_are_hidden_until_the_end(tasks: TaskHouse) -> None:
    task = await tasks.create({}, overlap=3, consensus="majority")
    held = {worker: (await tasks.take(task, worker))[0] for worker in ("a", "b", "c")}
    assert await tasks.take(task, "a") == []
    await tasks.done(task, held["a"], "cat")
    await tasks.done(task, held["b"], "goat")
    path = path_of(task, held["a"])
    open_ = await tasks.get(path)
    assert (open_["status"], open_["result"], open_["answers"]) == ("leased", None, None)
    assert "goat" not in (await tasks.http.get(f"/task/{task}/subtask")).text
    await tasks.done(task, held["c"], "goat")
    closed = await tasks.get(path)
    assert (closed["status"], closed["result"]) == ("completed", "goat")
    assert closed["verdict"] | {"agreed": True, "votes": 2, "answers": 3} == closed["verdict"]
    assert {one["worker"]: one["result"] for one in closed["answers"]} == {
        "a": "cat",
        "b": "goat",
        "c": "goat",
    }


async def test_info_is_changed_by_who_has_read_it(tasks: TaskHouse) -> None:
    task = await tasks.create({"input": 1, "labels": ["a"]})
    path = f"/task/{task}/subtask/{(await tasks.get(f'/task/{task}/subtask'))['first_id']}"
    check_problem(await tasks.http.put(path, json={"input": 2}), 428, "precondition-required")
    tag = (await tasks.http.get(path)).headers["etag"]
    answer = await tasks.http.put(
        path, json={"input": None, "priority": 1, "requires": ["gpu"]}, headers={"if-match": tag}
    )
    assert answer.status_code == 200, answer.text
    read = await tasks.http.get(path)
    assert (read.content, read.headers["etag"]) == (answer.content, answer.headers["etag"])
    assert [read.json()[name] for name in ("input", "labels", "priority", "requires")] == [
        None, ["a"], 1, ["gpu"],
    ]  # fmt: skip
    stale = await tasks.http.put(path, json={"input": 3}, headers={"if-match": tag})
    check_problem(stale, 412, "precondition-failed")
    whatever = await tasks.http.put(path, json={"title": "T", "requires": []}, headers={"if-match": "*"})
    assert (whatever.status_code, whatever.json()["title"]) == (200, "T")
    (held,) = await tasks.take(task)
    assert (held["title"], held["input"]) == ("T", None)


async def test_two_who_change_at_once_don_t_undo_each_other(tasks: TaskHouse) -> None:
    task = await tasks.create({"input": 1})
    path = f"/task/{task}/subtask/{(await tasks.get(f'/task/{task}/subtask'))['first_id']}"
    headers = {"if-match": (await tasks.http.get(path)).headers["etag"]}
    answers = await asyncio.gather(
        *(tasks.http.put(path, json={"input": n}, headers=headers) for n in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412]


async def test_subtasks_are_listed_by_number_status_and_assignee(tasks: TaskHouse) -> None:
    task = await tasks.create(*[{"title": str(n)} for n in range(5)])
    (held,) = await tasks.take(task, "anna")
    path = f"/task/{task}/subtask"
    page = await tasks.get(f"{path}?limit=2")
    assert [one["number"] for one in page["data"]] == [1, 2]
    assert (page["has_more"], page["first_id"]) == (True, held["subtask"])
    assert [one["number"] for one in (await tasks.get(f"{path}?after={page['last_id']}"))["data"]] == [
        3,
        4,
        5,
    ]
    assert [
        one["number"] for one in (await tasks.get(f"{path}?before={page['last_id']}&order=asc"))["data"]
    ] == [1]
    assert [one["number"] for one in (await tasks.get(f"{path}?order=desc&limit=1"))["data"]] == [5]
    assert [one["id"] for one in (await tasks.get(f"{path}?assignee=anna"))["data"]] == [held["subtask"]]
    assert len((await tasks.get(f"{path}?status=pending"))["data"]) == 4
    check_problem(await tasks.http.get(f"{path}?after=sub_{'0' * 26}"), 400, "malformed-cursor")
    check_problem(await tasks.http.get(f"{path}?status=nonsense"), 422, "invalid-parameter")


async def test_what_was_written_is_told_to_the_actor(tasks: TaskHouse) -> None:
    task = await tasks.create({}, {})
    await tasks.take(task)
    await tasks.parts.actors.writer.settled(task)
    await tasks.take(task)
    assert [(one.flusher, one.acks) for one in tasks.actors.asked] == [(True, []), (True, [(1, 3)])]
