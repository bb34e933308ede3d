"""Where a read of an index's documents in order of ids may stop: ids that part them in small lots.

The embedded server reads all that a range holds, whatever the limit. So a page is read by ranges that are not
much larger than it is. Fences are known to this process only, from a sample of revisions, and grow old: how
many reads a page takes depends on them, what is in it does not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from activities.backends.mongo_index_documents import IndexDocuments
from activities.backends.mongo_index_forms import Fields

_LOT = 128
_MOST_FENCES = 1_024
_MOST_PROBES = 4_096
_MOST_INDEXES = 64
_SMALL = 512
"""Documents that are read at once as quickly."""
_GROWS = 2


@dataclass(frozen=True, slots=True)
class Fences:
    """`ids`: in order. `lot`: about how many documents there are from one to the next. `until`: the index's
    `rev` from which on these are too old."""

    ids: list[str] = field(default_factory=list)
    lot: int = _LOT
    until: int = 0

    def ranges(self, bounds: Fields, limit: int, *, backwards: bool) -> Iterator[Fields]:
        """What is within the bounds (`$gt`, `$lt`) of ids, in parts that widen, in this order: a page is in
        the first one or two of them."""
        low, high = bounds.get("$gt"), bounds.get("$lt")
        begin = 0 if low is None else bisect_right(self.ids, low)
        end = len(self.ids) if high is None else bisect_left(self.ids, high)
        step = 1 + limit // self.lot
        rest = dict(bounds)
        while end - begin >= step:
            if backwards:
                end -= step
                fence = self.ids[end]
                yield {**rest, "$gt": fence}
                rest.pop("$lt", None)
                rest["$lte"] = fence
            else:
                begin += step
                fence = self.ids[begin - 1]
                yield {name: bound for name, bound in rest.items() if name == "$gt"} | {"$lte": fence}
                rest["$gt"] = fence
            step *= _GROWS
        yield rest


class IndexFences:
    """Of the indexes that pages were asked of lately."""

    def __init__(self, documents: IndexDocuments) -> None:
        self._documents = documents
        self._known: dict[str, Fences] = {}

    async def of(self, index: str, rev: int, documents: int) -> Fences:
        """`rev`, `documents`: how the index stands."""
        if documents <= _SMALL:
            self._known.pop(index, None)
            return Fences()
        known = self._known.pop(index, None)
        if known is None or rev >= known.until:
            known = await self._sample(index, rev, documents)
        self._known[index] = known
        if len(self._known) > _MOST_INDEXES:
            del self._known[next(iter(self._known))]
        return known

    async def _sample(self, index: str, rev: int, documents: int) -> Fences:
        wanted = min(documents // _LOT, _MOST_FENCES)
        # Of the revisions that there were, only some are some document's present one.
        probes = min(wanted * rev // documents, _MOST_PROBES)
        # At random: ids may have come in an order that even steps would keep to.
        revs = Random(rev).sample(range(1, rev + 1), probes)
        ids = await self._documents.at(index, sorted(revs))
        lot = max(documents // (len(ids) + 1), 1)
        return Fences(sorted(ids), lot, rev + documents // 4)
