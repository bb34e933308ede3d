"""Waiting until what was written can be found, or has failed: by looking, seldom, many at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from goatherd.coalesce import Coalescer
from goatherd.contracts.retrieval import Document, Index
from goatherd.errors import GoatherdError, NotFound

if TYPE_CHECKING:
    from activities.retrieval_ports import IndexStore

_FIRST_S, _LAST_S, _GROWTH = 0.02, 0.5, 1.5
"""Between looks: at first, at last, and how it grows."""

Value = TypeVar("Value")


class IndexWaiting:
    """Of one process. Belongs to one event loop."""

    def __init__(self, store: IndexStore) -> None:
        self._store = store
        self._reads: Coalescer[tuple[str, str], Document | None] = Coalescer(self._read)
        self._looks: Coalescer[str, Index | None] = Coalescer(self._look)

    async def for_document(self, index: Index, written: Document, wait_s: float) -> Document:
        """The document as it is when this revision of it, or a later one, can be found or has failed; or as
        it was written, if the time is over or the index is paused.

        Raises `NotFound` if the document, or its index, was removed meanwhile.
        """

        async def look(now: Index) -> Document | None:
            found = await self._reads.submit((index.id, written.id))
            if found is None:
                raise NotFound(f"The document {written.id!r} was removed while it was waited for.")
            if found.rev >= written.rev and _settled(found, now):
                return found
            return None

        return await self._until(index, wait_s, look) or written

    async def for_all(self, index: Index, rev: int, wait_s: float) -> bool:
        """Whether all that was written up to this revision could be found, or had failed, by then."""

        async def look(now: Index) -> bool | None:
            first = await self._store.todo(index.id, now.serving.number, 1)
            if not first:
                return True
            found = await self._reads.submit((index.id, first[0]))
            # What was written first is done first.
            return True if found is not None and found.rev > rev else None

        return await self._until(index, wait_s, look) or False

    async def _until(
        self, index: Index, wait_s: float, look: Callable[[Index], Awaitable[Value | None]]
    ) -> Value | None:
        loop = asyncio.get_running_loop()
        deadline, delay = loop.time() + wait_s, _FIRST_S
        while True:
            now = await self._looks.submit(index.id)
            if now is None:
                raise NotFound(f"The index {index.name!r} was deleted meanwhile.")
            if (value := await look(now)) is not None or now.paused:
                return value
            left = deadline - loop.time()
            if left <= 0:
                return None
            await asyncio.sleep(min(delay, left))
            delay = min(delay * _GROWTH, _LAST_S)

    async def _look(self, wanted: Sequence[str]) -> Sequence[Index | BaseException | None]:
        found: dict[str, Index | BaseException | None] = {}
        for id in dict.fromkeys(wanted):
            try:
                found[id] = await self._store.index(id)
            except GoatherdError as error:
                found[id] = error
        return [found[id] for id in wanted]

    async def _read(self, wanted: Sequence[tuple[str, str]]) -> Sequence[Document | BaseException | None]:
        docs: defaultdict[str, list[str]] = defaultdict(list)
        for index, doc in dict.fromkeys(wanted):
            docs[index].append(doc)
        found: dict[tuple[str, str], Document] = {}
        failed: dict[str, GoatherdError] = {}
        for index, ids in docs.items():
            try:
                found |= {(index, one.id): one for one in await self._store.read(index, ids)}
            except GoatherdError as error:
                failed[index] = error
        return [failed.get(one[0]) or found.get(one) for one in wanted]


def _settled(document: Document, now: Index) -> bool:
    return document.error is not None or now.serving.number not in document.todo
