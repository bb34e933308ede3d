"""Indexes by what people call them. Requests that ask for the same one at the same moment share one read,
which begins after each of them has asked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from api.index_specs import is_index_id
from goatherd.coalesce import Coalescer
from goatherd.contracts.retrieval import INDEX_NAME, Index
from goatherd.errors import GoatherdError
from goatherd.security.access import Principal, require

if TYPE_CHECKING:
    from activities.retrieval_ports import IndexStore

_NAME = re.compile(INDEX_NAME)


class IndexLookup:
    """Of one process. Belongs to one event loop."""

    def __init__(self, store: IndexStore) -> None:
        self._store = store
        self._reads: Coalescer[tuple[str, str], Index | None] = Coalescer(self._read)

    async def find(self, principal: Principal, called: str) -> Index:
        """By its name or its id. Raises `NotFound`."""
        # What can't be a name is nobody's, and nobody need be asked.
        found = await self._reads.submit((principal.id, called)) if _NAME.fullmatch(called) else None
        return require(principal, found, f"index {called[:200]!r}")

    async def _read(self, wanted: Sequence[tuple[str, str]]) -> Sequence[Index | BaseException | None]:
        asked = dict.fromkeys(wanted)
        found = await asyncio.gather(*(self._one(*one) for one in asked))
        by_name = dict(zip(asked, found, strict=True))
        return [by_name[one] for one in wanted]

    async def _one(self, owner: str, called: str) -> Index | BaseException | None:
        try:
            return await (
                self._store.index(called) if is_index_id(called) else self._store.named(owner, called)
            )
        except GoatherdError as error:
            return error
