"""Leases and reports: who has which subtask, for how long, and what becomes of what he says."""

from __future__ import annotations

import pytest

from goatherd.contracts.task import Backoff, TaskEventType
from goatherd.contracts.task_messages import Heartbeat, Leased, Place, ReportStatus
from goatherd.errors import Invalid, InvalidTransition, LeaseLost, NotFound
from tests.workflows.task_books import EVENTS, START, WORKERS, add, again, beat, make, report, seen, sub, take


def test_overlap_gives_different_workers_the_same_and_nobody_twice() -> None:
    book = make(overlap=3, consensus="majority")
    add(book, count=1)
    held = [take(book, worker)[0] for worker in WORKERS[:3]]
    assert take(book, "dan") == []
    for lease, digest in zip(held, ("cat", "dog", "cat"), strict=True):
        assert take(book, "ada") == []
        report(book, lease, digest=digest)
    (event,) = [one for one in seen(book) if one.type is TaskEventType.SUBTASK_COMPLETED]
    assert event.state is not None
    assert event.state.verdict is not None
    assert event.state.verdict.agreed
    assert event.state.verdict.answer == held[0].id
    assert event.state.verdict.votes == 2
    assert len(event.state.answers) == 3


@pytest.mark.parametrize(
    ("rule", "digests", "agreed"),
    [
        ("none", "aaa", False),
        ("majority", "aab", True),
        ("majority", "abc", False),
        ("all", "aaa", True),
        ("all", "aab", False),
    ],
)
def test_verdicts(rule: str, digests: str, agreed: bool) -> None:
    book = make(overlap=3, consensus=rule)
    add(book, count=1)
    for worker, digest in zip(WORKERS, digests, strict=False):
        report(book, take(book, worker)[0], digest=digest)
    state = seen(book)[-1].state
    assert state is not None
    assert state.verdict is not None
    assert state.verdict.agreed is agreed


def test_an_expired_lease_is_lost_and_requeued_with_backoff_until_it_is_dead() -> None:
    book = make(max_attempts=2, lease_s=10, backoff=Backoff(initial_s=5, factor=3, max_s=60))
    add(book, count=1)
    (lease,) = take(book)
    assert book.next_at() == START + 10
    book.advance(START + 10)
    with pytest.raises(LeaseLost):
        report(book, lease)
    assert take(book) == []
    assert book.next_at() == START + 15
    book.advance(START + 15)
    (second,) = take(book)
    assert (second.attempt, second.fence) == (2, 2)
    book.advance(START + 25)
    assert book.counts["dead"] == 1
    state = seen(book)[-1].state
    assert state is not None
    assert state.reason == "lease-expired"
    assert [one.outcome for one in state.leases] == ["expired", "expired"]
    book.requeue(book.items[1])
    assert take(book)[0].attempt == 1


def test_a_heartbeat_extends_and_what_it_carries_reaches_the_next_attempt() -> None:
    book = make(lease_s=10)
    add(book, count=1)
    (lease,) = take(book)
    book.advance(START + 8)
    beat = Heartbeat(subtask=lease.subtask, lease_token=lease.lease_token, checkpoint={"at": 7}, progress=0.5)
    assert book.beat(beat).expires_at == START + 18
    book.advance(START + 18)
    (second,) = take(book, "bob")
    assert second.checkpoint == {"at": 7}
    with pytest.raises(LeaseLost):
        book.beat(beat)


def test_a_lease_never_outlasts_the_deadline() -> None:
    book = make(lease_s=100, deadline=START + 30)
    add(book, count=1)
    (lease,) = take(book)
    assert lease.expires_at.timestamp() == START + 30


def test_the_same_report_again_has_the_same_outcome_and_another_is_refused() -> None:
    book = make()
    add(book, count=2)
    first, second = take(book, max=2)
    was = report(book, first, digest="a")
    for one in (book, again(book)):
        now = report(one, first, digest="a")
        assert all(getattr(now, name) == getattr(was, name) for name in now.__slots__)
        with pytest.raises(InvalidTransition):
            report(one, first, digest="b")
        with pytest.raises(InvalidTransition):
            report(one, first, "failed")
    failed = report(book, second, "failed", retry_after_s=0)
    assert failed.status == "pending"
    (third,) = take(book, "bob")
    assert report(book, second, "failed").status == "pending"
    with pytest.raises(InvalidTransition):
        report(book, second)
    assert report(book, third).status == "completed"


def test_a_token_of_another_subtask_or_made_up_is_no_lease() -> None:
    book = make()
    add(book, count=2)
    one, other = take(book, max=2)
    for token in (other.lease_token, "1-00", "", "x", f"{one.fence}-{'0' * 24}", "9" * 99):
        with pytest.raises(LeaseLost):
            book.report(ReportStatus(subtask=one.subtask, status="completed", lease_token=token))


def test_the_owner_may_cancel_and_have_done_again_but_not_report() -> None:
    book = make()
    add(book, count=1)
    (lease,) = take(book)
    with pytest.raises(Invalid, match="lease_token"):
        book.report(ReportStatus(subtask=sub(1), status="completed"))
    book.report(ReportStatus(subtask=sub(1), status="cancelled"))
    with pytest.raises(LeaseLost):
        report(book, lease)
    book.report(ReportStatus(subtask=sub(1), status="pending"))
    report(book, take(book)[0])
    with pytest.raises(InvalidTransition):
        book.report(ReportStatus(subtask=sub(1), status="pending"))
    with pytest.raises(NotFound):
        book.report(ReportStatus(subtask=sub(2), status="pending"))


