"""What a task's actor does with what it is asked, by hand: no server, the clock moved by the test."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import TypeAdapter

from goatherd.actors import CancelRequested
from goatherd.actors.testkit import BehaviorTestKit, Piped
from goatherd.contracts.ids import new_id, subtask_id
from goatherd.contracts.task import TaskEvent
from goatherd.contracts.task_messages import (
    Added,
    AddSubtasks,
    Asked,
    CallbackTold,
    CancelTask,
    FlushTask,
    Heartbeat,
    Leased,
    PauseTask,
    Place,
    ReportStatus,
    RequeueSubtasks,
    ResumeTask,
    StartTask,
    Taken,
    TakeSubtasks,
    TaskFlushed,
    TellCallback,
    UpdateSubtask,
)
from goatherd.errors import (
    Conflict,
    DependencyCycle,
    Invalid,
    InvalidTransition,
    LeaseLost,
    NotFound,
    TaskClosed,
)
from workflows.task_behavior import TaskBehavior
from workflows.task_callback import TRIES
from workflows.task_flush import QUIET_S, TaskFlushing
from workflows.task_items import Items
from workflows.task_log import TaskLog

TASK = new_id("task")
EVENTS = TypeAdapter(list[TaskEvent])


class Bench:
    """A task, and short words for what is done with it."""

    def __init__(self, **start: Any) -> None:
        begun = StartTask.model_validate({"stored": True, "backoff": {"initial_s": 0}, **start})
        behavior = TaskBehavior(
            start=begun, log=TaskLog(TASK), items=Items(), flushing=TaskFlushing(stored=begun.stored)
        )
        self.kit: BehaviorTestKit[Any] = BehaviorTestKit(behavior, name="task")
        self.flushes: list[FlushTask] = []

    @property
    def task(self) -> TaskBehavior:
        return self.kit.expect_behavior(TaskBehavior)

    def ask(self, order: Asked) -> Any:
        self.kit.behavior.check(order)
        request: Any = order.model_copy(update={"flusher": True})
        answer: Any = self.kit.ask(request).answer
        return type(answer).model_validate_json(answer.model_dump_json())  # As it travels.

    def add(self, *subtasks: Any, **more: Any) -> Added:
        answer: Added = self.ask(AddSubtasks.model_validate({"subtasks": subtasks, **more}))
        return answer

    def take(self, worker: str = "ada", **more: Any) -> list[Leased]:
        taken: Taken = self.ask(TakeSubtasks.model_validate({"worker": worker, **more}))
        return taken.assignments

    def report(self, lease: Leased, status: str = "completed", **more: Any) -> Any:
        given = {"subtask": lease.subtask, "lease_token": lease.lease_token, "status": status}
        return self.ask(ReportStatus.model_validate({**given, **more}))

    def late(self, clock: float) -> None:
        """It is this time, and no timer has rung yet."""
        self.kit._bench.environment.clock = clock

    def works(self) -> list[Piped]:
        """The activities that were begun since one last looked."""
        return [effect for effect in self.kit.effects() if isinstance(effect, Piped)]

    def flushed(self) -> FlushTask:
        """What the actor has begun to write; the write ends well."""
        (piped,) = self.works()
        order: FlushTask = piped.awaitable.argument
        piped.succeed(TaskFlushed())
        return order

    def settle(self) -> list[int]:
        """Until all is written that the actor wants to write; gives the numbers of the events."""
        written: list[int] = []
        while works := self.works():
            written += [event.seq for event in works[0].awaitable.argument.events]
            works[0].succeed(TaskFlushed())
        return written

    def status(self) -> str:
        return self.task.status.value

    def closed(self) -> bool:
        return self.task.closed

    def is_alive(self) -> bool:
        return self.kit.is_alive

    def events(self) -> list[TaskEvent]:
        """All that the store may lack."""
        return EVENTS.validate_python(self.task.log.since(0)[0])

    def statuses(self) -> list[str]:
        return [item.status for item in self.task.items]


def sub(number: int) -> str:
    return subtask_id(TASK, number)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


# -- adding


def test_adding_gives_numbers_and_tells_what_they_are() -> None:
    task = Bench(priority=2)
    added = task.add({"input": 1, "labels": ["a"]}, {"input": 2, "key": "b", "priority": 1})
    assert (added.first, added.count, added.seq) == (1, 2, 2)
    (event,) = added.events
    assert event.type == "subtasks.created"
    one, two = event.data["subtasks"]
    assert (one["id"], one["input"], one["labels"], one["priority"]) == (sub(1), 1, ["a"], 2)
    assert (two["id"], two["key"], two["priority"], two["info_version"]) == (sub(2), "b", 1, 2)
    assert added.task.counts.pending == 2


def test_a_batch_is_only_named() -> None:
    task = Bench()
    added = task.ask(AddSubtasks(batch="batch_1", count=3, places=[Place(), Place(depends_on=[0])]))
    assert (added.first, added.count, added.blocked) == (1, 3, [2])
    assert added.events[0].data == {"first": 1, "count": 3, "batch": "batch_1"}


def test_a_batch_says_who_depends_on_nothing_that_is_left_to_do() -> None:
    task = Bench()
    task.add({})
    [lease] = task.take()
    task.report(lease)
    places = [Place(depends_on=[1]), Place(depends_on=[0]), Place()]
    added = task.ask(AddSubtasks(batch="batch_1", count=3, places=places))
    assert added.blocked == [3]
    assert added.events[0].data == {"first": 2, "count": 3, "batch": "batch_1", "ready": [2]}


@pytest.mark.parametrize("more", [{"id": "req_1"}, {"batch": "batch_1", "count": 1}])
def test_the_same_request_again_adds_nothing(more: dict[str, Any]) -> None:
    task = Bench()
    order = {"subtasks": [] if "batch" in more else [{"input": 1}], **more}
    first = task.ask(AddSubtasks.model_validate(order))
    second = task.ask(AddSubtasks.model_validate(order))
    assert (second.first, second.count, second.seq, second.events) == (1, 1, first.seq, [])
    assert len(task.task.items) == 1


def test_dependencies_are_named_by_key_or_id() -> None:
    task = Bench()
    task.add({"key": "a"})
    added = task.add({"key": "b", "depends_on": [sub(1), "c"]}, {"key": "c"})
    assert added.blocked == [2]
    assert added.events[0].data["subtasks"][0]["depends_on"] == [sub(1), sub(3)]
    with pytest.raises(Invalid, match="neither"):
        task.add({"depends_on": ["a"]})
    with pytest.raises(DependencyCycle, match="0 → 1 → 0"):
        task.add({"key": "x", "depends_on": ["y"]}, {"key": "y", "depends_on": ["x"]})
    with pytest.raises(DependencyCycle):
        task.add({"key": "x", "depends_on": ["x"]})
    assert len(task.task.items) == 3


def test_a_task_may_begin_with_subtasks() -> None:
    task = Bench(first={"subtasks": [{"input": 1}, {"input": 2}], "id": "req_1"})
    assert task.statuses() == ["pending", "pending"]
    assert [event.type for event in task.events()] == ["task.created", "subtasks.created"]


# -- taking, and the way of the task


def test_the_task_goes_with_its_subtasks() -> None:
    task = Bench()
    assert task.status() == "pending"
    task.add({}, {})
    first, second = task.take(max=2)
    assert task.status() == "in_progress"
    assert task.report(first).task.status == "in_progress"
    reported = task.report(second)
    assert reported.task.status == "completed"
    assert [event.type for event in reported.events] == ["subtask.completed", "task.completed"]
    assert reported.task.ended_at == at(0)
    added = task.add({})
    assert added.task.status == "in_progress"
    assert added.task.ended_at is None
    assert added.events[-1].type == "task.reopened"
    (third,) = task.take()
    assert task.report(third, "failed", retryable=False).task.status == "failed"


def test_the_same_take_again_gives_the_same_leases_and_no_more() -> None:
    task = Bench()
    task.add({}, {}, {})
    first = task.take(max=2, id="req_1")
    assert task.take(max=2, id="req_1") == first
    task.report(first[0])
    assert task.take(max=2, id="req_1") == first[1:]
    task.report(first[1])
    assert task.take(max=2, id="req_1") == []
    assert len(task.take(max=2, id="req_2")) == 1


def test_an_empty_answer_says_when_to_come_again() -> None:
    task = Bench(lease_s=30)
    task.add({})
    task.take()
    taken = task.ask(TakeSubtasks(worker="bob"))
    assert (taken.assignments, taken.available, taken.retry_at) == ([], 0, at(30))


def test_a_paused_task_gives_nothing_out() -> None:
    task = Bench()
    task.add({}, {})
    (lease,) = task.take()
    assert task.ask(PauseTask()).task.status == "paused"
    assert task.ask(PauseTask()).events == []
    assert task.take("bob") == []
    assert task.ask(Heartbeat(subtask=lease.subtask, lease_token=lease.lease_token)).paused
    assert task.report(lease).status == "completed"
    assert task.ask(ResumeTask()).task.status == "in_progress"
    assert len(task.take("bob")) == 1


def test_a_lease_runs_out_by_itself_and_the_actor_writes_that() -> None:
    task = Bench(lease_s=30, max_attempts=1)
    task.add({})
    (lease,) = task.take()
    task.kit.advance(QUIET_S)
    task.settle()
    task.kit.advance("25s")
    assert task.statuses() == ["dead"]
    assert task.status() == "failed"
    assert [event.type for event in task.flushed().events][-2:] == ["subtask.dead", "task.failed"]
    with pytest.raises(LeaseLost):
        task.report(lease)


def test_what_is_requeued_is_done_after_all() -> None:
    task = Bench(max_attempts=1)
    task.add({"key": "a"}, {"depends_on": ["a"]}, {})
    first, other = task.take(max=2)
    task.report(first, "failed")
    task.report(other, "failed", retryable=False)
    assert task.statuses() == ["dead", "cancelled", "failed"]
    requeued = task.ask(RequeueSubtasks())
    assert (requeued.requeued, requeued.task.status) == (1, "in_progress")
    assert task.statuses() == ["pending", "blocked", "failed"]
    assert task.ask(RequeueSubtasks(statuses=["failed"], subtasks=[sub(1)])).requeued == 0
    assert task.ask(RequeueSubtasks(statuses=["failed"])).requeued == 1


def test_a_change_needs_the_version_that_was_read() -> None:
    task = Bench()
    added = task.add({"input": 1}, {"input": 2})
    order = UpdateSubtask(
        subtask=sub(2), priority=1, requires=["gpu"], info={"input": 3}, info_version=added.seq
    )
    changed = task.ask(order)
    info = changed.events[0].data["info"]
    assert info == {"input": 3, "requires": ["gpu"], "info_version": changed.events[0].seq}
    assert changed.events[0].state.priority == 1
    with pytest.raises(Conflict):
        task.ask(order)
    assert [lease.subtask for lease in task.take(max=2)] == [sub(1)]
    assert task.take(capabilities=["gpu"])[0].info_version == changed.events[0].seq


def test_unknown_subtasks_are_refused_before_anything_is_taken() -> None:
    task = Bench()
    for order in (
        Heartbeat(subtask=sub(1), lease_token="1-x"),
        ReportStatus(subtask=sub(1), status="cancelled"),
        UpdateSubtask(subtask=new_id("sub"), priority=1),
    ):
        with pytest.raises(NotFound):
            task.kit.behavior.check(order)


# -- ends


def test_a_task_that_nobody_works_on_is_cancelled_at_once() -> None:
    task = Bench()
    task.add({"key": "a"}, {"depends_on": ["a"]})
    cancelled = task.ask(CancelTask())
    assert (cancelled.task.status, cancelled.task.reason) == ("cancelled", "deleted")
    assert cancelled.task.counts.cancelled == 2
    assert cancelled.task.closed_at == at(0)
    assert [event.type for event in cancelled.events] == ["task.cancelled"]
    assert task.is_alive()
    assert [event.type for event in task.flushed().events][-1] == "task.cancelled"
    assert not task.is_alive()


def test_a_closed_task_takes_nothing_more() -> None:
    task = Bench()
    task.add({})
    task.ask(CancelTask())
    for order in (
        AddSubtasks.model_validate({"subtasks": [{}]}),
        TakeSubtasks(worker="ada"),
        PauseTask(),
        RequeueSubtasks(),
        ReportStatus(subtask=sub(1), status="pending"),
    ):
        with pytest.raises(TaskClosed):
            task.kit.behavior.check(order)
    assert task.ask(CancelTask()).task.status == "cancelled"


def test_holders_are_told_of_the_end_by_their_heartbeat() -> None:
    task = Bench(lease_s=30)
    task.add({}, {}, {})
    first, second = task.take(max=2)
    assert task.ask(CancelTask()).task.status == "cancelling"
    assert task.statuses() == ["leased", "leased", "cancelled"]
    with pytest.raises(TaskClosed):
        task.add({})
    assert task.take("bob") == []
    assert task.report(first).status == "completed"
    beaten = task.ask(Heartbeat(subtask=second.subtask, lease_token=second.lease_token))
    assert beaten.cancel_requested
    assert [event.type for event in beaten.events] == ["subtask.cancelled", "task.cancelled"]
    assert beaten.task.status == "cancelled"
    assert task.statuses() == ["completed", "cancelled", "cancelled"]


@pytest.mark.parametrize("how", ["pending", "failed", "silent"])
def test_a_cancelled_task_gives_nothing_out_again(how: str) -> None:
    task = Bench(lease_s=30)
    task.add({})
    (lease,) = task.take()
    task.ask(CancelTask())
    if how == "silent":
        task.kit.advance("30s")
    else:
        task.report(lease, how)
    assert task.statuses() == ["cancelled"]
    assert task.status() == "cancelled"
    assert task.task.closed


def test_at_the_deadline_all_that_is_not_done_is_cancelled() -> None:
    task = Bench(deadline=at(60), lease_s=600)
    task.add({}, {}, {})
    first, second = task.take(max=2)
    task.report(first)
    assert second.expires_at == at(60)
    task.kit.advance("60s")
    assert task.statuses() == ["completed", "cancelled", "cancelled"]
    assert task.status() == "expired"
    assert task.task.reason == "deadline"
    while task.is_alive():
        task.flushed()


def test_a_completed_task_lingers_and_then_closes() -> None:
    task = Bench(linger_s=100)
    task.add({})
    task.report(task.take()[0])
    task.kit.advance("99s")
    assert not task.closed()
    task.kit.effects()
    task.kit.advance("2s")
    assert task.closed()
    assert task.status() == "completed"


def test_a_failed_task_waits_for_somebody() -> None:
    task = Bench(linger_s=0, max_attempts=1)
    task.add({})
    task.report(task.take()[0], "failed")
    task.kit.advance("30d")
    assert not task.task.closed
    task.ask(RequeueSubtasks())
    assert task.report(task.take()[0]).task.closed_at is not None


def test_the_callback_is_told_once_of_each_end() -> None:
    task = Bench(callback={"url": "https://example.com/hook"}, first={"subtasks": [{}]})
    task.report(task.take()[0])
    (told,) = [one for one in task.works() if isinstance(one.awaitable.argument, TellCallback)]
    order = told.awaitable.argument
    assert (order.type, order.task, order.data["status"]) == ("task.completed", TASK, "completed")
    assert order.data["counts"]["completed"] == 1
    told.succeed(CallbackTold(status=404, error="The callback answered 404."))
    task.add({})
    task.report(task.take()[0])
    (again,) = [one for one in task.works() if isinstance(one.awaitable.argument, TellCallback)]
    assert again.awaitable.argument.id != order.id
    again.succeed(CallbackTold(status=200))
    assert not task.task.callbacks.calls


def test_a_callback_that_nobody_answers_is_tried_again_by_a_timer() -> None:
    """No try lasts: a run of the actor can't end before it."""
    task = Bench(callback={"url": "https://example.com/hook"}, first={"subtasks": [{}]}, linger_s=0)

    def tries() -> list[Piped]:
        return [one for one in task.works() if isinstance(one.awaitable.argument, TellCallback)]

    task.report(task.take()[0])
    works = task.works()
    told = next(one for one in works if isinstance(one.awaitable.argument, TellCallback))
    next(one for one in works if one is not told).succeed(TaskFlushed())
    ids = [told.awaitable.argument.id]
    assert told.awaitable.options.attempts == 1
    told.fail(RuntimeError("gone"))
    assert tries() == []
    task.kit.advance("1s")
    (told,) = tries()
    told.succeed(CallbackTold(status=503, error="busy", again=True, retry_after_s=90))
    task.kit.advance("89s")
    assert tries() == []
    while task.is_alive():
        task.kit.advance("1800s")
        for told in tries():
            ids.append(told.awaitable.argument.id)
            told.fail(RuntimeError("gone"))
    assert len(ids) == TRIES - 1
    assert len(set(ids)) == 1


