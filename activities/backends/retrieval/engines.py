"""Which engine a version of an index is searched by; and what becomes of what engines keep."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from activities.retrieval_ports import Engine, IndexStore
from goatherd.contracts.retrieval import Index, Version
from goatherd.errors import ModelBroken
from goatherd.settings import Settings


class Engines(Protocol):
    """Opens engines, and removes what they have kept."""

    async def open(self, index: Index, version: Version, *, fresh: bool = False) -> Engine:
        """With what was last saved; `fresh`: with nothing.

        Raises `Unavailable`: the engine's server is away; `ModelBroken`: a library, or the address of the
        server, is missing.
        """

    async def discard(self, index: str, version: Version) -> None:
        """Removes all that is kept of a version that is no more, and that nobody has open here."""


class AllEngines:
    """Of every backend. Their libraries are imported when the first one needs them."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.data / "indexes"
        self._server = settings.elasticsearch, settings.elasticsearch_api_key

    async def open(self, index: Index, version: Version, *, fresh: bool = False) -> Engine:
        try:
            if version.spec.backend == "elasticsearch":
                from activities.backends.retrieval.elastic_engine import open_elastic

                if fresh:
                    await self._remove(index.id, version.number)
                return await open_elastic(*self._server, index, version)
            return await asyncio.to_thread(self._open_local, index, version, fresh)
        except ImportError as error:
            raise ModelBroken(
                f"this index needs {error.name or error} in its worker: pip install 'goatherd[retrieval]'"
            ) from error

    async def discard(self, index: str, version: Version) -> None:
        spec = version.spec
        if "elasticsearch" in (spec.backend, spec.lexical):
            await self._remove(index, version.number)
        await asyncio.to_thread(_forget, self._folder, index, version.number)

    async def tidy(self, store: IndexStore) -> None:
        """Removes snapshots of what went while nobody had it open. Raises `Unavailable`."""
        from activities.backends.retrieval.snapshots import kept

        for id in dict(await asyncio.to_thread(kept, self._folder)):
            await self._tidy_folder(id, await _live(store, id))

    async def tidy_index(self, store: IndexStore, id: str) -> None:
        """Removes all that is kept of one index, but of the versions that it has now. Raises
        `Unavailable`."""
        live = await _live(store, id)
        await self._tidy_folder(id, live)
        if self._server[0] is not None:
            from activities.backends.retrieval.elastic_engine import remove_gone

            await remove_gone(*self._server, id, live)

    async def _tidy_folder(self, id: str, live: Collection[int]) -> None:
        from activities.backends.retrieval.snapshots import kept

        for one, number in await asyncio.to_thread(kept, self._folder):
            if one == id and number not in live:
                await asyncio.to_thread(_forget, self._folder, id, number)

    def _open_local(self, index: Index, version: Version, fresh: bool) -> Engine:
        from activities.backends.retrieval.local_engine import open_engine

        texts = None
        if version.spec.lexical == "elasticsearch":
            from activities.backends.retrieval.elastic_texts import elastic_texts

            texts = elastic_texts(*self._server, index.id, version.number)
        return open_engine(self._folder, index, version, fresh=fresh, elastic_texts=texts)

    async def _remove(self, index: str, number: int) -> None:
        from activities.backends.retrieval.elastic_engine import remove_elastic

        await remove_elastic(*self._server, index, number)


async def _live(store: IndexStore, id: str) -> set[int]:
    index = await store.index(id)
    return set() if index is None else {one.number for one in index.versions}


def _forget(folder: Path, index: str, number: int) -> None:
    from activities.backends.retrieval.snapshots import forget

    forget(folder, index, number)
