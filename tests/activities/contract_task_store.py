"""What every `TaskStore` does. The fixture `tasks` says which ones are asked."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from activities.ports import Page
from activities.task_ports import Subtask, TaskChange, TaskNews, TaskStore, WorkerStats
from goatherd.contracts.ids import make_id, new_id, subtask_id
from goatherd.contracts.task import (
    Answer,
    Counts,
    Failure,
    SubtaskSpec,
    SubtaskStatus,
    TaskEvent,
    TaskEventType,
    TaskStatus,
)
from tests.activities.task_events import BEGAN, TaskScript, make_task

EVERYTHING = Page(limit=1_000)


async def numbers(store: TaskStore, task: str, page: Page, **which: str) -> list[int]:
    return [one.state.number for one in await store.subtasks(task, page, **which)]


async def check(store: TaskStore, script: TaskScript) -> None:
    """The store has what the script has."""
    stored = await store.subtasks(script.task, EVERYTHING)
    assert {one.info.id: one.state for one in stored} == script.states
    assert {one.info.id: one.info for one in stored} == script.infos
    assert await store.events(script.task, after=0, limit=1_000) == script.events
    assert await store.last_seq(script.task) == script.seq


class TaskStoreContract:
    async def test_prepare_and_ping_may_be_called_again(self, tasks: TaskStore) -> None:
        await tasks.prepare()
        await tasks.ping()

    # -- tasks

    async def test_task_is_read_as_it_was_put(self, tasks: TaskStore) -> None:
        task = make_task(
            title="a", labels=["x", "y/z"], input={"a.b": [1, {"$c": None}], "long": 1 << 70}, priority=1,
            callback={"url": "https://example.org/hook"}, deadline=BEGAN + timedelta(days=1),
        )  # fmt: skip
        await tasks.put_task(task)
        assert await tasks.task(task.id) == task
        assert await tasks.task(new_id("task")) is None

    async def test_put_again_changes_nothing(self, tasks: TaskStore) -> None:
        task = make_task(title="first")
        script = TaskScript(task.id)
        await tasks.put_task(task)
        script.status = TaskStatus.IN_PROGRESS
        script.create()
        await tasks.apply([script.change()])
        await tasks.put_task(make_task(id=task.id, title="second"))
        assert await tasks.task(task.id) == task.model_copy(
            update={
                "status": TaskStatus.IN_PROGRESS,
                "version": 1,
                "counts": Counts(pending=1),
                "updated_at": script.events[-1].ts,
            }
        )

    async def test_task_put_after_its_events_stands_as_they_say(self, tasks: TaskStore) -> None:
        task = make_task()
        script = TaskScript(task.id)
        script.create()
        await tasks.apply([script.change()])
        assert await tasks.task(task.id) is None
        assert await tasks.tasks("ann", EVERYTHING) == []
        await tasks.put_task(task)
        stored = await tasks.task(task.id)
        assert stored is not None
        assert (stored.version, stored.counts.pending, stored.updated_at) == (1, 1, script.events[0].ts)

    async def test_tasks_are_listed_by_owner_status_and_label(self, tasks: TaskStore) -> None:
        millis = int(BEGAN.timestamp() * 1000)
        made = [
            make_task(
                id=make_id("task", millis=millis - 60_000 * n, entropy=n),
                labels=["even"] if n % 2 == 0 else [],
            )
            for n in range(5)
        ]
        other = make_task(owner="bob")
        for task in [*made, other]:
            await tasks.put_task(task)
        script = TaskScript(made[2].id)
        script.status = TaskStatus.PAUSED
        script.tell(TaskEventType.TASK_PAUSED)
        await tasks.apply([script.change()])

        newest = Page(limit=3, descending=True)
        assert [one.id for one in await tasks.tasks("ann", newest)] == [one.id for one in made[:3]]
        rest = Page(limit=3, descending=True, after=made[2].id)
        assert [one.id for one in await tasks.tasks("ann", rest)] == [one.id for one in made[3:]]
        even = await tasks.tasks("ann", EVERYTHING, label="even")
        assert [one.id for one in even] == [made[4].id, made[2].id, made[0].id]
        assert [one.id for one in await tasks.tasks("ann", EVERYTHING, status="paused")] == [made[2].id]
        assert [one.id for one in await tasks.tasks("bob", EVERYTHING)] == [other.id]

    async def test_open_tasks_are_told_apart(self, tasks: TaskStore) -> None:
        open_one, closed = make_task(), make_task()
        for task in (open_one, closed):
            await tasks.put_task(task)
        await tasks.close_task(closed.id, "cancelled", "terminated", BEGAN)
        ids = [closed.id, new_id("task"), open_one.id]
        assert await tasks.open_tasks(ids) == [open_one.id]

    async def test_secret_is_kept_apart(self, tasks: TaskStore) -> None:
        task = make_task()
        await tasks.put_secret(task.id, "one")
        await tasks.put_secret(task.id, "two")
        assert await tasks.secret(task.id) == "one"
        assert await tasks.secret(new_id("task")) is None

    # -- subtasks

    async def test_subtasks_of_an_event_are_read_as_they_were_made(self, tasks: TaskStore) -> None:
        script = TaskScript()
        script.create(
            SubtaskSpec(title="a", key="a", input={"x": [1, None]}, labels=["l"], priority=1),
            SubtaskSpec(key="b", depends_on=["a"], requires=["gpu"]),
            blocked=[1],
        )
        await tasks.apply([script.change()])
        await check(tasks, script)
        first, second = await tasks.subtasks(script.task, EVERYTHING)
        assert await tasks.subtask(script.task, first.info.id) == first
        assert (first.state.priority, second.state.status) == (1, SubtaskStatus.BLOCKED)
        assert second.info.depends_on == [first.info.id]
        assert await tasks.subtask(new_id("task"), first.info.id) is None
        assert await tasks.subtask(script.task, subtask_id(script.task, 3)) is None

    async def test_subtasks_of_a_batch_are_read_as_they_were_made(self, tasks: TaskStore) -> None:
        script = TaskScript()
        batch = new_id("batch")
        earlier = script.create()
        script.create(
            SubtaskSpec(key="a", input="x" * 10, priority=2),
            SubtaskSpec(key="b", depends_on=["a", *earlier]),
            SubtaskSpec(depends_on=earlier),
            batch=batch,
            blocked=[1],
        )
        await tasks.put_batch(batch, script.task, script.batches[batch])
        await tasks.put_batch(batch, script.task, [])
        await tasks.apply([script.change()])
        await check(tasks, script)
        await tasks.apply([script.change()])
        await check(tasks, script)

    async def test_batch_of_ten_thousand(self, tasks: TaskStore) -> None:
        script = TaskScript()
        batch = new_id("batch")
        specs = [SubtaskSpec(input="x" * 500) for _ in range(10_000)]
        script.create(*specs, batch=batch)
        await tasks.put_batch(batch, script.task, specs)
        await tasks.apply([script.change()])
        assert await numbers(tasks, script.task, Page(limit=2, after=9_998)) == [9_999, 10_000]
        assert await numbers(tasks, script.task, Page(limit=2, descending=True)) == [10_000, 9_999]
        assert await numbers(tasks, script.task, Page(limit=2), status="leased") == []

    async def test_batch_that_was_put_and_deleted_is_not_needed(self, tasks: TaskStore) -> None:
        script = TaskScript()
        batch = new_id("batch")
        script.create(SubtaskSpec(title="t"), batch=batch)
        await tasks.put_batch(batch, script.task, script.batches[batch])
        [(id, info)] = script.infos.items()
        await tasks.put_subtasks([Subtask(info, script.states[id])])
        await tasks.delete_batch(batch)
        await tasks.apply([script.change()])
        await check(tasks, script)

    async def test_state_that_comes_before_its_subtask_is_not_lost(self, tasks: TaskStore) -> None:
        script = TaskScript()
        [one, other] = script.create(SubtaskSpec(), SubtaskSpec())
        script.lease(one)
        script.update(other, title="new", priority=1)
        await tasks.apply([script.since(1)])
        assert await tasks.subtask(script.task, one) is None
        assert await numbers(tasks, script.task, EVERYTHING) == []
        assert await tasks.infos([one]) == {}
        await tasks.apply([script.change(1)])
        await check(tasks, script)

    async def test_put_subtasks_does_not_undo_what_is_known(self, tasks: TaskStore) -> None:
        script = TaskScript()
        ids = script.create(SubtaskSpec(), SubtaskSpec())
        begun = [Subtask(script.infos[id], script.states[id]) for id in ids]
        script.lease(ids[0])
        script.update(ids[0], title="t")
        await tasks.apply([script.since(1)])
        await tasks.put_subtasks(begun)
        await tasks.put_subtasks(begun)
        await tasks.apply([script.change(1)])
        await check(tasks, script)

    async def test_fields_are_changed_one_by_one(self, tasks: TaskStore) -> None:
        script = TaskScript()
        [one] = script.create(SubtaskSpec(title="a"))
        script.update(one, title="b")
        script.update(one, labels=["l"], input={"n": 1 << 80})
        script.update(one, title="c")
        script.update(one, requires=["gpu"])
        for number in (1, 5, 3, 4, 2):
            await tasks.apply([script.change(number)])
        await check(tasks, script)
        assert await tasks.infos([one, new_id("sub")]) == {one: script.infos[one]}

    async def test_what_waits_is_cancelled_by_one_event_of_the_task(self, tasks: TaskStore) -> None:
        script = TaskScript()
        ids = script.create(*[SubtaskSpec()] * 4, blocked=[3])
        script.lease(ids[0])
        script.lease(ids[1])
        script.report(ids[1])
        script.sweep(reason="deleted")
        script.free(ids[0])
        script.sweep(TaskEventType.TASK_CANCELLED, "deleted at last")
        for number in (6, 7, 1, 5, 2, 4, 3):
            await tasks.apply([script.change(number)])
        await check(tasks, script)
        assert await numbers(tasks, script.task, EVERYTHING, status="cancelled") == [1, 3, 4]
        assert await numbers(tasks, script.task, EVERYTHING, status="pending") == []
        script.free(ids[2], TaskEventType.SUBTASK_REQUEUED)
        await tasks.apply([script.since(7)])
        await check(tasks, script)
        assert await numbers(tasks, script.task, EVERYTHING, status="pending") == [3]

    async def test_subtasks_are_paged_by_number_status_and_assignee(self, tasks: TaskStore) -> None:
        script = TaskScript()
        ids = script.create(*[SubtaskSpec()] * 50)
        for id in ids[::7]:
            script.lease(id, "w1")
        for id in ids[::14]:
            script.report(id)
        script.lease(ids[1], "w2")
        await tasks.put_task(make_task(id=script.task))
        await tasks.apply([script.change()])
        task = script.task
        assert await numbers(tasks, task, Page(limit=3)) == [1, 2, 3]
        assert await numbers(tasks, task, Page(limit=3, after=48)) == [49, 50]
        assert await numbers(tasks, task, Page(limit=3, before=10)) == [7, 8, 9]
        assert await numbers(tasks, task, Page(limit=3, descending=True)) == [50, 49, 48]
        assert await numbers(tasks, task, Page(limit=3, descending=True, after=3)) == [2, 1]
        assert await numbers(tasks, task, Page(limit=3, descending=True, before=40)) == [43, 42, 41]
        assert await numbers(tasks, task, Page(limit=9, after=2, before=5)) == [3, 4]
        done = Page(limit=3)
        assert await numbers(tasks, task, done, status="completed") == [1, 15, 29]
        assert await numbers(tasks, task, Page(limit=3, after=29), status="completed") == [43]
        assert await numbers(tasks, task, Page(limit=9), assignee="w1") == [8, 22, 36, 50]
        assert await numbers(tasks, task, Page(limit=9), assignee="w2", status="leased") == [2]
        assert await numbers(tasks, task, Page(limit=9), assignee="w2", status="completed") == []
        assert await numbers(tasks, new_id("task"), Page(limit=9)) == []

    async def test_subtasks_above_what_the_task_counts_are_listed(self, tasks: TaskStore) -> None:
        """Its document may be behind them."""
        script = TaskScript()
        for _ in range(3):
            script.create(*[SubtaskSpec()] * 4)
        change = script.change()
        await tasks.apply([TaskChange(script.task, change.events, script.summaries[0])])
        assert await numbers(tasks, script.task, Page(limit=12)) == list(range(1, 13))
        assert await numbers(tasks, script.task, Page(limit=12, descending=True)) == list(range(12, 0, -1))
        assert await numbers(tasks, script.task, Page(limit=2, after=9)) == [10, 11]

    # -- answers

    async def test_answers_are_kept_once(self, tasks: TaskStore) -> None:
        script = TaskScript()
        ids = script.create(*[SubtaskSpec()] * 3)
        for n, id in enumerate(ids):
            script.lease(id, f"w{n}")
        assignments = [script.report(id, result={"n": n}) for n, id in enumerate(ids)]
        early = Answer(
            id=assignments[0], task=script.task, subtask=ids[0], worker="w0", result="early", at=BEGAN
        )
        await tasks.put_answers([early])
        await tasks.apply([script.change()])
        await tasks.put_answers([early.model_copy(update={"result": "late"})])
        found = await tasks.answers(script.task, ids[:2])
        assert [(one.id, one.result) for one in found] == [
            (assignments[0], "early"),
            (assignments[1], {"n": 1}),
        ]
        assert found[1].at == script.events[-2].ts
        assert await tasks.answers(new_id("task"), ids) == []

    async def test_stats_are_by_worker(self, tasks: TaskStore) -> None:
        script = TaskScript()
        ids = script.create(*[SubtaskSpec()] * 6, blocked=[5])
        for id, worker in zip(ids[:4], ["a", "a", "b", "b"], strict=True):
            script.lease(id, worker)
        script.report(ids[0])
        script.report(ids[2], SubtaskStatus.FAILED)
        await tasks.apply([script.change()])
        stats = await tasks.stats(script.task)
        assert stats.workers == {"a": WorkerStats(1, 1, 0), "b": WorkerStats(1, 0, 1)}
        assert stats.oldest == {
            "pending": script.events[0].ts, "blocked": script.events[0].ts, "leased": script.events[2].ts,
        }  # fmt: skip
        script.sweep()
        await tasks.apply([script.since(7)])
        assert (await tasks.stats(script.task)).oldest == {"leased": script.events[2].ts}

    # -- events

    async def test_events_come_in_order_and_once_however_they_were_cut(self, tasks: TaskStore) -> None:
        script = TaskScript()
        [one] = script.create()
        for n in range(700):
            script.update(one, title=str(n))
        every = range(1, script.seq + 1)
        for cut in (every[::3], every[1::3], every[2::3], every[:300], every[200:]):
            await tasks.apply([script.change(*cut)])
        found: list[TaskEvent] = []
        while more := await tasks.events(script.task, after=len(found), limit=90):
            found += more
        assert found == script.events
        assert await tasks.last_seq(script.task) == script.seq
        assert await tasks.last_seq(new_id("task")) == 0

    async def test_events_beyond_a_gap_are_given_too(self, tasks: TaskStore) -> None:
        script = TaskScript()
        script.create()
        for _ in range(900):
            script.tell(TaskEventType.TASK_PAUSED)
        await tasks.apply([script.change(1, 2), script.change(4), script.change(900)])
        found = await tasks.events(script.task, after=1, limit=10)
        assert [event.seq for event in found] == [2, 4, 900]
        assert [event.seq for event in await tasks.events(script.task, after=2, limit=1)] == [4]
        await tasks.apply([script.change(600, 850), script.change(601)])
        assert await tasks.last_seq(script.task) == 900

    async def test_events_of_several_tasks_come_together(self, tasks: TaskStore) -> None:
        scripts = [TaskScript() for _ in range(5)]
        for script in scripts:
            [one] = script.create()
            script.lease(one)
        await tasks.apply([script.change() for script in scripts])
        await tasks.apply([change for script in scripts for change in (script.change(2), script.change(1))])
        for script in scripts:
            await check(tasks, script)

    async def test_watch_shows_what_is_written(self, tasks: TaskStore) -> None:
        script = TaskScript()
        [one] = script.create()
        script.lease(one)
        async with tasks.watch() as feed, asyncio.timeout(10):
            await tasks.apply([script.change()])
            assert await anext(feed) == TaskNews(script.task, script.events)
            # Whoever sees an event finds the documents at least as new.
            assert (await tasks.subtasks(script.task, EVERYTHING))[0].state == script.states[one]

    # -- closed from outside

    async def test_closing_cancels_what_is_unfinished(self, tasks: TaskStore) -> None:
        task = make_task()
        script = TaskScript(task.id)
        ids = script.create(*[SubtaskSpec()] * 4, blocked=[3])
        lease = script.lease(ids[0])
        script.lease(ids[1])
        script.report(ids[1])
        await tasks.put_task(task)
        await tasks.apply([script.change()])
        at = BEGAN + timedelta(minutes=1)
        await asyncio.gather(*(tasks.close_task(task.id, "cancelled", "terminated", at) for _ in range(3)))
        await tasks.close_task(task.id, "cancelled", "again", at + timedelta(minutes=1))

        stored = await tasks.task(task.id)
        assert stored is not None
        assert (stored.status, stored.reason, stored.closed_at) == (TaskStatus.CANCELLED, "terminated", at)
        assert stored.counts == Counts(completed=1, cancelled=3)
        left = await tasks.subtasks(task.id, EVERYTHING, status="cancelled")
        assert [one.info.id for one in left] == [ids[0], ids[2], ids[3]]
        assert {one.state.reason for one in left} == {"terminated"}
        [record] = left[0].state.leases
        assert (record.id, record.outcome, record.ended_at) == (lease, "cancelled", at)
        assert await numbers(tasks, task.id, EVERYTHING, status="leased") == []
        assert await numbers(tasks, task.id, EVERYTHING, assignee="w") == []
        assert (await tasks.stats(task.id)).oldest == {}
        events = await tasks.events(task.id, after=script.seq, limit=10)
        kinds = [TaskEventType.TASK_CANCELLED, TaskEventType.TASK_CLOSED]
        assert [(one.type, one.seq, one.data) for one in events] == [
            (kind, script.seq + 1 + place, {"reason": "terminated"}) for place, kind in enumerate(kinds)
        ]
        assert stored.version == events[-1].seq

    async def test_what_is_late_does_not_reopen_what_is_closed(self, tasks: TaskStore) -> None:
        task = make_task()
        script = TaskScript(task.id)
        ids = script.create(*[SubtaskSpec()] * 2)
        await tasks.put_task(task)
        await tasks.apply([script.change()])
        await tasks.close_task(task.id, "cancelled", "terminated", BEGAN)
        closed = await tasks.task(task.id)
        events = await tasks.events(task.id, after=0, limit=10)
        script.lease(ids[0])
        script.lease(ids[1])
        script.report(ids[1])
        await tasks.apply([script.since(1)])
        assert await tasks.task(task.id) == closed
        assert await tasks.events(task.id, after=0, limit=10) == events
        assert await tasks.last_seq(task.id) == events[-1].seq
        states = [one.state.status for one in await tasks.subtasks(task.id, EVERYTHING)]
        assert states == [SubtaskStatus.CANCELLED, SubtaskStatus.COMPLETED]

    async def test_closing_what_is_done_keeps_how_it_ended(self, tasks: TaskStore) -> None:
        task = make_task()
        script = TaskScript(task.id)
        [one] = script.create()
        script.lease(one)
        script.status = TaskStatus.COMPLETED
        script.report(one)
        await tasks.put_task(task)
        await tasks.apply([script.change()])
        await tasks.close_task(task.id, "cancelled", "terminated", BEGAN)
        stored = await tasks.task(task.id)
        assert stored is not None
        assert (stored.status, stored.reason) == (TaskStatus.COMPLETED, "terminated")
        assert [event.type for event in await tasks.events(task.id, after=3, limit=9)] == [
            TaskEventType.TASK_CLOSED
        ]

    async def test_closing_what_is_not_there_does_nothing(self, tasks: TaskStore) -> None:
        missing = new_id("task")
        await tasks.close_task(missing, "cancelled", "lost", BEGAN)
        assert await tasks.task(missing) is None
        assert await tasks.last_seq(missing) == 0

    async def test_failure_with_any_details_is_kept(self, tasks: TaskStore) -> None:
        script = TaskScript()
        [one] = script.create()
        error = Failure(code="e", message="m", details={"$a.b": 1 << 70, "": [None]})
        script.move(one, TaskEventType.SUBTASK_DEAD, SubtaskStatus.DEAD, error=error)
        await tasks.apply([script.change()])
        await check(tasks, script)
