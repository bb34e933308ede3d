"""Batches: what waits goes together, as far as it is not too much."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from goatherd.coalesce import Coalescer


class Scales:
    """Keeps the batches that ran. The first one takes until all others wait."""

    def __init__(self, *, max_weight: int, max_batch: int = 256) -> None:
        self.batches: list[list[int]] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.calls: Coalescer[int, int] = Coalescer(
            self._run, weigh=lambda item: item, max_weight=max_weight, max_batch=max_batch
        )

    async def _run(self, items: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(items))
        self.begun.set()
        await self.gate.wait()
        return items

    async def weigh(self, *items: int) -> list[list[int]]:
        first = asyncio.create_task(self.calls.submit(0))
        await self.begun.wait()
        others = [asyncio.create_task(self.calls.submit(item)) for item in items]
        await asyncio.sleep(0)
        self.gate.set()
        assert await asyncio.gather(first, *others) == [0, *items]
        return self.batches[1:]


async def test_a_batch_weighs_no_more_than_it_may() -> None:
    assert await Scales(max_weight=10).weigh(4, 6, 1, 9, 2) == [[4, 6], [1, 9], [2]]


async def test_what_is_too_heavy_goes_alone() -> None:
    assert await Scales(max_weight=10).weigh(1, 50, 1, 1) == [[1], [50], [1, 1]]


async def test_a_batch_of_light_items_is_no_longer_than_it_may_be() -> None:
    assert await Scales(max_weight=10, max_batch=2).weigh(1, 1, 1) == [[1, 1], [1]]