def test_an_operators_cancel_is_a_cancel() -> None:
    task = Bench()
    task.add({})
    task.kit.effects()
    task.kit.signal(CancelRequested())
    assert task.task.reason == "cancelled"
    assert task.flushed().summary.closed_at is not None
    assert not task.is_alive()


# -- what the store may lack


def test_what_the_caller_confirms_is_not_written_again() -> None:
    task = Bench()
    added = task.add({}, {})
    (lease,) = task.take()
    task.kit.effects()
    seqs = [event.seq for event in [*added.events, *task.events()]]
    task.ask(
        Heartbeat(subtask=lease.subtask, lease_token=lease.lease_token, acks=[(1, max(seqs))], flusher=True)
    )
    task.kit.advance(QUIET_S + 1)
    order = task.flushed()
    assert [event.type for event in order.events] == ["subtask.progress"]
    assert order.task is None
    task.kit.advance("1h")


def test_what_nobody_has_promised_to_write_is_written_at_once() -> None:
    task = Bench(stored=False)
    order = task.flushed()
    assert order.task is not None
    assert order.task.id == TASK
    assert [event.type for event in order.events] == ["task.created"]
    task.kit.ask(AddSubtasks.model_validate({"subtasks": [{}]}))
    assert [event.type for event in task.flushed().events] == ["subtasks.created"]


