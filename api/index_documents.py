"""Documents of indexes: written, one or many, read, removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson

from activities.ports import Page
from api.index_lookup import IndexLookup
from api.index_nudges import Nudges
from api.index_schemas import DocumentBrief, DocumentFields, DocumentShown, NewDocument, RemovedDocuments
from api.index_specs import status_of
from api.index_vectors import check_vector, numbers_of
from api.index_waiting import IndexWaiting
from api.turns import Turns
from goatherd.contracts.filters import flat_values
from goatherd.contracts.retrieval import Counts, Document, DocumentIn, Index, IndexSpec
from goatherd.errors import Invalid, NotFound
from goatherd.security.access import Principal

if TYPE_CHECKING:
    from activities.retrieval_ports import IndexStore

MOST_TOGETHER = 1_000
MOST_BYTES_TOGETHER = 4 << 20
"""Of documents that the store is given at once."""
_READ_TOGETHER, _READ_BYTES = 100, 16 << 20
"""Of what is read of the store at once for a list, texts and all: many if the first of them are small."""


@dataclass(frozen=True, slots=True)
class Written:
    """A document that was written, and what it is like now. `new`: there was none of its id."""

    index: Index
    document: Document
    new: bool


class DocumentService:
    """What can be done with the documents of an index. Every method that names one raises `NotFound`."""

    def __init__(self, store: IndexStore, lookup: IndexLookup, nudges: Nudges) -> None:
        self._store = store
        self._lookup = lookup
        self._nudges = nudges
        self._waiting = IndexWaiting(store)

    async def index(self, principal: Principal, called: str) -> Index:
        return await self._lookup.find(principal, called)

    async def put(
        self, principal: Principal, called: str, id: str, fields: DocumentFields, *, wait_s: float
    ) -> Written:
        """Keeps one. With `wait_s` it is given as it is when it can be found, or has failed, or the time is
        over.

        Raises `Invalid` if the index can't have such a document.
        """
        index = await self.index(principal, called)
        check_document(index, fields)
        (document,) = await self.keep(index, [document_in(id, fields)])
        new = document.created_at == document.updated_at
        if wait_s:
            document = await self._waiting.for_document(index, document, wait_s)
            index = await self._store.index(index.id) or index
        return Written(index, document, new)

    async def keep(self, index: Index, documents: Sequence[DocumentIn]) -> list[Document]:
        """Keeps checked documents together, and has them taken in."""
        kept = await self._store.put(index.id, documents)
        if kept is None:
            raise NotFound(f"The index {index.name!r} has just been deleted.")
        self._nudges.nudge(index)
        return kept

    async def put_all(self, index: Index, documents: Sequence[NewDocument]) -> int:
        """Keeps documents that were given together; checked first, so that a wrong one spoils all. Gives the
        greatest `rev`."""
        turns = Turns()
        for n, one in enumerate(documents):
            await turns.give_way()
            check_document(index, one, at=f"/documents/{n}")
        rev = room = 0
        part: list[DocumentIn] = []
        for one in documents:
            await turns.give_way()
            document = document_in(one.id, one)
            size = size_of(document)
            if part and (size > room or len(part) == MOST_TOGETHER):
                rev = max(rev, *(kept.rev for kept in await self.keep(index, part)))
                part = []
            if not part:
                room = MOST_BYTES_TOGETHER
            part.append(document)
            room -= size
        return max(rev, *(kept.rev for kept in await self.keep(index, part)))

    async def all_found(self, index: Index, rev: int, wait_s: float) -> bool:
        """Whether all up to this revision can be found, or has failed, within this time."""
        return await self._waiting.for_all(index, rev, wait_s)

    async def counts(self, index: Index) -> Counts:
        return await self._store.counts(index.id)

    async def document(self, principal: Principal, called: str, id: str) -> tuple[Index, Document]:
        index = await self.index(principal, called)
        document = await self._store.document(index.id, id)
        if document is None:
            raise NotFound(f"There is no document {id[:200]!r} in the index {index.name!r}.")
        return index, document

    async def briefs(self, index: Index, page: Page, *, failed: bool | None) -> list[DocumentBrief]:
        """A page of them, by id."""
        backwards = page.before is not None and page.after is None
        found: list[DocumentBrief] = []
        here = replace(page, limit=min(page.limit, _READ_TOGETHER))
        while True:
            part = await self._store.documents(index.id, here, failed=failed)
            some = [brief(index, document) for document in part]
            found = [*some, *found] if backwards else [*found, *some]
            left = page.limit - len(found)
            if not left or len(part) < here.limit:
                return found
            largest = max(1, *(size_of(document) for document in part))
            here = replace(here, limit=min(left, max(_READ_TOGETHER, _READ_BYTES // largest)))
            here = replace(here, before=part[0].id) if backwards else replace(here, after=part[-1].id)

    async def remove(self, principal: Principal, called: str, id: str) -> None:
        """No search that begins after this finds it."""
        index = await self.index(principal, called)
        if not await self._store.remove(index.id, [id]):
            raise NotFound(f"There is no document {id[:200]!r} in the index {index.name!r}.")

    async def remove_all(self, principal: Principal, called: str, ids: Sequence[str]) -> RemovedDocuments:
        index = await self.index(principal, called)
        wanted = list(dict.fromkeys(ids))
        removed: set[str] = set()
        for begin in range(0, len(wanted), MOST_TOGETHER):
            removed.update(await self._store.remove(index.id, wanted[begin : begin + MOST_TOGETHER]) or ())
        return RemovedDocuments(removed=len(removed), missing=[id for id in wanted if id not in removed])


def check_document(index: Index, fields: DocumentFields, *, at: str = "") -> None:
    """Raises `Invalid` unless the index can have such a document; pointers begin with `at`."""
    try:
        flat_values(fields.metadata)
    except Invalid as error:
        raise Invalid(_sentence(error.message), pointer=f"{at}/metadata{error.pointer or ''}") from None
    # By the version that serves: what one that is being built can't have, fails in it.
    _check_content(index.serving.spec, fields, at)


def _check_content(spec: IndexSpec, fields: DocumentFields, at: str) -> None:
    has_text = bool(fields.text.strip())
    if spec.model is not None or not spec.dimensions:
        if fields.vector is not None:
            why = f"makes vectors of texts itself, by {spec.model!r}" if spec.model else "has no vectors"
            raise Invalid(f"The index {why}: send a `text` only.", pointer=f"{at}/vector")
        if not has_text:
            raise Invalid("The document has no text to find it by.", pointer=f"{at}/text")
        return
    if fields.vector is None:
        raise Invalid(
            f"The index has no model: send a vector of {spec.dimensions} numbers.", pointer=f"{at}/vector"
        )
    check_vector(fields.vector, spec, pointer=f"{at}/vector")


def _sentence(message: str) -> str:
    return f"{message[:1].upper()}{message[1:]}."


def document_in(id: str, fields: DocumentFields) -> DocumentIn:
    return DocumentIn(id=id, text=fields.text, vector=fields.vector, metadata=fields.metadata)


def size_of(document: DocumentIn | Document) -> int:
    """In bytes, about as the store counts."""
    return len(document.text.encode()) + len(document.vector or b"") + len(orjson.dumps(document.metadata))


def brief(index: Index, document: Document) -> DocumentBrief:
    """As a list shows it."""
    return DocumentBrief.model_validate(_fields(index, document))


def whole(index: Index, document: Document) -> DocumentShown:
    vector = None if document.vector is None else numbers_of(document.vector)
    return DocumentShown.model_validate({**_fields(index, document), "text": document.text, "vector": vector})


def _fields(index: Index, document: Document) -> dict[str, object]:
    return {
        "id": document.id,
        "index": index.id,
        "rev": document.rev,
        "status": status_of(document, index.serving.number),
        "characters": len(document.text),
        "metadata": document.metadata,
        "error": document.error,
        "created_at": document.created_at,
        "updated_at": document.updated_at,
    }
