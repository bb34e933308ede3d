"""`TaskStore`: the contract on every backend, and what only a real store can show."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.memory_tasks import MemoryTaskStore
from activities.backends.mongo_client import connect
from activities.backends.mongo_tasks import MongoTaskStore
from activities.backends.projection import Document
from activities.ports import Resync
from activities.task_ports import Subtask, TaskStore
from goatherd.contracts.ids import new_id
from goatherd.contracts.task import Answer, SubtaskSpec, SubtaskStatus, TaskEventType
from goatherd.errors import Invalid, Unavailable
from tests.activities.contract_task_store import EVERYTHING, TaskStoreContract, check
from tests.activities.task_events import BEGAN, TaskScript, make_task
from tests.servers import embedded_store


@pytest.fixture
async def mongo_tasks(database: AsyncDatabase[Document]) -> MongoTaskStore:
    store = MongoTaskStore(database)
    await store.prepare()
    return store


@pytest.fixture(params=("memory", "mongo"))
def tasks(request: pytest.FixtureRequest) -> TaskStore:
    return MemoryTaskStore() if request.param == "memory" else request.getfixturevalue("mongo_tasks")


class TestContract(TaskStoreContract):
    pass


# -- any order, any cut, any repetition, by several at once


_ACTS = ("create", "batch", "lease", "report", "free", "update", "sweep", "requeue")


@st.composite
def histories(draw: st.DrawFn) -> tuple[TaskScript, list[list[list[int]]]]:
    """What an actor may do, and for each of several writers the groups in which it writes events of it: each
    event by one of them at least."""
    script = TaskScript()
    for _ in range(draw(st.integers(1, 10))):
        act = draw(st.sampled_from(_ACTS))
        held = [id for id in script.unfinished if script.states[id].assignees]
        free = [id for id in script.unfinished if not script.states[id].assignees]
        if act in ("create", "batch") or not script.infos:
            count = draw(st.integers(1, 3))
            specs = [SubtaskSpec(priority=draw(st.sampled_from([None, 1]))) for _ in range(count)]
            script.create(*specs, batch=new_id("batch") if act == "batch" else None)
        elif act == "lease" and free:
            script.lease(draw(st.sampled_from(free)), draw(st.sampled_from(["a", "b"])))
        elif act == "report" and held:
            kind = draw(st.sampled_from([SubtaskStatus.COMPLETED, SubtaskStatus.FAILED]))
            script.report(draw(st.sampled_from(held)), kind, result=script.seq)
        elif act == "free" and held:
            script.free(draw(st.sampled_from(held)))
        elif act == "update":
            changed = {draw(st.sampled_from(["title", "input"])): str(script.seq)}
            script.update(draw(st.sampled_from(sorted(script.infos))), priority=None, **changed)
        elif act == "sweep":
            script.sweep(draw(st.sampled_from([TaskEventType.TASK_CANCELLING, TaskEventType.TASK_EXPIRED])))
        elif act == "requeue" and script.finished:
            script.free(draw(st.sampled_from(script.finished)), TaskEventType.SUBTASK_REQUEUED)
    every = list(range(1, script.seq + 1))
    writers: list[list[list[int]]] = []
    count = draw(st.integers(1, 3))
    owners = [draw(st.integers(0, count - 1)) for _ in every]
    for writer in range(count):
        mine = [number for number, owner in zip(every, owners, strict=True) if owner == writer]
        mine += draw(st.lists(st.sampled_from(every), max_size=5))
        shuffled = draw(st.permutations(mine))
        cuts = sorted(draw(st.lists(st.integers(0, len(shuffled)), max_size=4)))
        ends = zip([0, *cuts], [*cuts, len(shuffled)], strict=True)
        writers.append([group for start, end in ends if (group := shuffled[start:end])])
    return script, writers


async def check_history(store: TaskStore, script: TaskScript, writers: list[list[list[int]]]) -> None:
    task = make_task(id=script.task)
    for batch, specs in script.batches.items():
        await store.put_batch(batch, script.task, specs)

    async def write(groups: list[list[int]]) -> None:
        for group in groups:
            await store.apply([script.change(*group)])

    await asyncio.gather(*map(write, writers), store.put_task(task))
    await check(store, script)
    stored = await store.task(script.task)
    assert stored is not None
    assert stored == task.model_copy(
        update={
            "version": script.summary.version,
            "counts": script.summary.counts,
            "updated_at": script.events[-1].ts,
        }
    )
    told = [
        Answer.model_validate({**event.data["answer"], "at": event.ts})
        for event in script.events
        if "answer" in event.data
    ]
    assert await store.answers(script.task, list(script.infos)) == sorted(told, key=lambda one: one.id)
    for status in SubtaskStatus:
        expected = [id for id, state in script.states.items() if state.status is status]
        found = await store.subtasks(script.task, EVERYTHING, status=status.value)
        assert [one.info.id for one in found] == expected


@settings(max_examples=200, deadline=None)
@given(history=histories())
async def test_memory_documents_follow_from_events_however_they_come(
    history: tuple[TaskScript, list[list[list[int]]]],
) -> None:
    await check_history(MemoryTaskStore(), *history)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories())
async def test_mongo_documents_follow_from_events_however_they_come(
    mongo_tasks: MongoTaskStore, history: tuple[TaskScript, list[list[list[int]]]]
) -> None:
    await check_history(mongo_tasks, *history)


# -- MongoDB alone


async def test_writers_of_the_same_subtasks_at_once_leave_the_newest(mongo_tasks: MongoTaskStore) -> None:
    script = TaskScript()
    ids = script.create(*[SubtaskSpec()] * 20)
    for id in ids:
        script.lease(id)
        script.update(id, title=id)
        script.report(id)
    changes = [script.change(number) for number in range(script.seq, 0, -1)]
    await asyncio.gather(
        *(mongo_tasks.apply(changes[start : start + 7]) for start in range(0, len(changes), 7)),
        mongo_tasks.put_subtasks([Subtask(script.infos[id], script.states[id]) for id in ids[:5]]),
        mongo_tasks.apply([script.change()]),
    )
    await check(mongo_tasks, script)


async def test_batch_that_is_gone_and_was_never_applied_is_told(
    mongo_tasks: MongoTaskStore, caplog: pytest.LogCaptureFixture
) -> None:
    script = TaskScript()
    script.create(batch=new_id("batch"))
    await mongo_tasks.apply([script.change()])
    assert "is lost" in caplog.text


async def test_text_that_is_no_unicode_is_invalid(mongo_tasks: MongoTaskStore) -> None:
    with pytest.raises(Invalid):
        await mongo_tasks.put_batch(new_id("batch"), new_id("task"), [SubtaskSpec(input="\ud800")])


async def test_closing_that_was_broken_off_is_gone_on_with(
    mongo_tasks: MongoTaskStore, database: AsyncDatabase[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    script = TaskScript(task.id)
    script.create()
    await mongo_tasks.put_task(task)
    await mongo_tasks.apply([script.change()])

    async def dies(self: object, task: str) -> Document:
        raise Unavailable("killed")

    with monkeypatch.context() as patch, suppress(Unavailable):
        patch.setattr("activities.backends.mongo_task_closing.TaskCloser._counts", dies)
        await mongo_tasks.close_task(task.id, "cancelled", "terminated", BEGAN)
    assert await mongo_tasks.open_tasks([task.id]) == [task.id]
    await mongo_tasks.close_task(task.id, "cancelled", "another reason", BEGAN)
    stored = await mongo_tasks.task(task.id)
    assert stored is not None
    assert (stored.reason, stored.counts.cancelled) == ("terminated", 1)
    assert await mongo_tasks.last_seq(task.id) == 3


async def test_kill_loses_nothing_that_was_acknowledged() -> None:
    async with embedded_store() as server:
        database = connect(server.uri, "killed")
        store = MongoTaskStore(database)
        await store.prepare()
        script = TaskScript()
        ids = script.create(*[SubtaskSpec()] * 30)
        await store.put_task(make_task(id=script.task))
        await store.apply([script.change()])
        for id in ids:
            script.lease(id)
            script.report(id)
        acknowledged: list[int] = []
        enough = asyncio.Event()

        async def write(numbers: list[int]) -> None:
            for number in numbers:
                with suppress(Unavailable):
                    await store.apply([script.change(number)])
                    acknowledged.append(number)
                if len(acknowledged) > 20:
                    enough.set()

        every = list(range(2, script.seq + 1))
        writing = [asyncio.create_task(write(every[start::4])) for start in range(4)]
        async with asyncio.timeout(60):
            await enough.wait()
            await server.kill()
            await asyncio.gather(*writing)
        await server.restart()
        there = {event.seq for event in await store.events(script.task, after=0, limit=1_000)}
        assert there >= set(acknowledged)
        await store.apply([script.change()])
        await check(store, script)
        await database.client.close()


async def test_memory_feed_can_be_made_to_resync() -> None:
    store = MemoryTaskStore()
    async with store.watch() as feed:
        store.break_feeds()
        assert isinstance(await anext(feed), Resync)
