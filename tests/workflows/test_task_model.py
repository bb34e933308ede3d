"""The rules of tasks against a model of them that is as plain as can be."""

from __future__ import annotations

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

from goatherd.contracts.task import Backoff
from goatherd.contracts.task_messages import Heartbeat, Leased, Place, ReportStatus
from goatherd.errors import InvalidTransition, LeaseLost
from tests.workflows.task_books import START, WORKERS, add, again, make, report, sub, take


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