def test_a_request_that_did_very_much_leaves_the_rest_to_the_actor() -> None:
    task = Bench(max_attempts=1)
    task.add({"key": "a"}, *({"depends_on": ["a"]} for _ in range(999)))
    (lease,) = task.take()
    task.settle()
    reported = task.report(lease, "failed")
    assert len(reported.events) == 200
    assert reported.task.counts.cancelled == 999
    assert task.settle() == [*range(lease.fence + 2, task.task.log.seq + 1)]


# -- the same moment, the same again


def test_at_the_deadline_nothing_is_given_out_or_added() -> None:
    """The request may come before the timer."""
    for order in (TakeSubtasks(worker="ada"), AddSubtasks.model_validate({"subtasks": [{}]})):
        task = Bench(deadline=at(60))
        task.add({})
        task.late(60.0)
        with pytest.raises(TaskClosed):
            task.ask(order)
        assert (task.status(), task.statuses()) == ("expired", ["cancelled"])


def test_the_deadline_is_no_failed_attempt() -> None:
    task = Bench(deadline=at(60), lease_s=600, max_attempts=1)
    task.add({})
    task.take()
    task.kit.advance("60s")
    assert (task.status(), task.statuses(), task.closed()) == ("expired", ["cancelled"], True)
    told = task.events()[-2:]
    assert [event.type for event in told] == ["subtask.cancelled", "task.expired"]
    assert [one.outcome for one in told[0].state.leases] == ["cancelled"]  # type: ignore[union-attr]


