"""Lists of documents by id, which is by when they were made.

The embedded server reads all that a range holds, whatever the limit: so the newest, which most ask for, are
found by spans of time that widen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from pymongo import ASCENDING, DESCENDING
from pymongo.asynchronous.collection import AsyncCollection

from activities.backends.projection import Document
from activities.ports import Page
from goatherd.contracts.ids import Kind, make_id

_FIRST_SPAN_MS = 1_000
_SPAN_GROWS = 16
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_MILLIS_DIGITS = 10


def owned(owner: str, status: str | None, label: str | None) -> Document:
    """What chooses an owner's, and of these those with a status, or a label."""
    where: Document = {"owner": owner}
    if status is not None:
        where["status"] = status
    if label is not None:
        where["labels"] = label
    return where


async def by_id(
    collection: AsyncCollection[Document], where: Document, page: Page, kind: Kind
) -> Sequence[Document]:
    """The page of those that `where` chooses. `kind`: of their ids."""
    if page.descending and page.before is None:
        return await _newest(collection, where, page, kind)
    bounds, direction, turn = between(page)
    if bounds:
        where = {**where, "_id": bounds}
    found = await collection.find(where).sort("_id", direction).limit(page.limit).to_list()
    return found[::-1] if turn else found


async def _newest(
    collection: AsyncCollection[Document], where: Document, page: Page, kind: Kind
) -> list[Document]:
    """From the newest, or the page's position, backwards, by spans of time that widen."""
    found: list[Document] = []
    bounds: Document = {} if page.after is None else {"$lt": page.after}
    end = time.time_ns() // 1_000_000 if page.after is None else _millis(str(page.after))
    span = _FIRST_SPAN_MS
    while True:
        end -= span
        if end > 0:
            bounds["$gte"] = make_id(kind, millis=end, entropy=0)
        here = {**where, "_id": bounds} if bounds else where
        cursor = collection.find(here).sort("_id", DESCENDING).limit(page.limit - len(found))
        found += await cursor.to_list()
        if len(found) >= page.limit or end <= 0:
            return found
        bounds = {"$lt": bounds["$gte"]}
        span *= _SPAN_GROWS


def between(page: Page) -> tuple[Document, int, bool]:
    """The bounds of a page on a field, the direction to read in, and whether to turn what was read."""
    first, second = ("$lt", "$gt") if page.descending else ("$gt", "$lt")
    bounds = {
        name: bound for name, bound in ((first, page.after), (second, page.before)) if bound is not None
    }
    turn = page.before is not None and page.after is None
    return bounds, DESCENDING if page.descending != turn else ASCENDING, turn


def _millis(text: str) -> int:
    """When an id was made, in Unix milliseconds; the present for what is no id."""
    digits = text.partition("_")[2][:_MILLIS_DIGITS]
    try:
        return sum(_DIGITS.index(digit) << 5 * place for place, digit in enumerate(reversed(digits)))
    except ValueError:
        return time.time_ns() // 1_000_000