def test_a_lease_that_was_extended_does_not_end_when_it_would_have() -> None:
    book = make()
    add(book, count=1)
    (lease,) = take(book, lease_s=10)
    book.advance(START + 8)
    beat(book, lease)
    book.advance(START + 10)
    assert book.next_at() == START + 18
    beat(book, lease, extend_s=30)
    assert book.next_at() == START + 40
    assert beat(book, lease, extend_s=1).expires_at == START + 40
    book.advance(START + 39)
    assert book.counts["leased"] == 1
    book.advance(START + 40)
    assert book.counts["leased"] == 0


def test_the_last_backoff_counts() -> None:
    book = make()
    add(book, count=1)
    report(book, take(book)[0], "failed", retry_after_s=5)
    for status in ("cancelled", "pending"):
        book.report(ReportStatus(subtask=sub(1), status=status))
    report(book, take(book)[0], "failed", retry_after_s=60)
    assert book.next_at() == START + 60
    book.advance(START + 5)
    assert take(book) == []
    assert book.next_at() == START + 60
    book.advance(START + 60)
    assert len(take(book)) == 1


def test_a_report_carries_progress_and_a_checkpoint_too() -> None:
    book = make()
    add(book, count=1)
    (lease,) = take(book)
    assert report(book, lease, "leased", progress=0.25, checkpoint=7).status == "leased"
    assert seen(book)[-1].state.progress == 0.25  # type: ignore[union-attr]
    report(book, lease, "failed", progress=0.5)
    assert seen(book)[-1].state.progress == 0.5  # type: ignore[union-attr]
    assert take(book)[0].checkpoint == 7


def test_an_answer_that_the_store_has_is_not_in_the_event() -> None:
    book = make()
    add(book, count=2)
    for lease in take(book, max=2):
        report(book, lease, result=1, stored=lease.fence == 1, digest="x")
    done = [event for event in seen(book) if event.type is TaskEventType.SUBTASK_COMPLETED]
    assert ["answer" in event.data for event in done] == [False, True]


def test_the_owner_may_say_the_same_again() -> None:
    book = make()
    add(book, count=1)
    for status in ("pending", "cancelled", "cancelled"):
        assert book.report(ReportStatus(subtask=sub(1), status=status)).status == status
    assert len(seen(book)) == 2


def test_the_first_end_is_the_first_in_another_run_too() -> None:
    book = make()
    add(book, count=3)
    for seconds in (100, 50, 10):
        take(book, lease_s=seconds)
    assert again(book).next_at() == book.next_at() == START + 10


def test_what_is_done_after_all_has_no_error() -> None:
    book = make()
    add(book, count=1)
    report(book, take(book)[0], "failed", error={"message": "no"})
    assert seen(book)[-1].state.error.message == "no"  # type: ignore[union-attr]
    report(book, take(book)[0])
    assert seen(book)[-1].state.error is None  # type: ignore[union-attr]


def test_who_gives_up_says_so() -> None:
    book = make()
    add(book, Place(), Place(depends_on=[0]))
    (lease,) = take(book)
    assert report(book, lease, "cancelled").status == "cancelled"
    assert report(book, lease, "cancelled").outcome == "cancelled"
    assert [item.reason for item in book.items] == ["given-up", "dependency-failed"]
    book.requeue(book.items[1])
    assert [item.reason for item in book.items] == [None, None]


def test_each_of_several_reports_is_answered_the_same_after_all_of_them() -> None:
    book = make(overlap=2, max_attempts=9)
    add(book, count=1)
    said: list[tuple[Leased, str]] = []
    who = ("ada", "ada", "bob", "ada", "cyd")
    for worker, status in (
        ("ada", "failed"), ("ada", "pending"), ("bob", "completed"), ("ada", "failed"), ("cyd", "completed"),
    ):  # fmt: skip
        said.append((take(book, worker)[0], status))
        report(book, *said[-1], digest=worker)
        assert book.items[1].status in ("pending", "completed")
    wanted = ["pending", "pending", "pending", "pending", "completed"]
    for one in (book, again(book)):
        outcomes = [
            report(one, lease, status, digest=by) for (lease, status), by in zip(said, who, strict=True)
        ]
        assert [outcome.status for outcome in outcomes] == wanted
        assert [outcome.attempt for outcome in outcomes] == [1, 2, 2, 2, 3]
        assert [outcome.outcome for outcome in outcomes] == [
            "failed", "released", "completed", "failed", "completed",
        ]  # fmt: skip
        for lease, status in said:
            with pytest.raises(InvalidTransition):
                report(one, lease, "failed" if status == "completed" else "completed")
        with pytest.raises(InvalidTransition):
            report(one, said[2][0], digest="another")


def test_a_report_to_one_that_many_answer_is_known_to_the_end() -> None:
    book = make(overlap=30)
    add(book, count=1)
    first = take(book, "w0")[0]
    report(book, first)
    for number in range(1, 29):
        report(book, take(book, f"w{number}")[0])
    assert report(book, first).outcome == "completed"
    book._log.confirm([(1, book._log.seq - 1)])
    state = EVENTS.validate_python(book._log.since(book._log.seq - 1)[0])[-1].state
    assert state is not None
    assert len(state.leases) == 20
    report(book, take(book, "w29")[0])
    assert report(again(book), first).status == "pending"


def test_one_of_two_holders_who_learns_of_the_end_is_told_of() -> None:
    book = make(overlap=2)
    add(book, count=1)
    one, other = take(book, "ada")[0], take(book, "bob")[0]
    book.closing = "deleted"
    book.tell_cancelled(book.held(book.items[1], one.lease_token))
    state = seen(book)[-1].state
    assert state is not None
    assert (state.assignees, [lease.outcome for lease in state.leases]) == (["bob"], ["cancelled", None])
    book.tell_cancelled(book.held(book.items[1], other.lease_token))
    assert book.items[1].status == "cancelled"
