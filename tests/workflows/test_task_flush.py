"""What the store may lack, and who writes it when."""

from __future__ import annotations

import pytest

from goatherd.contracts.task_messages import AddSubtasks, Heartbeat
from goatherd.errors import LeaseLost
from tests.workflows.task_bench import TASK, Bench
from workflows.task_flush import QUIET_S


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
