"""`Engine` of one version in Elasticsearch: words, vectors, metadata, and how far it is. All workers that
search this version share it, and what one of them has taken in the others have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from elasticsearch import AsyncElasticsearch

from activities.backends.retrieval.elastic_client import IndexLost, connect, elastic_errors
from activities.backends.retrieval.elastic_schema import of_index, version_name, words_name
from activities.backends.retrieval.elastic_search import ElasticSearches
from activities.backends.retrieval.elastic_writes import ElasticWriter
from activities.retrieval_ports import Engine
from goatherd.contracts.retrieval import Entry, Index, Version
from goatherd.contracts.search import SearchAnswer, SearchQuery
from goatherd.errors import GoatherdError


class ElasticEngine(Engine):
    """Belongs to one event loop. Made by `open_elastic`."""

    shared = True

    def __init__(self, client: AsyncElasticsearch, index: Index, version: Version) -> None:
        name = version_name(index.id, version.number)
        self._client = client
        self._writer = ElasticWriter(client, name, version.spec)
        self._searches = ElasticSearches(client, name, version.spec)
        self._applied = 0
        self._lost = False

    @property
    def applied(self) -> int:
        return 0 if self._lost else self._applied

    @property
    def memory_bytes(self) -> int:
        """All of it is in the server's memory."""
        return 0

    async def begin(self) -> None:
        """Makes the index, if there is none, and looks how far it is."""
        await self._writer.create()
        self._applied = await self._writer.applied() or 0

    async def apply(self, entries: Sequence[Entry], upto: int) -> None:
        try:
            if self._lost:
                # These may be what comes after all that was there before: they are to come from the first on.
                raise IndexLost
            applied = self._still(self._applied, await self._writer.applied())
            if applied < upto:
                await self._writer.write(entries, applied, upto)
        except IndexLost:
            self._lost = True
            await self.begin()
            self._lost = False
            raise
        self._applied = max(applied, upto, self._applied)

    async def search(self, queries: Sequence[SearchQuery]) -> list[SearchAnswer | GoatherdError]:
        if not queries:
            return []
        had = self._applied
        try:
            answers, applied = await asyncio.gather(
                self._searches.answer(queries, self.applied), self._writer.applied()
            )
            # What others have taken in before this, the next search has.
            self._applied = max(self._applied, self._still(had, applied))
        except GoatherdError as error:
            self._lost = self._lost or isinstance(error, IndexLost)
            return [error for _ in queries]
        return answers

    @staticmethod
    def _still(had: int, applied: int | None) -> int:
        """How far the server is. What it had before it was asked it still has, or it has lost it."""
        if applied is None or applied < had:
            raise IndexLost
        return applied

    async def save(self) -> None:
        """The server keeps what it has. What it need not keep is removed."""
        await self._writer.purge()

    async def close(self) -> None:
        await self._client.close()


async def open_elastic(url: str | None, api_key: str | None, index: Index, version: Version) -> ElasticEngine:
    """The engine of this version, in this event loop.

    Raises:
        ModelBroken: there is no address of a server.
        Unavailable: the server is away.
    """
    client = connect(url, api_key)
    engine = ElasticEngine(client, index, version)
    try:
        await engine.begin()
    except BaseException:
        await client.close()
        raise
    return engine


async def remove_elastic(url: str | None, api_key: str | None, index: str, number: int) -> None:
    """Removes what Elasticsearch has of a version that is no more. Nothing, if it has nothing."""
    client = connect(url, api_key)
    try:
        with elastic_errors():
            await client.indices.delete(
                index=[version_name(index, number), words_name(index, number)], ignore_unavailable=True
            )
    finally:
        await client.close()


async def remove_gone(url: str | None, api_key: str | None, index: str, live: Collection[int]) -> None:
    """Removes what Elasticsearch has of an index's versions, but for those that are live."""
    client = connect(url, api_key)
    wanted = {name(index, number) for number in live for name in (version_name, words_name)}
    try:
        with elastic_errors():
            there = await client.indices.get(index=of_index(index), ignore_unavailable=True)
            if gone := sorted(set(there.body) - wanted):
                await client.indices.delete(index=gone, ignore_unavailable=True)
    finally:
        await client.close()