def test_a_lease_that_ends_before_the_deadline_has_run_out() -> None:
    task = Bench(deadline=at(60), lease_s=59, max_attempts=1)
    task.add({}, {})
    task.take()
    task.late(60.0)
    with pytest.raises(TaskClosed):
        task.take("bob")
    assert task.statuses() == ["dead", "cancelled"]


def test_an_operators_cancel_at_the_deadline_leaves_no_lease_behind() -> None:
    task = Bench(deadline=at(60), lease_s=600)
    task.add({})
    task.take()
    task.late(60.0)
    task.kit.signal(CancelRequested())
    task.kit.advance("1s")
    assert (task.statuses(), task.closed()) == (["cancelled"], True)


def test_what_was_let_in_before_the_task_was_closed_is_refused_after() -> None:
    """Several requests are looked at before the first of them is handled."""
    for held in (False, True):
        task = Bench()
        task.add({})
        if held:
            task.take()
        order: Any = AddSubtasks.model_validate({"subtasks": [{}], "flusher": True})
        task.kit.behavior.check(order)
        task.ask(CancelTask())
        with pytest.raises(TaskClosed):
            task.kit.ask(order).answer  # noqa: B018
        assert len(task.task.items) == 1


def test_a_take_is_known_for_as_long_as_its_leases_are_held() -> None:
    task = Bench()
    task.add(*({} for _ in range(5)))
    first = task.take(max=2, id="req_0")
    for number in range(1, 1_100):
        (lease,) = task.take("bob", id=f"req_{number}")
        task.report(lease, "pending", acks=[(1, task.task.log.seq)])
    assert task.take(max=2, id="req_0") == first
    task.report(first[1])
    assert task.take(max=2, id="req_0") == first[:1]


