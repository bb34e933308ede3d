"""How documents of an index stand with its versions: the rules that every `IndexStore` shares."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from pydantic_core import to_json

from activities.retrieval_ports import MOST_PUT_BYTES, MOST_PUT_DOCUMENTS
from goatherd.contracts.inference_work import Problem
from goatherd.contracts.retrieval import DocumentIn, Index, Version
from goatherd.errors import Invalid

CANCELLED = Problem(code="cancelled", message="it was cancelled before it was taken in")


def to_do(live: Sequence[int], done: Collection[int], failed: Collection[int]) -> list[int]:
    """The versions that have not taken a document in, nor failed to. A version that began later than the
    document was written is among them with nothing written down for it."""
    return [version for version in live if version not in done and version not in failed]


def error_of(live: Sequence[int], errors: Mapping[int, Problem]) -> Problem | None:
    """What is said to be wrong with a document: by the newest version that could not take it in."""
    return next((errors[version] for version in reversed(live) if version in errors), None)


def written_at(now: datetime, since: datetime | None) -> datetime:
    """`updated_at` of a document that is written now, and was made `since` then. Not the same if it was there
    before: times are kept in milliseconds, and one may be written twice within one."""
    return now if since is None else max(now, since + timedelta(milliseconds=1))


def numbers(index: Index) -> list[int]:
    """Of the versions, the newest last."""
    return [version.number for version in index.versions]


def numbered(version: Version, last: int) -> Version:
    """With a number that no version of its index had: `last` is the greatest of these."""
    return version if version.number > last else version.model_copy(update={"number": last + 1})


One = TypeVar("One")


def last_of_each(named: Sequence[tuple[str, One]]) -> dict[str, One]:
    """Of those with the same name only the last one, in its place."""
    found: dict[str, One] = {}
    for name, one in named:
        found.pop(name, None)
        found[name] = one
    return found


def check_bounds(documents: Sequence[DocumentIn]) -> None:
    """Raises `Invalid` for more than one `put` may bring."""
    if len(documents) > MOST_PUT_DOCUMENTS:
        raise Invalid(f"these are more than {MOST_PUT_DOCUMENTS:,} documents at once")
    if sum(map(_size, documents)) > MOST_PUT_BYTES:
        raise Invalid(f"these documents are more than {MOST_PUT_BYTES >> 20} MB at once")


def _size(document: DocumentIn) -> int:
    metadata = to_json(document.metadata) if document.metadata else b""
    text = document.text.encode(errors="surrogatepass")
    return len(text) + len(document.vector or b"") + len(metadata)
