"""Who watches a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Watchers(Generic[Item]):
    """Each is shown all that comes while it watches."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Item | None]] = set()

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[Item]]:
        items: asyncio.Queue[Item | None] = asyncio.Queue()
        self._queues.add(items)
        try:
            yield _until_none(items)
        finally:
            self._queues.discard(items)
            while not items.empty():
                items.get_nowait()
            items.put_nowait(None)

    def show(self, item: Item) -> None:
        for items in self._queues:
            items.put_nowait(item)


async def _until_none(items: asyncio.Queue[Item | None]) -> AsyncGenerator[Item]:
    while (item := await items.get()) is not None:
        yield item
