"""What every `PayloadStore` does. The fixture `payloads` says which ones are asked."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

from goatherd.payloads import Owner, PayloadStore, key_of
from tests.activities.clock import Clock

ANN, BOB = Owner("default", "ann"), Owner("default", "bob")
HOUR = timedelta(hours=1)


def noise(size: int, seed: int = 0) -> bytes:
    """Content that does not shrink."""
    return random.Random(seed).randbytes(size)


class PayloadStoreContract:
    async def test_what_was_never_put_is_not_there(self, payloads: PayloadStore) -> None:
        assert await payloads.get(key_of(ANN, b"x")) is None

    async def test_content_of_any_size_is_read_as_it_was_put(self, payloads: PayloadStore) -> None:
        for content in (b"", b"x", b"x" * 3_000_000, noise(3_000_000), noise(17_000_000)):
            key = await payloads.put(ANN, content)
            assert key == key_of(ANN, content)
            assert await payloads.get(key) == content

    async def test_content_of_two_workflows_is_kept_for_each(
        self, payloads: PayloadStore, clock: Clock
    ) -> None:
        keys = [await payloads.put(owner, b"same") for owner in (ANN, BOB)]
        clock.pass_seconds(HOUR.total_seconds())
        assert await payloads.sweep(ANN, clock.now()) == 1
        assert [await payloads.get(key) for key in keys] == [None, b"same"]

    async def test_content_put_again_is_one_and_counts_as_stored_then(
        self, payloads: PayloadStore, clock: Clock
    ) -> None:
        key = await payloads.put(ANN, b"x")
        clock.pass_seconds(HOUR.total_seconds())
        assert await payloads.put(ANN, b"x") == key
        assert await payloads.sweep(ANN, clock.now()) == 0
        assert await payloads.get(key) == b"x"
        clock.pass_seconds(HOUR.total_seconds())
        assert await payloads.sweep(ANN, clock.now()) == 1
        assert await payloads.get(key) is None

    async def test_content_put_by_many_at_once_is_one(self, payloads: PayloadStore, clock: Clock) -> None:
        content = noise(5_000_000)
        keys = await asyncio.gather(*(payloads.put(ANN, content) for _ in range(5)))
        assert set(keys) == {key_of(ANN, content)}
        assert await payloads.get(keys[0]) == content
        clock.pass_seconds(HOUR.total_seconds())
        assert await payloads.sweep(ANN, clock.now()) == 1

    async def test_content_that_was_swept_can_be_put_again(
        self, payloads: PayloadStore, clock: Clock
    ) -> None:
        await payloads.put(ANN, b"x")
        clock.pass_seconds(HOUR.total_seconds())
        await payloads.sweep(ANN, clock.now())
        assert await payloads.get(await payloads.put(ANN, b"x")) == b"x"

    async def test_a_sweep_takes_what_is_older_only(self, payloads: PayloadStore, clock: Clock) -> None:
        old = await payloads.put(ANN, b"old")
        clock.pass_seconds(HOUR.total_seconds())
        new = await payloads.put(ANN, b"new")
        assert await payloads.sweep(ANN, clock.now()) == 1
        assert [await payloads.get(old), await payloads.get(new)] == [None, b"new"]

    async def test_old_content_is_due_and_whose_was_looked_at_longest_ago_comes_first(
        self, payloads: PayloadStore, clock: Clock
    ) -> None:
        for owner in (ANN, BOB):
            await payloads.put(owner, b"x")
            clock.pass_seconds(HOUR.total_seconds())
        assert list(await payloads.due(clock.now(), 10)) == [ANN, BOB]
        assert list(await payloads.due(clock.now(), 1)) == [ANN]
        assert list(await payloads.due(clock.now() - HOUR, 10)) == [ANN]
        await payloads.sweep(ANN, clock.now() - 3 * HOUR)
        assert list(await payloads.due(clock.now(), 10)) == [BOB, ANN]

    async def test_what_belongs_to_no_workflow_is_never_due(
        self, payloads: PayloadStore, clock: Clock
    ) -> None:
        await payloads.put(Owner("default", ""), b"x")
        clock.pass_seconds(HOUR.total_seconds())
        assert list(await payloads.due(clock.now(), 10)) == []
