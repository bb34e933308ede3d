"""Calls of one model that wait at the same time go together, and each has its own outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.inference_groups import MOST_BYTES, MOST_FILE_BYTES, Group
from goatherd.contracts.inference_work import InferAnswer, Outcome, Problem, WorkItem
from goatherd.errors import TooManyRequests, Unavailable

LATER = time.time() + 3_600


class Worker:
    """Answers when a test says so."""

    def __init__(self) -> None:
        self.orders: list[list[str]] = []
        self.cancelled: list[list[str]] = []
        self.arrived = asyncio.Condition()
        self._answers: list[asyncio.Future[None]] = []

    async def send(self, items: Sequence[WorkItem], deadline: float) -> InferAnswer:
        del deadline
        order = [item.inputs for item in items]
        self.orders.append(order)
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers.append(answered)
        async with self.arrived:
            self.arrived.notify_all()
        try:
            await answered
        except asyncio.CancelledError:
            self.cancelled.append(order)
            raise
        return InferAnswer(outcomes=[outcome(text) for text in order])

    def answer(self, n: int) -> None:
        self._answers[n].set_result(None)

    def fail(self, n: int, error: Exception) -> None:
        self._answers[n].set_exception(error)

    async def until(self, orders: int) -> None:
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.orders) >= orders)


def outcome(text: str) -> Outcome:
    if text.startswith("bad"):
        return Outcome(problem=Problem(code="invalid", message=text))
    return Outcome(output=text.upper())


def group_of(worker: Worker, *, most: int = 8, flights: int = 2, queue: int = 100) -> Group:
    return Group(worker.send, most=most, flights=flights, queue=queue)


def ask(group: Group, text: str, caller: str = "ann", size: int = 1) -> asyncio.Task[Outcome]:
    return asyncio.create_task(group.submit(WorkItem(inputs=text, caller=caller), size, LATER))


async def settle() -> None:
    """Lets all tasks that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def worker() -> Worker:
    return Worker()


async def test_the_first_call_goes_at_once_and_alone(worker: Worker) -> None:
    asked = ask(group_of(worker), "a")
    await worker.until(1)
    worker.answer(0)
    assert (await asked).output == "A"
    assert worker.orders == [["a"]]


async def test_what_comes_while_an_order_is_under_way_goes_together(worker: Worker) -> None:
    group = group_of(worker, flights=1)
    first = ask(group, "a")
    await worker.until(1)
    others = [ask(group, text) for text in "bcd"]
    await settle()
    worker.answer(0)
    await worker.until(2)
    worker.answer(1)
    outcomes = await asyncio.gather(first, *others)
    assert [one.output for one in outcomes] == ["A", "B", "C", "D"]
    assert worker.orders == [["a"], ["b", "c", "d"]]


async def test_a_second_order_goes_when_as_much_waits_as_the_first_carries(worker: Worker) -> None:
    group = group_of(worker, flights=2)
    asked = [ask(group, "a")]
    await worker.until(1)
    asked.append(ask(group, "b"))
    await worker.until(2)
    asked += [ask(group, text) for text in "cd"]
    await settle()
    assert worker.orders == [["a"], ["b"]]
    worker.answer(0)
    await worker.until(3)
    assert worker.orders[2] == ["c", "d"]
    worker.answer(1)
    worker.answer(2)
    await asyncio.gather(*asked)


async def test_who_is_late_does_not_wait_for_a_long_order_of_another(worker: Worker) -> None:
    group = group_of(worker, flights=2)
    asked = [ask(group, "x", "ann")]
    await worker.until(1)
    asked += [ask(group, f"a{n}", "ann") for n in range(16)]
    await worker.until(2)
    # All that may be under way is another's.
    small = ask(group, "small", "bob")
    await worker.until(3)
    assert worker.orders[2] == ["small"]
    worker.answer(2)
    assert (await small).output == "SMALL"
    for n in (0, 1):
        worker.answer(n)
    for n in (3, 4):
        await worker.until(n + 1)
        worker.answer(n)
    await asyncio.gather(*asked)


async def test_who_is_late_goes_although_less_waits_than_is_under_way(worker: Worker) -> None:
    group = group_of(worker, flights=2)
    asked = [ask(group, text) for text in "abcd"]
    await worker.until(2)
    for n in (0, 1):
        worker.answer(n)
    await worker.until(3)
    asked.append(ask(group, "e"))
    await settle()
    assert worker.orders == [["a"], ["b"], ["c", "d"]]
    await worker.until(4)
    assert worker.orders[3] == ["e"]
    for n in (2, 3):
        worker.answer(n)
    await asyncio.gather(*asked)


