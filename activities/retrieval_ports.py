"""Where indexes and their documents are kept, and what searches them, as protocols.

Every backend passes the contract test of its port (tests/activities/retrieval/contract_*.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from activities.ports import Page
from goatherd.contracts.filters import Filter
from goatherd.contracts.inference_work import Problem
from goatherd.contracts.model import Json
from goatherd.contracts.retrieval import (
    Counts,
    Document,
    DocumentIn,
    Entry,
    Index,
    SearchAnswer,
    SearchQuery,
    Version,
)
from goatherd.errors import GoatherdError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Keys = NDArray[np.int64]
    Vectors = NDArray[np.float32]
else:
    # Whoever only keeps indexes needs no numpy.
    Keys = Vectors = Any

MOST_PUT_DOCUMENTS = 1_000
MOST_PUT_BYTES = 8 << 20
"""Of one `put`, texts, vectors and metadata together: what is uncommitted lies in the store's cache."""


class IndexStore(Protocol):
    """The truth: indexes, their documents, and the entries that searches are made of.

    Every method raises `Unavailable` while the store is away.
    """

    async def prepare(self) -> None:
        """Makes collections and indexes. Idempotent."""

    # -- indexes

    async def create(self, index: Index) -> Index:
        """Keeps a new index. If its owner has one of that name, that one is given back, and nothing
        changed."""

    async def index(self, id: str) -> Index | None:
        """By id; None if there is none, or it is being deleted."""

    async def named(self, owner: str, name: str) -> Index | None: ...

    async def indexes(self, owner: str, page: Page) -> list[Index]:
        """The owner's, by name; positions are names."""

    async def set_paused(self, id: str, paused: bool) -> Index | None: ...

    async def set_metadata(self, id: str, metadata: Json) -> Index | None: ...

    async def drop(self, id: str) -> bool:
        """The index is gone for everybody at once, and its name is free. False if it was not there. What it
        had is removed by `sweep`."""

    async def sweep(self, id: str, most: int = 1_000) -> bool:
        """Removes some of what a dropped index, or versions that are no more, have left. True if there is
        more."""

    async def unfinished(self) -> list[tuple[str, str]]:
        """Ids and owners of indexes that ingestion has something to do for: documents, a version that is
        being built, something to sweep. Not of paused ones, nor of those where all that keeps a version from
        serving is documents that failed. Of a dropped one the owner is empty."""

    # -- documents

    async def put(self, index: str, documents: Sequence[DocumentIn]) -> list[Document] | None:
        """Keeps documents, each in place of the one of its id, in this order, and gives each its next `rev`
        and all versions to do. Together or not at all. Two of one id in a call: the later one counts, and is
        given twice. Its `created_at` and `updated_at` are the same if, and only if, it was not there. None:
        there is no such index.

        Raises:
            Invalid: these are more than `MOST_PUT_DOCUMENTS`, or than `MOST_PUT_BYTES`.
        """

    async def remove(self, index: str, docs: Sequence[str]) -> list[str] | None:
        """Removes documents: searches that begin after this do not find them. Their entries become `deleted`
        ones with new numbers, in every version, in the same transaction. Gives the ids that were there."""

    async def document(self, index: str, doc: str) -> Document | None: ...

    async def documents(self, index: str, page: Page, *, failed: bool | None = None) -> list[Document]:
        """By id; positions are ids. `failed`: only those that have (not) an error."""

    async def counts(self, index: str) -> Counts:
        """`chunks`: of the version that serves. Costs the same however much the index has."""

    # -- taking in

    async def todo(self, index: str, version: int, limit: int) -> list[str]:
        """Ids of documents that this version has not taken in; none that failed in their present revision.
        Those that were written first come first."""

    async def read(self, index: str, docs: Sequence[str]) -> list[Document]:
        """Those of them that are there."""

    async def take_in(self, index: str, version: int, entries: Sequence[Entry]) -> int:
        """Keeps what a version now has of documents, numbered by the next `seq`s, in this order; these
        documents are not to do any more, by this version. In one transaction, or several if they are many, so
        that nobody ever sees a number whose predecessors are not there. What is of another revision than the
        document has now (or of none: it was removed), or of one that failed in this version (or was
        cancelled) and is not tried again, is left out. Gives how many were kept. Nothing, if the version is
        none of the index.
        """

    async def fail(self, index: str, version: int, failed: Sequence[tuple[str, int, Problem]]) -> None:
        """Notes why documents, in these revisions, can't be taken in; they are not to do until `retry` or a
        new revision. What the version has of an earlier revision is gone by a `deleted` entry, which each of
        them gets: what a document said before must not be found as if it still did."""

    async def retry(self, index: str) -> int:
        """All that failed is to do again. Gives how many."""

    async def cancel(self, index: str) -> int:
        """What is to do and not yet done fails (`cancelled`). Gives how many documents that are."""

    # -- versions

    async def build(self, id: str, version: Version) -> Index | None:
        """Begins a version beside the one that serves: all documents are to do by it. In place of another one
        that was being built. The same again (by number) changes nothing. A number that a version had which is
        no more becomes the next free one: nothing is ever found under it again. None: there is no such
        index."""

    async def missing(self, index: str, version: int) -> int:
        """How many documents have no entry of their present revision in this version, nor an error; these are
        made to do again."""

    async def lacking(self, index: str, version: int, limit: int) -> list[str]:
        """Ids of documents that could be found no more, or only as they were earlier, if this version served:
        the serving one has an entry of them that is not deleted, and this one has none, or one of an earlier
        revision. Those that failed in this version come first. Costs nothing while all documents are done by
        this version, else it grows with how many are not."""

    async def swap(self, id: str, version: int, *, seq: int | None = None) -> Index | None:
        """Lets the version that was built serve, if it still is the one being built; and, if `seq` is given,
        only if that is the number of the newest entry still: then all versions have what they had."""

    async def abandon(self, id: str, version: int) -> Index | None:
        """Gives up the version that is being built."""

    # -- following

    async def seq(self, id: str) -> int | None:
        """The newest entry's number; None: there is no such index."""

    def entries(
        self, index: str, version: int, *, after: int = 0, upto: int | None = None
    ) -> AsyncIterator[list[Entry]]:
        """The entries with greater numbers, in their order, in batches; `deleted` ones only if `after` is
        not 0."""

    async def hits(self, index: str, version: int, docs: Sequence[str]) -> dict[str, Entry]:
        """Entries by document, without vectors, for what was found."""


