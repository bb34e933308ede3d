"""The rules of tasks against a model of them that is as plain as can be, and cases of their own."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from pydantic import TypeAdapter

from goatherd.contracts.ids import new_id, subtask_id
from goatherd.contracts.task import Backoff, TaskEvent, TaskEventType
from goatherd.contracts.task_messages import Heartbeat, Leased, Place, ReportStatus, TakeSubtasks
from goatherd.errors import Invalid, InvalidTransition, LeaseLost, NotFound
from workflows.task_book import TaskBook
from workflows.task_items import Items, check_cycles
from workflows.task_log import TaskLog
from workflows.task_subtasks import Rules

TASK = new_id("task")
EVENTS = TypeAdapter(list[TaskEvent])
WORKERS = ("ada", "bob", "cyd", "dan")
START = 1_800_000_000.0


def make(**rules: Any) -> TaskBook:
    made = Rules(**{"salt": "salt", "backoff": Backoff(initial_s=0), **rules})
    book = TaskBook(made, Items(), TaskLog(TASK))
    book.advance(START)
    return book


def add(book: TaskBook, *places: Place, count: int | None = None) -> None:
    book._log.emit(TaskEventType.SUBTASKS_CREATED, START)
    book.cancel_hopeless(book.add(places, len(places) if count is None else count))


def take(book: TaskBook, worker: str = "ada", **more: Any) -> list[Leased]:
    return book.take(TakeSubtasks(worker=worker, **more))


def report(book: TaskBook, lease: Leased, status: str = "completed", **more: Any) -> Any:
    return book.report(
        ReportStatus.model_validate(
            {"subtask": lease.subtask, "status": status, "lease_token": lease.lease_token, **more}
        )
    )


def sub(number: int) -> str:
    return subtask_id(TASK, number)


def again(book: TaskBook) -> TaskBook:
    """The same after a run of the workflow ended and another went on."""
    items = TypeAdapter(Items).validate_python(TypeAdapter(Items).dump_python(book.items))
    log = TypeAdapter(TaskLog).validate_python(TypeAdapter(TaskLog).dump_python(book._log, mode="json"))
    other = TaskBook(book.rules, items, log, book.fence)
    other.closing = book.closing
    return other


# -- cases


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


def test_a_new_one_can_t_be_named_by_the_number_that_it_will_have() -> None:
    """Numbers can be guessed: two that wait for each other would never be found."""
    book = make()
    for depends in ([1], [2]):
        with pytest.raises(Invalid):
            book.add([Place(depends_on=depends)], 2)
    assert len(book.items) == 0


def beat(book: TaskBook, lease: Leased, **more: Any) -> Any:
    return book.beat(Heartbeat(subtask=lease.subtask, lease_token=lease.lease_token, **more))


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


def seen_leases(book: TaskBook, number: int) -> list[Leased]:
    return [book._leased(book.items[number], lease) for lease in (book.items[number].leases or {}).values()]


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


def test_a_hundred_thousand_may_depend_on_one() -> None:
    """Of each request all at once, before Temporal takes the actor for stuck."""
    book = make()
    add(book, count=1)
    places = [Place(depends_on=[1])] * 10_000
    for _ in range(10):
        began = time.process_time()
        add(book, *places)
        assert time.process_time() - began < 1.0
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


def seen(book: TaskBook) -> list[TaskEvent]:
    events, complete = book._log.since(0)
    assert complete
    return EVENTS.validate_python(events)


# -- against the model


@dataclass
class Thing:
    """A subtask as the model has it."""

    requires: frozenset[str]
    priority: int
    depends: list[int]
    status: str = "pending"
    failures: int = 0
    ready_at: float = 0.0
    holders: dict[str, tuple[str, float]] = field(default_factory=dict)
    answered: list[str] = field(default_factory=list)


class Tasks(RuleBasedStateMachine):
    """Random work, with the clock moved and the workflow's runs changed at any time."""

    leases = Bundle("leases")

    @initialize(overlap=st.integers(1, 3), attempts=st.integers(1, 3), backoff=st.sampled_from([0.0, 4.0]))
    def begin(self, overlap: int, attempts: int, backoff: float) -> None:
        self.overlap, self.attempts, self.backoff = overlap, attempts, backoff
        self.now = START
        self.book = make(
            overlap=overlap, max_attempts=attempts, lease_s=10, backoff=Backoff(initial_s=backoff, factor=1)
        )
        self.things: dict[int, Thing] = {}

    @rule(
        count=st.integers(1, 3),
        requires=st.sampled_from([[], ["x"], ["x", "y"]]),
        priority=st.integers(1, 5),
        depends=st.booleans(),
    )
    def add(self, count: int, requires: list[str], priority: int, depends: bool) -> None:
        on = [len(self.things)] if depends and self.things else []
        places = [Place(requires=requires, priority=priority, depends_on=on) for _ in range(count)]
        add(self.book, *places)
        for _ in range(count):
            thing = Thing(frozenset(requires), priority, on)
            self.things[len(self.things) + 1] = thing
            self.settle_new(thing)

    def settle_new(self, thing: Thing) -> None:
        if any(self.things[one].status in ("failed", "dead", "cancelled") for one in thing.depends):
            thing.status = "cancelled"
        elif any(self.things[one].status != "completed" for one in thing.depends):
            thing.status = "blocked"

    @rule(
        target=leases,
        worker=st.sampled_from(WORKERS),
        able=st.sampled_from([[], ["x"], ["y", "x"]]),
        most=st.integers(1, 3),
    )
    def take(self, worker: str, able: list[str], most: int) -> Any:
        could = sorted(
            (thing.priority, number)
            for number, thing in self.things.items()
            if thing.status in ("pending", "leased")
            and thing.requires <= set(able)
            and thing.ready_at <= self.now
            and len(thing.holders) + len(thing.answered) < self.overlap
            and worker not in thing.answered
            and worker not in [one for one, _ in thing.holders.values()]
        )
        taken = take(self.book, worker, capabilities=able, max=most)
        assert [one.subtask for one in taken] == [sub(number) for _, number in could[:most]]
        for (_, number), lease in zip(could, taken, strict=False):
            thing = self.things[number]
            assert lease.attempt == thing.failures + 1
            thing.holders[lease.lease_token] = (worker, self.now + 10)
            thing.status = "leased"
        return multiple(*[(number, lease) for (_, number), lease in zip(could, taken, strict=False)])

    @rule(held=leases, how=st.sampled_from(["completed", "failed", "given up", "pending", "cancelled"]))
    def report(self, held: tuple[int, Leased], how: str) -> None:
        number, lease = held
        thing = self.things[number]
        status = "failed" if how == "given up" else how
        if lease.lease_token not in thing.holders:
            before = [item.status for item in self.book.items]
            with suppress(LeaseLost, InvalidTransition):
                report(self.book, lease, status)
            assert [item.status for item in self.book.items] == before
            return
        report(self.book, lease, status, retryable=how == "failed")
        worker, _ = thing.holders.pop(lease.lease_token)
        if how == "completed":
            thing.answered.append(worker)
            if len(thing.answered) == self.overlap:
                self.end(thing, "completed")
            else:
                thing.status = "leased" if thing.holders else "pending"
        elif how == "failed":
            self.fail(thing)
        elif how == "pending":
            thing.status = "leased" if thing.holders else "pending"
        else:
            self.end(thing, "failed" if how == "given up" else "cancelled")

    def fail(self, thing: Thing) -> None:
        thing.failures += 1
        if thing.failures >= self.attempts:
            self.end(thing, "dead")
        else:
            thing.ready_at = self.now + self.backoff
            thing.status = "leased" if thing.holders else "pending"

    def end(self, thing: Thing, status: str) -> None:
        thing.status = status
        thing.holders.clear()
        changed = True
        while changed:
            changed = False
            for other in self.things.values():
                if other.status == "blocked":
                    self.settle_blocked(other)
                    changed = changed or other.status != "blocked"

    def settle_blocked(self, thing: Thing) -> None:
        statuses = [self.things[one].status for one in thing.depends]
        if any(status in ("failed", "dead", "cancelled") for status in statuses):
            thing.status = "cancelled"
        elif all(status == "completed" for status in statuses):
            thing.status = "pending"

    @rule(held=leases)
    def beat(self, held: tuple[int, Leased]) -> None:
        number, lease = held
        beat = Heartbeat(subtask=lease.subtask, lease_token=lease.lease_token)
        holder = self.things[number].holders.get(lease.lease_token)
        if holder is None:
            with pytest.raises(LeaseLost):
                self.book.beat(beat)
        else:
            self.book.beat(beat)
            self.things[number].holders[lease.lease_token] = (holder[0], self.now + 10)

    @rule(seconds=st.sampled_from([1.0, 4.0, 11.0]))
    def wait(self, seconds: float) -> None:
        # By steps: what ran out is requeued from when it did only if somebody looked then.
        self.now += seconds
        self.book.advance(self.now)
        late = sorted(
            (until, int(token.partition("-")[0]), number, token)
            for number, thing in self.things.items()
            for token, (_, until) in thing.holders.items()
            if until <= self.now
        )
        for _, _, number, token in late:
            if token in self.things[number].holders:
                del self.things[number].holders[token]
                self.fail(self.things[number])

    @precondition(lambda self: self.things)
    @rule(data=st.data())
    def cancel_one(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(1, len(self.things)))
        thing = self.things[number]
        order = ReportStatus(subtask=sub(number), status="cancelled")
        if thing.status in ("blocked", "pending", "leased"):
            self.book.report(order)
            self.end(thing, "cancelled")
        elif thing.status != "cancelled":
            with pytest.raises(InvalidTransition):
                self.book.report(order)

    @rule()
    def go_on_in_another_run(self) -> None:
        self.book = again(self.book)
        self.book.advance(self.now)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "book"):
            return
        assert [item.status for item in self.book.items] == [thing.status for thing in self.things.values()]
        for item, thing in zip(self.book.items, self.things.values(), strict=True):
            held = {self.book.token(fence) for fence in item.leases or ()}
            assert held == set(thing.holders)
            assert len(held) + len(thing.answered) <= self.overlap or thing.status != "leased"
        statuses = [thing.status for thing in self.things.values()]
        assert {status: statuses.count(status) for status in self.book.counts} == self.book.counts
        could = [
            thing
            for thing in self.things.values()
            if thing.status in ("pending", "leased")
            and thing.ready_at <= self.now
            and len(thing.holders) + len(thing.answered) < self.overlap
        ]
        assert self.book.available == len(could)
        ends = [until for thing in self.things.values() for _, until in thing.holders.values()]
        due = self.book.next_at()
        assert due is not None or not ends
        assert due is None or not ends or due <= min(ends)
        self.book._log.confirm([(1, self.book._log.seq)])


TestTasks = Tasks.TestCase
TestTasks.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