async def test_files_by_claim_count_for_an_order(worker: Worker) -> None:
    group = group_of(worker, flights=1)
    sizes = [MOST_FILE_BYTES // 2, MOST_FILE_BYTES // 2, MOST_FILE_BYTES + 1, 1]
    asked = [ask(group, "a")]
    await worker.until(1)
    for text, files in zip("bcde", sizes, strict=True):
        item = WorkItem(inputs=text, caller="ann")
        asked.append(asyncio.create_task(group.submit(item, 1, LATER, files=files)))
    await settle()
    for n in range(4):
        await worker.until(n + 1)
        worker.answer(n)
    await asyncio.gather(*asked)
    assert worker.orders == [["a"], ["b", "c"], ["d"], ["e"]]


async def test_an_order_has_its_bounds(worker: Worker) -> None:
    group = group_of(worker, most=3, flights=1)
    asked = [ask(group, "a")]
    await worker.until(1)
    asked += [ask(group, text) for text in "bcdef"]
    asked += [ask(group, "g", size=MOST_BYTES), ask(group, "h", size=MOST_BYTES + 1)]
    await settle()
    for n in range(5):
        await worker.until(n + 1)
        worker.answer(n)
    await asyncio.gather(*asked)
    assert worker.orders == [["a"], ["b", "c", "d"], ["e", "f"], ["g"], ["h"]]


async def test_callers_take_turns(worker: Worker) -> None:
    group = group_of(worker, most=4, flights=1)
    asked = [ask(group, "x")]
    await worker.until(1)
    asked += [ask(group, f"a{n}", "ann") for n in range(6)]
    asked += [ask(group, "b0", "bob"), ask(group, "c0", "cat")]
    await settle()
    worker.answer(0)
    await worker.until(2)
    assert worker.orders[1] == ["a0", "b0", "c0", "a1"]
    worker.answer(1)
    await worker.until(3)
    worker.answer(2)
    await asyncio.gather(*asked)


async def test_one_bad_input_is_its_own_callers_alone(worker: Worker) -> None:
    group = group_of(worker, flights=1)
    first = ask(group, "a")
    await worker.until(1)
    bad, good = ask(group, "bad"), ask(group, "good")
    await settle()
    worker.answer(0)
    await worker.until(2)
    worker.answer(1)
    assert (await bad).problem is not None
    assert (await good).output == "GOOD"
    await first


async def test_an_error_of_the_order_is_everybodys_and_the_next_one_goes(worker: Worker) -> None:
    group = group_of(worker, flights=1)
    first = ask(group, "a")
    await worker.until(1)
    worker.fail(0, Unavailable("gone"))
    with pytest.raises(Unavailable):
        await first
    second = ask(group, "b")
    await worker.until(2)
    worker.answer(1)
    assert (await second).output == "B"


async def test_who_gives_up_before_it_went_is_not_sent(worker: Worker) -> None:
    group = group_of(worker, flights=1)
    first = ask(group, "a")
    await worker.until(1)
    gone, stays = ask(group, "gone"), ask(group, "stays")
    await settle()
    gone.cancel()
    await settle()
    worker.answer(0)
    await worker.until(2)
    worker.answer(1)
    await asyncio.gather(first, stays)
    assert worker.orders == [["a"], ["stays"]]


async def test_an_order_is_cancelled_when_the_last_who_waits_gives_up(worker: Worker) -> None:
    group = group_of(worker, flights=1)
    first = ask(group, "a")
    await worker.until(1)
    both = [ask(group, "b"), ask(group, "c")]
    await settle()
    worker.answer(0)
    await first
    await worker.until(2)
    both[0].cancel()
    await settle()
    assert worker.cancelled == []
    both[1].cancel()
    await settle()
    assert worker.cancelled == [["b", "c"]]
    assert group.idle


async def test_after_an_order_of_several_the_next_calls_are_awaited_for_a_moment(worker: Worker) -> None:
    group = group_of(worker, flights=1)
    asked = [ask(group, "a")]
    await worker.until(1)
    asked += [ask(group, "b"), ask(group, "c")]
    await settle()
    worker.answer(0)
    await worker.until(2)
    await asyncio.wait(asked, timeout=0.05)  # The order takes a while: its callers' next calls may, too.
    worker.answer(1)
    await asyncio.gather(*asked)
    again = [ask(group, "d")]
    await settle()
    again.append(ask(group, "e"))
    await worker.until(3)
    worker.answer(2)
    await asyncio.gather(*again)
    assert worker.orders[2] == ["d", "e"]


async def test_who_comes_when_as_many_wait_as_may_is_refused(worker: Worker) -> None:
    group = group_of(worker, flights=1, queue=2)
    asked = [ask(group, "a")]
    await worker.until(1)
    asked += [ask(group, "b"), ask(group, "c")]
    await settle()
    with pytest.raises(TooManyRequests):
        group.admit()
    worker.answer(0)
    await worker.until(2)
    group.admit()
    worker.answer(1)
    await asyncio.gather(*asked)


@given(
    calls=st.lists(
        st.tuples(st.sampled_from(["ann", "bob", "cat"]), st.integers(1, 100_000)), min_size=1, max_size=40
    ),
    most=st.integers(1, 6),
    flights=st.integers(1, 3),
)
@settings(deadline=None, max_examples=60)
async def test_none_is_lost_and_none_is_sent_twice(
    calls: list[tuple[str, int]], most: int, flights: int
) -> None:
    sent: list[str] = []
    sizes = {f"{n}": size for n, (_, size) in enumerate(calls)}
    running = 0

    async def send(items: Sequence[WorkItem], deadline: float) -> InferAnswer:
        nonlocal running
        running += 1
        assert running <= flights
        assert len(items) <= most
        assert len(items) == 1 or sum(sizes[item.inputs] for item in items) <= MOST_BYTES
        sent.extend(item.inputs for item in items)
        await settle()
        running -= 1
        return InferAnswer(outcomes=[outcome(item.inputs) for item in items])

    group = Group(send, most=most, flights=flights, queue=100)
    asked = [ask(group, f"{n}", caller, size) for n, (caller, size) in enumerate(calls)]
    outcomes = await asyncio.gather(*asked)
    assert [one.output for one in outcomes] == list(sizes)
    assert sorted(sent) == sorted(sizes)
    for caller in ("ann", "bob", "cat"):
        own = [f"{n}" for n, (whose, _) in enumerate(calls) if whose == caller]
        assert [text for text in sent if text in own] == own
