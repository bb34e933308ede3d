from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities.reconcile import Ended
from goatherd.actors import ActorStopped
from tests.api.conftest import House, check_problem
from tests.api.task_house import TaskHouse


@pytest.fixture
def tasks(house: House) -> TaskHouse:
    return house.tasks


async def test_a_task_is_made_and_read(tasks: TaskHouse) -> None:
    body = {"title": "Goats", "labels": ["a"], "subtasks": [{"key": "x", "input": 1}, {"depends_on": ["x"]}]}
    answer = await tasks.http.post("/task", json=body)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["location"] == f"/task/{made['id']}"
    assert made["counts"] | {"blocked": 1, "pending": 1} == made["counts"]
    read = await tasks.http.get(f"/task/{made['id']}")
    assert read.json() == made
    assert read.headers["etag"] == answer.headers["etag"]
    assert (made["status"], made["progress"]) == ("pending", {"done": 0, "total": 2, "fraction": 0.0})
    again = await tasks.http.get(f"/task/{made['id']}", headers={"if-none-match": read.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_its_first_events_are_those_that_the_actor_has(tasks: TaskHouse) -> None:
    task = await tasks.create({"key": "x", "input": 1, "priority": 1}, {"depends_on": ["x"]}, priority=2)
    written = await tasks.store.events(task, after=0, limit=10)
    cell = tasks.actors.system.runtime.cell(tasks.actors.refs[task])  # type: ignore[union-attr]
    actors, complete = cell.behavior.log.since(0)  # type: ignore[union-attr]
    assert complete
    assert [one.model_dump_json() for one in written] == [one.model_dump_json() for one in actors]


async def test_the_same_key_makes_one_task(tasks: TaskHouse) -> None:
    headers = {"idempotency-key": "k"}
    answers = [await tasks.http.post("/task", json={"title": "a"}, headers=headers) for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert answers[1].headers["idempotency-replayed"] == "true"


async def test_tasks_are_listed_newest_first_and_by_status_and_label(tasks: TaskHouse) -> None:
    old = await tasks.create({}, labels=["a"])
    new = await tasks.create({}, labels=["b"])
    await tasks.take(old)
    await tasks.parts.actors.writer.settled(old)
    assert [one["id"] for one in (await tasks.get("/task"))["data"]] == [new, old]
    assert [one["id"] for one in (await tasks.get("/task?status=in_progress"))["data"]] == [old]
    assert [one["id"] for one in (await tasks.get("/task?label=b"))["data"]] == [new]
    page = await tasks.get("/task?limit=1")
    assert (page["has_more"], page["last_id"]) == (True, new)
    assert [one["id"] for one in (await tasks.get(f"/task?after={new}"))["data"]] == [old]
    check_problem(await tasks.http.get("/task?after=nonsense"), 400, "malformed-cursor")
    check_problem(await tasks.http.get("/task?statu=x"), 422, "unknown-parameter")
    check_problem(await tasks.http.get(f"/task/{old}?x=1"), 422, "unknown-parameter")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"priority": 6}, "/priority"),
        ({"lease_s": 0}, "/lease_s"),
        ({"overlap": 0}, "/overlap"),
        ({"deadline": "2020-01-01T00:00:00Z"}, "/deadline"),
        ({"deadline": "2040-01-01T00:00:00"}, "/deadline"),
        ({"callback": {"url": "no"}}, "/callback/url"),
        ({"callback": {"url": "http://x.y", "secret": "no"}}, "/callback/secret"),
        ({"callback": {"url": "http://localhost:9/x"}}, "/callback/url"),
        ({"callback": {"url": "http://127.0.0.1"}}, "/callback/url"),
        ({"callback": {"url": "https://[::ffff:10.0.0.1]/"}}, "/callback/url"),
        ({"subtasks": [{"depends_on": ["nobody"]}]}, "/subtasks/0/depends_on/0"),
        ({"subtasks": [{"key": "a"}, {"key": "a"}]}, "/subtasks/1/key"),
        ({"subtasks": [{"input": 1}, {"inputs": 1}]}, "/subtasks/1/inputs"),
        ({"input": 2**80}, "/input"),
        ({"nonsense": 1}, "/nonsense"),
    ],
)
async def test_what_makes_no_task_says_where(tasks: TaskHouse, body: Any, pointer: str) -> None:
    answer = await tasks.http.post("/task", json=body)
    assert check_problem(answer, 422, "invalid")["errors"][0]["pointer"] == pointer


async def test_a_cycle_is_refused(tasks: TaskHouse) -> None:
    cycle = [{"key": "a", "depends_on": ["b"]}, {"key": "b", "depends_on": ["a"]}]
    problem = check_problem(await tasks.http.post("/task", json={"subtasks": cycle}), 422, "dependency-cycle")
    assert problem["errors"][0]["pointer"].startswith("/subtasks/")
    task = await tasks.create()
    check_problem(await tasks.http.post(f"/task/{task}/subtask", json=cycle), 422, "dependency-cycle")
    own = await tasks.http.post(f"/task/{task}/subtask", json=[{"key": "a", "depends_on": ["a"]}])
    check_problem(own, 422, "dependency-cycle")


async def test_a_callbacks_secret_is_shown_once(tasks: TaskHouse) -> None:
    body = {"callback": {"url": "https://example.org/told"}}
    made = (await tasks.http.post("/task", json=body)).json()
    assert made["callback"]["secret"] == await tasks.store.secret(made["id"])
    assert made["callback"]["secret"].startswith("whsec_")
    assert (await tasks.get(f"/task/{made['id']}"))["callback"] == body["callback"]
    given = {"url": "https://example.org/told", "secret": "whsec_" + "A" * 32}
    own = (await tasks.http.post("/task", json={"callback": given})).json()
    assert own["callback"] == given


