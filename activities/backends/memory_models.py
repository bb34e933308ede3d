"""Registered models, and text on its way, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from activities.backends.memory_feed import Watchers
from activities.ports import Resync
from goatherd.contracts.inference_work import ModelEntry, Piece


class MemoryModelCatalog:
    """`ModelCatalog` in memory."""

    def __init__(self) -> None:
        self._entries: dict[str, ModelEntry] = {}

    async def prepare(self) -> None:
        """Nothing to do."""

    async def add(self, entry: ModelEntry) -> bool:
        return self._entries.setdefault(entry.name, entry) is entry

    async def remove(self, name: str) -> bool:
        return self._entries.pop(name, None) is not None

    async def all(self) -> list[ModelEntry]:
        return [self._entries[name] for name in sorted(self._entries)]


class MemoryPieceFeed:
    """`PieceFeed` in memory."""

    def __init__(self) -> None:
        self._watchers: Watchers[Piece | Resync] = Watchers()

    async def prepare(self) -> None:
        """Nothing to do."""

    async def publish(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            self._watchers.show(piece)

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[Piece | Resync]]:
        return self._watchers.watch()