def test_who_gets_something_learns_when_there_is_more() -> None:
    """Somebody else may wait, and be told by nobody else."""
    task = Bench(backoff={"initial_s": 5, "factor": 2})
    task.add({}, {})
    one, two = task.take(max=2)
    task.report(one, "failed")
    task.report(two, "failed", retry_after_s=10)
    task.kit.advance("5s")
    taken = task.ask(TakeSubtasks(worker="bob"))
    assert len(taken.assignments) == 1
    assert (taken.available, taken.retry_at) == (0, at(10))


def test_the_same_report_by_hand_with_another_result_is_refused() -> None:
    task = Bench()
    task.add({})
    (lease,) = task.take()
    task.report(lease, result={"a": "é"})
    assert task.report(lease, result={"a": "é"}).outcome == "completed"
    with pytest.raises(InvalidTransition):
        task.report(lease, result={"a": 2})


def test_at_the_deadline_what_depends_on_a_held_one_ends_with_the_task() -> None:
    task = Bench(deadline=at(60), lease_s=600)
    task.add({"key": "a"}, {"depends_on": ["a"]})
    task.take()
    task.kit.advance("60s")
    assert [item.reason for item in task.task.items] == ["deadline", "deadline"]
    assert task.statuses() == ["cancelled", "cancelled"]