async def test_who_is_not_there_is_not_found(tasks: TaskHouse) -> None:
    task = await tasks.create({})
    nobody = task[:-1] + ("0" if task[-1] != "0" else "1")
    for path in (f"/task/{nobody}", "/task/nonsense", f"/task/{nobody}/stats", f"/task/{nobody}/events"):
        check_problem(await tasks.http.get(path), 404, "not-found")
    take = {"worker": "w"}
    check_problem(await tasks.http.post(f"/task/{nobody}/subtask/__take", json=take), 404, "not-found")
    subtask = (await tasks.get(f"/task/{task}/subtask"))["first_id"]
    check_problem(await tasks.http.get(f"/task/{task}/subtask/{subtask[:-1]}9"), 404, "not-found")
    check_problem(await tasks.http.get(f"/task/{nobody}/subtask/{subtask}"), 404, "not-found")


async def test_what_belongs_to_others_is_not_found(tasks: TaskHouse) -> None:
    task = await tasks.create({})
    document = await tasks.store.task(task)
    assert document is not None
    other = document.model_copy(update={"id": task[:-2] + "zz", "owner": "somebody"})
    await tasks.store.put_task(other)
    check_problem(await tasks.http.get(f"/task/{other.id}"), 404, "not-found")
    check_problem(await tasks.http.delete(f"/task/{other.id}"), 404, "not-found")
    assert [one["id"] for one in (await tasks.get("/task"))["data"]] == [task]


async def test_a_task_that_nobody_holds_is_cancelled_at_once(tasks: TaskHouse) -> None:
    task = await tasks.create({}, {})
    for _ in range(2):
        assert (await tasks.http.delete(f"/task/{task}")).status_code == 204
    read = await tasks.get(f"/task/{task}")
    assert (read["status"], read["reason"], read["counts"]["cancelled"]) == ("cancelled", "deleted", 2)
    assert {one["status"] for one in (await tasks.get(f"/task/{task}/subtask"))["data"]} == {"cancelled"}
    problem = check_problem(
        await tasks.http.post(f"/task/{task}/subtask/__take", json={"worker": "w"}), 409, "task-closed"
    )
    assert "cancelled" in problem["detail"]
    closed = await tasks.http.post(f"/task/{task}/subtask", json={})
    check_problem(closed, 409, "task-closed")
    assert closed.headers["x-should-retry"] == "false"


async def test_cancelling_waits_for_who_holds_something(tasks: TaskHouse) -> None:
    task = await tasks.create({}, {})
    (held,) = await tasks.take(task)
    for _ in range(2):
        answer = await tasks.http.delete(f"/task/{task}")
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelling")
    beat = await tasks.http.post(
        f"/task/{task}/subtask/{held['subtask']}/heartbeat", json={"lease_token": held["lease_token"]}
    )
    assert beat.json()["cancel_requested"] is True
    assert (await tasks.http.delete(f"/task/{task}")).status_code == 204


async def test_pausing_gives_nothing_out(tasks: TaskHouse) -> None:
    task = await tasks.create({})
    for _ in range(2):
        answer = await tasks.http.post(f"/task/{task}/__pause")
        assert (answer.status_code, answer.json()["status"]) == (200, "paused")
    assert await tasks.take(task) == []
    answer = await tasks.http.post(f"/task/{task}/__resume", json={})
    assert answer.json()["status"] == "pending"
    assert len(await tasks.take(task)) == 1


async def test_the_dead_are_requeued_all_of_them(tasks: TaskHouse) -> None:
    task = await tasks.create(*[{} for _ in range(250)], max_attempts=1)
    for _ in range(3):
        for held in await tasks.take(task, max=100):
            answer = await tasks.put(task, held, status="failed", error={"code": "x", "message": "y"})
            assert answer.json()["status"] == "dead"
    answer = await tasks.http.post(f"/task/{task}/__requeue", json={"statuses": ["dead"]})
    assert (answer.status_code, answer.json()["requeued"]) == (200, 250)
    assert answer.json()["task"]["counts"]["pending"] == 250


async def test_statistics_name_workers_and_the_oldest(tasks: TaskHouse) -> None:
    task = await tasks.create({}, {}, {})
    (first,) = await tasks.take(task, "anna")
    await tasks.take(task, "bert")
    await tasks.done(task, first)
    stats = await tasks.get(f"/task/{task}/stats")
    assert stats["workers"]["anna"]["completed"] == 1
    assert stats["workers"]["bert"]["leased"] == 1
    assert stats["oldest"].keys() == {"pending", "leased"}
    assert stats["progress"] == {"done": 1, "total": 3, "fraction": 0.333333}


async def test_a_deadline_may_have_any_zone(tasks: TaskHouse) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    task = await tasks.create({}, deadline=at.astimezone().isoformat())
    told = datetime.fromisoformat((await tasks.get(f"/task/{task}"))["deadline"])
    assert abs(told - at) < timedelta(milliseconds=2)


async def test_one_that_was_ended_by_force_is_closed_for_its_readers(
    tasks: TaskHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await tasks.create({})

    async def terminated(*_: object) -> Ended:
        return Ended("terminated")

    monkeypatch.setattr("api.task_actors.how_ended", terminated)
    tasks.actors.fault = ActorStopped("gone")
    take = await tasks.http.post(f"/task/{task}/subtask/__take", json={"worker": "w"})
    check_problem(take, 409, "task-closed")
    read = await tasks.get(f"/task/{task}")
    assert (read["status"], read["reason"]) == ("cancelled", "terminated")
    assert (await tasks.http.delete(f"/task/{task}")).status_code == 204
