"""Batches of a loaded model: what arrives while one is computed forms the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.backends.batching import REMOTE_AT_ONCE, Batches
from activities.inference_ports import Computed, Made, Runner
from goatherd.contracts.inference import Limits
from goatherd.errors import DeadlineExceeded, GoatherdError, Invalid, Unavailable
from tests.activities.model_fakes import TASK, FakeModel, GatedRunner, RemoteRunner, item


@asynccontextmanager
async def batching(runner: Runner, limits: Limits | None = None) -> AsyncIterator[Batches]:
    batches = Batches("fake", FakeModel(runner), limits or Limits())
    try:
        yield batches
    finally:
        await batches.close()


async def ask(
    batches: Batches, *texts: str, caller: str = "me", deadline: float | None = None
) -> list[Computed]:
    return await batches.compute(
        TASK, [item(text) for text in texts], callers=[caller] * len(texts), deadline=deadline
    )


async def until(check: Callable[[], bool]) -> None:
    """Threads hand over through the loop: there is no event for it."""
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@asynccontextmanager
async def busy(runner: GatedRunner, batches: Batches) -> AsyncIterator[None]:
    """While a batch of `first` is computed; afterwards the rest is."""
    first = asyncio.create_task(ask(batches, "first"))
    await runner.begun()
    try:
        yield
    finally:
        runner.gate.set()
        await first


async def test_one_alone_is_computed_at_once() -> None:
    runner = GatedRunner()
    async with batching(runner) as batches:
        assert await ask(batches, "hello") == [Computed(Made("HELLO"), 1)]


async def test_what_arrives_meanwhile_forms_the_next_batch() -> None:
    runner = GatedRunner(free=False)
    async with batching(runner) as batches:
        async with busy(runner, batches):
            others = [asyncio.create_task(ask(batches, f"text{n}")) for n in range(5)]
            await until(lambda: batches.waiting() == 5)
        got = await asyncio.gather(*others)
    assert [one.result for (one,) in got] == [Made(f"TEXT{n}") for n in range(5)]
    assert {one.batch for (one,) in got} == {5}
    assert len(runner.batches) == 2


async def test_limits_bound_a_batch() -> None:
    runner = GatedRunner(free=False)
    async with batching(runner, Limits(batch=3, batch_tokens=1_000)) as batches:
        async with busy(runner, batches):
            rest = asyncio.create_task(ask(batches, *(f"text{n}" for n in range(7))))
            await until(lambda: batches.waiting() == 7)
        await rest
    assert [len(batch) for batch in runner.batches] == [1, 3, 3, 1]


async def test_bad_input_fails_alone() -> None:
    runner = GatedRunner()
    async with batching(runner) as batches:
        good, bad, other = await ask(batches, "good", "bad", "other")
    assert good.result == Made("GOOD")
    assert other.result == Made("OTHER")
    assert isinstance(bad.result, GoatherdError)
    assert "a bad one is among them" in bad.result.message


async def test_input_that_can_not_be_weighed_fails_alone() -> None:
    runner = GatedRunner()
    async with batching(runner) as batches:
        bad, good = await ask(batches, "unweighable", "good")
        (alone,) = await ask(batches, "unweighable")
    assert isinstance(bad.result, Invalid)
    assert isinstance(alone.result, Invalid)
    assert good.result == Made("GOOD")
    assert runner.batches == [["good"]]


async def test_batch_that_takes_too_much_memory_is_halved() -> None:
    runner = GatedRunner(most=2)
    async with batching(runner) as batches:
        got = await ask(batches, *"abcdefg")
    assert [one.result for one in got] == [Made(letter) for letter in "ABCDEFG"]
    assert [len(batch) for batch in runner.batches] == [7, 3, 1, 2, 4, 2, 2]


async def test_one_that_takes_too_much_memory_fails() -> None:
    runner = GatedRunner(most=0)
    async with batching(runner) as batches:
        (got,) = await ask(batches, "a")
    assert isinstance(got.result, Unavailable)
    assert got.result.code == "out-of-memory"


async def test_wrong_number_of_results_is_an_error() -> None:
    runner = GatedRunner()
    async with batching(runner) as batches:
        got = await ask(batches, "short", "other")
    for one in got:
        assert isinstance(one.result, GoatherdError)
        assert "0 results for 2 inputs" in one.result.message


async def test_deadline_that_passed_is_not_computed() -> None:
    runner = GatedRunner()
    async with batching(runner) as batches:
        (got,) = await ask(batches, "late", deadline=time.time() - 1)
    assert isinstance(got.result, DeadlineExceeded)
    assert runner.batches == []


async def test_deadline_is_answered_while_another_batch_runs() -> None:
    runner = GatedRunner(free=False)
    async with batching(runner) as batches, busy(runner, batches):
        (got,) = await ask(batches, "late", deadline=time.time() + 0.05)
        assert isinstance(got.result, DeadlineExceeded)
        assert batches.waiting() == 0
    assert runner.batches == [["first"]]


async def test_cancelled_one_leaves_the_queue() -> None:
    runner = GatedRunner(free=False)
    async with batching(runner) as batches:
        async with busy(runner, batches):
            gone = asyncio.create_task(ask(batches, "gone", "gone too"))
            stays = asyncio.create_task(ask(batches, "stays"))
            await until(lambda: batches.waiting() == 3)
            gone.cancel()
            await asyncio.wait({gone})
            await until(lambda: batches.waiting() == 1)
        await stays
    assert runner.batches == [["first"], ["stays"]]


async def test_batch_that_nobody_waits_for_is_stopped() -> None:
    runner = GatedRunner(free=False)
    async with batching(runner) as batches:
        one = asyncio.create_task(ask(batches, "one", "other"))
        await runner.begun()
        one.cancel()
        await until(lambda: runner.cancelled == 1)
        runner.gate.set()
        assert (await ask(batches, "next"))[0].result == Made("NEXT")


async def test_batch_goes_on_for_those_who_still_wait() -> None:
    runner = GatedRunner(free=False)
    async with batching(runner) as batches:
        async with busy(runner, batches):
            gone = asyncio.create_task(ask(batches, "gone", caller="a"))
            stays = asyncio.create_task(ask(batches, "stay", caller="b"))
            await until(lambda: batches.waiting() == 2)
            runner.gate.set()
            runner.gate.clear()
            await runner.begun()
            gone.cancel()
            await asyncio.wait({gone})
        assert (await stays)[0] == Computed(Made("STAY"), 2)
    assert runner.cancelled == 0


async def test_several_batches_go_to_a_model_elsewhere() -> None:
    runner = RemoteRunner()
    async with batching(runner) as batches:
        asked = []
        for n in range(REMOTE_AT_ONCE):
            asked.append(asyncio.create_task(ask(batches, f"text{n}")))
            await runner.began.acquire()
        more = [asyncio.create_task(ask(batches, f"more{n}")) for n in range(4)]
        await until(lambda: batches.waiting() == 4)
        runner.gate.set()
        await asyncio.gather(*asked, *more)
    assert runner.most_under_way == REMOTE_AT_ONCE
    assert len(runner.batches[-1]) == 4


async def test_model_elsewhere_is_told_to_stop() -> None:
    runner = RemoteRunner()
    async with batching(runner) as batches:
        one = asyncio.create_task(ask(batches, "text"))
        await runner.began.acquire()
        one.cancel()
        await until(lambda: runner.cancelled == 1)


async def test_closed_batches_answer_those_who_wait() -> None:
    runner = GatedRunner(free=False)
    batches = Batches("fake", FakeModel(runner), Limits())
    first = asyncio.create_task(ask(batches, "first"))
    await runner.begun()
    second = asyncio.create_task(ask(batches, "second"))
    await until(lambda: batches.waiting() == 1)
    await batches.close()
    for asked in (first, second):
        assert isinstance((await asked)[0].result, Unavailable)
    with pytest.raises(Unavailable):
        await ask(batches, "third")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["a", "bb", "c" * 40, "bad"]), min_size=1, max_size=6), max_size=20),
    st.integers(1, 5),
)
def test_each_gets_exactly_its_result(orders: list[list[str]], most: int) -> None:
    async def all_of_them() -> tuple[list[list[Computed]], GatedRunner]:
        runner = GatedRunner()
        async with batching(runner, Limits(batch=most, batch_tokens=100)) as batches:
            asked = [ask(batches, *texts, caller=str(n % 3)) for n, texts in enumerate(orders)]
            return await asyncio.gather(*asked), runner

    got, runner = asyncio.run(all_of_them())
    for texts, computed in zip(orders, got, strict=True):
        for text, one in zip(texts, computed, strict=True):
            if text == "bad":
                assert isinstance(one.result, GoatherdError)
            else:
                assert one.result == Made(text.upper())
    assert all(len(batch) <= most for batch in runner.batches)
