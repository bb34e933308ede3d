"""Who is next, of those that wait."""

from __future__ import annotations

import time

import pytest

from goatherd.contracts.task import TaskEventType
from goatherd.contracts.task_messages import Place, ReportStatus
from goatherd.errors import InvalidTransition
from tests.workflows.task_books import START, add, again, make, report, seen_leases, sub, take


def test_takes_by_priority_then_age() -> None:
    book = make()
    add(book, Place(priority=3), Place(priority=1), Place(priority=3), Place(priority=1))
    assert [one.subtask for one in take(book, max=10)] == [sub(2), sub(4), sub(1), sub(3)]


def test_takes_only_what_the_worker_is_able_to_do() -> None:
    book = make()
    add(book, Place(requires=["gpu", "de"]), Place(requires=["de"]), Place())
    assert [one.subtask for one in take(book, max=10)] == [sub(3)]
    assert [one.subtask for one in take(book, capabilities=["de"], max=10)] == [sub(2)]
    assert [one.subtask for one in take(book, capabilities=["de", "fr", "gpu"], max=10)] == [sub(1)]


def test_a_change_moves_a_subtask_in_the_queue() -> None:
    book = make()
    add(book, count=4)
    book.change(book.items[1], 5, None, {}, None)
    book.change(book.items[2], None, ["gpu"], {}, None)
    book.change(book.items[4], 1, None, {}, None)
    assert [one.subtask for one in take(book, max=9)] == [sub(4), sub(3), sub(1)]
    assert [one.subtask for one in take(book, capabilities=["gpu"], max=9)] == [sub(2)]
    report(book, next(iter(seen_leases(book, 1))))
    with pytest.raises(InvalidTransition):
        book.change(book.items[1], 1, None, {}, None)


def test_what_can_be_taken_is_counted() -> None:
    """Those who wait are waked by it."""
    book = make(overlap=2, max_attempts=9)
    add(book, count=3)
    for worker in ("ada", "bob"):
        held = take(book, worker, max=3)
        report(book, held[0], "failed", retry_after_s=60)
        assert [one.subtask for one in held] == [sub(1), sub(2), sub(3)][-len(held) :]
    # Of the first both have failed, the others are full.
    assert (book.available, again(book).available) == (0, 0)


@pytest.mark.parametrize("how", ["owner cancels", "cancelled with the task", "time"])
def test_what_waits_for_its_backoff_is_not_counted_and_what_goes_is_not_either(how: str) -> None:
    book = make()
    add(book, count=10)
    for lease in take(book, max=5):
        report(book, lease, "failed", retry_after_s=60)
    assert book.available == 5
    if how == "owner cancels":
        book.report(ReportStatus(subtask=sub(1), status="cancelled"))
        assert book.available == 5
        book.report(ReportStatus(subtask=sub(10), status="cancelled"))
        assert book.available == 4
    elif how == "time":
        book.advance(START + 60)
        assert (book.available, again(book).available) == (10, 10)
    else:
        book.cancel_waiting(TaskEventType.TASK_CANCELLED, "deleted")
        assert book.available == 0


def test_who_has_answered_nearly_all_does_not_look_at_each_again() -> None:
    book = make(overlap=3)
    for _ in range(5):
        add(book, count=10_000)
    for item in book.items:
        item.answers = [("ada", 1, 1), ("bob", 2, 1)][: 1 + item.number % 2]
    book = again(book)
    began = time.process_time()
    for _ in range(100):
        assert take(book, "ada") == []
    assert time.process_time() - began < 1.0
    assert [one.subtask for one in take(book, "bob", max=3)] == [sub(2), sub(4), sub(6)]
    assert [one.subtask for one in take(book, "cyd", max=3)] == [sub(1), sub(2), sub(3)]
