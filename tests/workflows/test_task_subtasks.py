"""What follows from what becomes of a subtask for those that depend on it; and a hundred thousand of them."""

from __future__ import annotations

import time

import pytest

from goatherd.contracts.task_messages import Place, ReportStatus
from goatherd.errors import Invalid, InvalidTransition
from tests.workflows.task_books import add, again, make, report, seen, sub, take
from workflows.task_items import check_cycles


def test_what_depends_waits_and_goes_down_with_what_failed_and_comes_back_with_it() -> None:
    book = make(max_attempts=1)
    add(book, Place(), Place(depends_on=[0]), Place(depends_on=[-1]), Place())
    assert [one.subtask for one in take(book, max=9)] == [sub(1), sub(4)]
    lease = next(one for one in book.leases.values() if one.number == 1)
    book.report(ReportStatus(subtask=sub(1), status="failed", lease_token=book.token(lease.fence)))
    assert [item.status for item in book.items] == ["dead", "cancelled", "cancelled", "leased"]
    assert book.items[2].reason == "dependency-failed"
    with pytest.raises(InvalidTransition, match="requeue that"):
        book.requeue(book.items[2])
    book.requeue(book.items[1])
    assert [item.status for item in book.items] == ["pending", "blocked", "blocked", "leased"]
    for number in (1, 2, 3):
        (lease_,) = take(book)
        assert lease_.subtask == sub(number)
        report(book, lease_)
    add(book, Place(depends_on=[1]))
    assert book.items[5].status == "pending"


def test_new_ones_that_depend_on_a_lost_one_are_cancelled_at_once() -> None:
    book = make()
    add(book, count=1)
    report(book, take(book)[0], "failed", retryable=False)
    add(book, Place(depends_on=[1]), Place(depends_on=[0]))
    assert [item.status for item in book.items] == ["failed", "cancelled", "cancelled"]


def test_dependencies_that_are_not_there_are_refused_and_nothing_is_added() -> None:
    book = make()
    for depends in ([9], [-5]):
        with pytest.raises(Invalid):
            book.add([Place(depends_on=depends)], 1)
    assert len(book.items) == 0


@pytest.mark.parametrize(
    ("depends", "cycle"),
    [({}, None), ({1: [0], 2: [1]}, None), ({0: [0]}, {0}), ({0: [1], 1: [2], 2: [0], 3: [0]}, {0, 1, 2})],
)
def test_cycles_are_found(depends: dict[int, list[int]], cycle: set[int] | None) -> None:
    found = check_cycles(4, depends)
    assert (None if found is None else set(found)) == cycle


def test_a_new_one_can_t_be_named_by_the_number_that_it_will_have() -> None:
    """Numbers can be guessed: two that wait for each other would never be found."""
    book = make()
    for depends in ([1], [2]):
        with pytest.raises(Invalid):
            book.add([Place(depends_on=depends)], 2)
    assert len(book.items) == 0


def test_what_is_closed_while_another_waits_for_its_backoff_waits_for_nothing() -> None:
    book = make(overlap=2)
    add(book, count=1)
    one, other = take(book, "ada")[0], take(book, "bob")[0]
    report(book, one, "failed", retry_after_s=60)
    report(book, other, "failed", retryable=False)
    state = seen(book)[-1].state
    assert state is not None
    assert (state.status, state.not_before, book.next_at()) == ("failed", None, None)


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_what_depends_on_two_that_failed_comes_back_with_the_second(order: tuple[int, int]) -> None:
    book = make(max_attempts=1)
    add(book, Place(), Place(), Place(depends_on=[0, -1]), Place(depends_on=[-2]))
    for lease in take(book, max=2):
        report(book, lease, "failed")
    for number, statuses in zip(order, (["cancelled"] * 2, ["blocked"] * 2), strict=True):
        book.requeue(book.items[number])
        assert [item.status for item in book.items][2:] == statuses
    for number in range(1, 5):
        (lease,) = take(again(book)) and take(book)
        assert (lease.subtask, lease.attempt) == (sub(number), 1)
        report(book, lease)


# Of computing without a break; then Temporal takes a workflow for stuck.
DEADLOCK_S = 2.0


def test_a_hundred_thousand_may_depend_on_one() -> None:
    """Of each request all at once, before Temporal takes the actor for stuck."""
    book = make()
    add(book, count=1)
    places = [Place(depends_on=[1])] * 10_000
    for _ in range(10):
        began = time.process_time()
        add(book, *places)
        assert time.process_time() - began < DEADLOCK_S
        book._log.confirm([(1, book._log.seq)])
    assert book.counts["blocked"] == 100_000


def test_a_hundred_thousand_that_are_done_are_written_small() -> None:
    book = make()
    for _ in range(100):
        add(book, count=1_000)
        for lease in take(book, max=100) * 1:
            report(book, lease, digest=lease.subtask)
            book._log.confirm([(1, book._log.seq)])
        while held := take(book, max=100):
            for lease in held:
                report(book, lease, digest=lease.subtask)
            book._log.confirm([(1, book._log.seq)])
    assert book.counts["completed"] == 100_000
    assert len(book.items.written()) < 1_200_000