def test_a_cancelled_task_that_is_still_held_gives_out_nothing_that_came_back() -> None:
    task = Bench(overlap=2)
    task.add({})
    (one,), (two,) = task.take("ada"), task.take("bob")
    task.ask(CancelTask())
    task.report(one, "pending")
    taken = task.ask(TakeSubtasks(worker="cyd"))
    assert (taken.assignments, taken.available, task.status()) == ([], 0, "cancelling")
    task.report(two, "pending")
    assert (task.status(), task.statuses()) == ("cancelled", ["cancelled"])


def test_a_majority_that_is_not_the_first_counts() -> None:
    task = Bench(overlap=3, consensus="majority", first={"subtasks": [{}]})
    held = [task.take(worker)[0] for worker in ("ada", "bob", "cyd")]
    for lease, result in zip(held, ("dog", "cat", "cat"), strict=True):
        task.report(lease, result=result)
    verdict = next(
        event.state.verdict for event in task.events() if event.type == "subtask.completed" and event.state
    )
    assert verdict is not None
    assert (verdict.answer, verdict.votes, verdict.agreed) == (held[1].id, 2, True)


def test_while_writers_are_heard_their_events_are_left_to_them_for_longer() -> None:
    task = Bench()
    task.add({})
    (lease,) = task.take()
    task.settle()
    for _ in range(4):
        task.kit.advance(QUIET_S - 1)
        task.ask(Heartbeat(subtask=lease.subtask, lease_token=lease.lease_token))
        assert task.works() == []
    task.kit.advance(QUIET_S - 0.5)
    assert [event.seq for event in task.flushed().events][:3] == [1, 2, 3]


def test_a_task_that_is_done_stays_what_it_was_when_it_is_deleted() -> None:
    task = Bench()
    task.add({})
    task.report(task.take()[0])
    deleted = task.ask(CancelTask())
    assert (deleted.task.status, deleted.task.reason) == ("completed", "deleted")
    assert [event.type for event in deleted.events] == ["task.closed"]


def test_another_run_knows_that_the_task_is_being_cancelled() -> None:
    task = Bench()
    task.add({})
    (lease,) = task.take()
    task.ask(CancelTask())
    task.task._book = None  # type: ignore[misc]
    assert task.report(lease, "pending").status == "cancelled"
    assert task.status() == "cancelled"


def test_what_happened_before_a_refusal_is_written_at_once() -> None:
    task = Bench(lease_s=30, max_attempts=1)
    task.add({})
    (lease,) = task.take()
    task.kit.advance(QUIET_S)
    task.settle()
    task.late(30.0)
    with pytest.raises(LeaseLost):
        task.report(lease)
    assert [event.type for event in task.flushed().events] == ["subtask.dead", "task.failed"]


def test_all_that_can_be_requeued_is_and_so_many_at_once() -> None:
    task = Bench(max_attempts=1)
    task.add({"key": "a"}, {"depends_on": ["a"]}, *({} for _ in range(400)))
    for _ in range(5):
        for lease in task.take(max=100):
            task.report(lease, "failed", retryable=False, acks=[(1, task.task.log.seq)])
    assert task.ask(RequeueSubtasks(statuses=["cancelled"])).requeued == 0
    counted = [task.ask(RequeueSubtasks(statuses=["failed"])).requeued for _ in range(3)]
    assert counted == [200, 200, 1]
    assert task.statuses() == ["pending", "blocked", *["pending"] * 400]


def test_the_earliest_end_counts_whichever_was_known_first() -> None:
    task = Bench(max_attempts=1)
    task.add({}, {})
    task.take(lease_s=100)
    task.take(lease_s=10)
    task.kit.advance("10s")
    assert task.statuses() == ["leased", "dead"]


def test_a_token_can_t_be_made_from_what_everybody_knows() -> None:
    assert len(Bench().task.salt) == 32
