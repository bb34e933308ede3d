"""How a task ends: cancelled, at its deadline, completed, failed; and what is still held then."""

from __future__ import annotations

from typing import Any

import pytest

from goatherd.actors import CancelRequested
from goatherd.contracts.task_messages import (
    AddSubtasks,
    CancelTask,
    Heartbeat,
    PauseTask,
    ReportStatus,
    RequeueSubtasks,
    TakeSubtasks,
)
from goatherd.errors import TaskClosed
from tests.workflows.task_bench import Bench, at, sub


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


def test_an_operators_cancel_is_a_cancel() -> None:
    task = Bench()
    task.add({})
    task.kit.effects()
    task.kit.signal(CancelRequested())
    assert task.task.reason == "cancelled"
    assert task.flushed().summary.closed_at is not None
    assert not task.is_alive()


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
