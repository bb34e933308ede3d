"""Text on its way from the models of all workers, brought to the calls of this process that wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

from activities.model_ports import PieceFeed
from activities.ports import Resync
from api.listening import Listener
from api.subscription import Limits
from goatherd.contracts.inference_work import Piece

_DEFAULTS = Limits()


class PieceReaders(Listener[Piece]):
    """One a process. What it misses, its readers have from the answer at the end."""

    def __init__(self, feed: PieceFeed, limits: Limits = _DEFAULTS) -> None:
        super().__init__(limits)
        self._feed = feed
        self._reading: dict[str, asyncio.Queue[Piece]] = {}

    def _watch(self) -> AbstractAsyncContextManager[AsyncIterator[Piece | Resync]]:
        return self._feed.watch()

    def _hand_out(self, item: Piece) -> None:
        if (queue := self._reading.get(item.stream)) is not None:
            # Not bounded: at most what one reply has, and its reader ends with the request.
            queue.put_nowait(item)

    @contextmanager
    def reading(self, stream: str) -> Iterator[asyncio.Queue[Piece]]:
        """The pieces of a stream that come while the context lasts."""
        queue = self._reading[stream] = asyncio.Queue()
        try:
            yield queue
        finally:
            del self._reading[stream]