# -- what a worker has of one version


class VectorIndex(Protocol):
    """Vectors of one length by their keys. Called by one thread at a time. Blocks.

    Scores: the higher the nearer. `cosine`: vectors come with length 1, and the score is the inner product.
    `ip`: the inner product. `l2`: 1 / (1 + d²), d the Euclidean distance.
    """

    @property
    def size(self) -> int: ...

    @property
    def exact(self) -> bool:
        """Whether `search` finds the very best ones."""

    @property
    def memory_bytes(self) -> int: ...

    def upsert(self, keys: Keys, vectors: Vectors) -> None:
        """Adds vectors; one of a key that is there is replaced."""

    def remove(self, keys: Keys) -> None:
        """Keys that are not there are left alone."""

    def vectors(self, keys: Keys) -> Vectors:
        """Of keys that are there."""

    def search(self, queries: Vectors, k: int, allowed: Keys | None = None) -> list[tuple[Keys, Vectors]]:
        """For each query the best `k` keys (fewer if there are no more) and their scores, best first.

        `allowed`, sorted: only these are looked for. With it no hit may be lost: k are found if there are k
        allowed.
        """

    def save(self, folder: Path) -> None:
        """Writes all of it into an empty folder, synced."""


class LexicalIndex(Protocol):
    """Texts by their keys, found by words (BM25). Called by one thread at a time. Blocks."""

    @property
    def memory_bytes(self) -> int: ...

    def upsert(self, keys: Keys, texts: Sequence[str]) -> None: ...

    def remove(self, keys: Keys) -> None: ...

    def search(
        self, text: str, k: int, allowed: Keys | None = None, *, highlight: bool = False
    ) -> list[Found]:
        """The best `k` that have any of the words. All that was upserted before is seen. A text is taken
        as it is: no character of it is an operator."""

    def save(self, folder: Path) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Found:
    key: int
    score: float
    highlights: tuple[str, ...] = ()


class EntryTable(Protocol):
    """Which entries a version has, and their metadata. Called by one thread at a time. Blocks."""

    def put(self, entries: Sequence[Entry]) -> None:
        """In place of the documents' earlier entries; a `deleted` one leaves nothing."""

    def keys(self, docs: Sequence[str]) -> Keys:
        """The keys of all chunks that these documents have here."""

    def documents(self, keys: Sequence[int]) -> list[str | None]:
        """Whose chunks these are; None if nobody's any more."""

    def select(self, condition: Filter) -> Keys:
        """Sorted keys of the chunks whose documents meet the filter, exactly as `filters.meets` says."""

    @property
    def counts(self) -> tuple[int, int]:
        """Documents and chunks."""

    def save(self, folder: Path) -> None: ...

    def close(self) -> None: ...


class Engine(Protocol):
    """One version of an index, as a worker searches it: the same answers whatever is behind it."""

    shared: bool = False
    """Whether other workers write the same: one of them may be late with a document that is deleted by now,
    so `deleted` entries are to be taken in from the first on."""

    @property
    def applied(self) -> int:
        """It has all entries up to this number."""

    @property
    def memory_bytes(self) -> int: ...

    async def apply(self, entries: Sequence[Entry], upto: int) -> None:
        """Takes in entries, in their order; then it has all up to `upto`. Entries that it had already change
        nothing. Raises `Unavailable`; then it has what it had, or more."""

    async def search(self, queries: Sequence[SearchQuery]) -> list[SearchAnswer | GoatherdError]:
        """Each query's answer, in its place. A query that can't be answered is `Invalid`, for itself
        alone."""

    async def save(self) -> None:
        """Keeps what it has, so that the next worker begins there. Atomic: after a crash there is the last
        one."""

    async def close(self) -> None: ...
