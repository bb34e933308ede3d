"""What a task's actor does with what it is asked, by hand: no server, the clock moved by the test."""

from __future__ import annotations

import pytest

from goatherd.contracts.ids import new_id
from goatherd.contracts.task_messages import (
    Heartbeat,
    PauseTask,
    ReportStatus,
    RequeueSubtasks,
    ResumeTask,
    TakeSubtasks,
    UpdateSubtask,
)
from goatherd.errors import Conflict, InvalidTransition, LeaseLost, NotFound
from tests.workflows.task_bench import Bench, at, sub
from workflows.task_flush import QUIET_S


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
