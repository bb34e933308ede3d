"""Where registered models are kept, and how text reaches its readers while a model makes it, as protocols."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from activities.ports import Resync
from goatherd.contracts.inference_work import ModelEntry, Piece


class ModelCatalog(Protocol):
    """The models that were registered by request, for all processes. Those of the settings are not in it."""

    async def prepare(self) -> None:
        """Makes collections and indexes. Idempotent."""

    async def add(self, entry: ModelEntry) -> bool:
        """Keeps it. False, and nothing kept, if the name is taken."""

    async def remove(self, name: str) -> bool:
        """False if there is none of that name."""

    async def all(self) -> list[ModelEntry]:
        """By name."""


class PieceFeed(Protocol):
    """Pieces of generated text on their way to whoever waits for them. Kept for minutes only: who misses one
    reads the whole at the end, with the answer."""

    async def prepare(self) -> None:
        """Makes collections and indexes. Idempotent."""

    async def publish(self, pieces: Sequence[Piece]) -> None: ...

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[Piece | Resync]]:
        """All that is published from now on, by any process."""
