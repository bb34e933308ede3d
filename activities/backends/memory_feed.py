"""Who watches a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Watchers(set["asyncio.Queue[Item | None]"], Generic[Item]):
    """The queues of those who watch. Each is shown all that comes while it watches."""

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[Item]]:
        items: asyncio.Queue[Item | None] = asyncio.Queue()
        self.add(items)
        try:
            yield _until_none(items)
        finally:
            self.discard(items)
            while not items.empty():
                items.get_nowait()
            items.put_nowait(None)

    def show(self, item: Item) -> None:
        for items in self:
            items.put_nowait(item)


async def _until_none(items: asyncio.Queue[Item | None]) -> AsyncGenerator[Item]:
    while (item := await items.get()) is not None:
        yield item
