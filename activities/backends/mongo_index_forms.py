"""How indexes, their documents and their entries are documents of MongoDB.

What is chosen by is a field of its own. Specifications and metadata are kept as JSON: names in them may be
what field names may not, and numbers what BSON has no room for.

How a document stands with a version is kept nowhere but in the version's entry of it. None, or one of
another revision: it is to do. One of its revision: it is done; if that one is `deleted` and has a `problem`:
it failed. So what is taken in never touches the document.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

from pydantic_core import from_json, to_json

from activities.backends import projection
from activities.backends.index_standing import error_of, numbers, to_do
from goatherd.contracts.inference_work import Problem
from goatherd.contracts.retrieval import Document, Entry, Index, Version

Fields = projection.Document
Key = TypeVar("Key")

_KEYS = 64
"""How many keys a query names: the embedded server compares each with each."""


def some_of(keys: Iterable[Key], most: int = _KEYS) -> Iterator[list[Key]]:
    """All of them, in parts of as many as a query should name."""
    left = iter(keys)
    while some := list(islice(left, most)):
        yield some


# -- indexes


def index_fields(index: Index) -> Fields:
    return {
        "_id": index.id,
        "owner": index.owner,
        "name": index.name,
        "paused": index.paused,
        "metadata": to_json(index.metadata).decode(),
        "created_at": index.created_at,
        "updated_at": index.updated_at,
        **version_fields(index),
        "last": max(numbers(index)),
        "seq": index.seq,
        "rev": 0,
        "documents": 0,
        "tally": {},
        "writes": 0,
    }


def version_fields(index: Index) -> Fields:
    """`live`: the numbers of the versions, so that a write finds its index only if it has the version."""
    return {
        "serving": index.serving.model_dump_json(),
        "building": None if index.building is None else index.building.model_dump_json(),
        "live": numbers(index),
    }


def to_index(fields: Fields) -> Index:
    building = fields["building"]
    return Index(
        id=fields["_id"],
        name=fields["name"],
        owner=fields["owner"],
        serving=Version.model_validate_json(fields["serving"]),
        building=None if building is None else Version.model_validate_json(building),
        seq=fields["seq"],
        paused=fields["paused"],
        created_at=fields["created_at"],
        updated_at=fields["updated_at"],
        metadata=from_json(fields["metadata"]),
    )


# -- documents


def document_key(index: str, doc: str) -> str:
    return f"{index}:{doc}"


def document_fields(index: str, document: Document) -> Fields:
    return {
        "_id": document_key(index, document.id),
        "index": index,
        "doc": document.id,
        "rev": document.rev,
        "text": document.text,
        "vector": document.vector,
        "metadata": to_json(document.metadata).decode(),
        "created_at": document.created_at,
        "updated_at": document.updated_at,
    }


def to_document(fields: Fields, live: Sequence[int], states: States) -> Document:
    id, rev = fields["doc"], fields["rev"]
    standing = {version: states[version, id] for version in live if (version, id) in states}
    done = [version for version, state in standing.items() if state.is_done(rev)]
    errors = {
        version: state.problem
        for version, state in standing.items()
        if state.has_failed(rev) and state.problem is not None
    }
    return Document(
        id=id,
        rev=rev,
        text=fields["text"],
        vector=fields["vector"],
        metadata=from_json(fields["metadata"]),
        created_at=fields["created_at"],
        updated_at=fields["updated_at"],
        todo=to_do(live, done, errors),
        error=error_of(live, errors),
    )


# -- entries


@dataclass(frozen=True, slots=True)
class State:
    """What the entry of a document says of it, by the entry's fields `STATE_FIELDS`."""

    rev: int
    deleted: bool
    chunks: int
    problem: Problem | None

    def is_done(self, rev: int) -> bool:
        return self.rev == rev and not self.deleted

    def has_failed(self, rev: int) -> bool:
        return self.rev == rev and self.problem is not None


States = dict[tuple[int, str], State]
"""By version and document."""

STATE_FIELDS: Final = {"version": 1, "doc": 1, "rev": 1, "deleted": 1, "chunks": 1, "problem": 1}


def to_state(fields: Fields) -> State:
    problem = fields.get("problem")
    return State(
        fields["rev"],
        fields.get("deleted", False),
        fields.get("chunks", 0),
        None if problem is None else Problem.model_validate_json(problem),
    )


def entry_key(index: str, version: int, doc: str) -> str:
    return f"{index}:{version}:{doc}"


def entry_fields(index: str, version: int, seq: int, entry: Entry) -> Fields:
    return {
        "_id": entry_key(index, version, entry.doc),
        "index": index,
        "version": version,
        "seq": seq,
        "doc": entry.doc,
        "rev": entry.rev,
        "chunks": entry.chunks,
        "texts": entry.texts,
        "spans": _packed(entry.spans),
        "vectors": entry.vectors,
        "metadata": to_json(entry.metadata).decode(),
    }


def deleted_fields(
    index: str, version: int, seq: int, doc: str, rev: int, problem: Problem | None = None
) -> Fields:
    key = entry_key(index, version, doc)
    fields: Fields = {
        "_id": key,
        "index": index,
        "version": version,
        "seq": seq,
        "doc": doc,
        "rev": rev,
        "deleted": True,
    }
    if problem is not None:
        # What has failed is found by this field alone, in order of ids; all others are without it.
        fields |= {"failed": key, "problem": problem.model_dump_json()}
    return fields


FORGIVEN: Final[Fields] = {"$unset": {"failed": "", "problem": ""}, "$set": {"rev": 0}}
"""What makes an entry that says that a document failed say nothing of it."""


def to_entry(fields: Fields) -> Entry:
    if fields.get("deleted", False):
        return Entry(doc=fields["doc"], rev=fields["rev"], seq=fields["seq"], deleted=True)
    return Entry(
        doc=fields["doc"],
        rev=fields["rev"],
        seq=fields["seq"],
        texts=fields["texts"],
        spans=_unpacked(fields["spans"]),
        vectors=fields.get("vectors", b""),
        metadata=from_json(fields["metadata"]),
    )


def _packed(spans: Sequence[tuple[int, int]]) -> bytes:
    flat = array("i", [place for span in spans for place in span])
    if sys.byteorder == "big":
        flat.byteswap()
    return flat.tobytes()


def _unpacked(data: bytes) -> list[tuple[int, int]]:
    flat = array("i")
    flat.frombytes(data)
    if sys.byteorder == "big":
        flat.byteswap()
    return list(zip(flat[::2], flat[1::2], strict=True))
