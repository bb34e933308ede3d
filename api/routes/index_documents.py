"""The documents of an index over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Annotated
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from activities.ports import Page
from api import openapi
from api.body import parse_any, read_body
from api.deps import All, LeanRoute, Parts
from api.errors import InvalidInput
from api.etags import JSON, tagged
from api.hangup import while_connected
from api.idempotency import HEADER as IDEMPOTENCY_KEY
from api.idempotency import Answer, Ids
from api.index_bulk import LINES, Bulk, drained, in_lines, keep_lines, whole_body
from api.index_documents import brief, whole
from api.index_schemas import (
    MOST_ID,
    BulkAnswer,
    DocumentBrief,
    DocumentList,
    DocumentQuery,
    DocumentShown,
    NewDocument,
    PutDocument,
    PutDocuments,
    RemovedDocuments,
    RemoveDocuments,
    WriteQuery,
)
from api.pages import list_response, load_page, one_cursor, refuse_query
from api.routes.indexes import IndexPath
from goatherd.contracts.retrieval import DOC_ID, DOC_ID_RULE, Index, is_doc_id
from goatherd.errors import GoatherdError, MalformedCursor, NotFound

router = APIRouter(tags=["Index documents"], route_class=LeanRoute)
# Those with a query that is validated.
queries = APIRouter(tags=["Index documents"])
one = APIRouter(tags=["Index documents"], route_class=LeanRoute)
"""Paths that match whatever is below a list of documents: to be mounted after those with a word there."""
one_queries = APIRouter(tags=["Index documents"])

DocPath = Annotated[
    str,
    Path(
        description="The document's id: text in one line, such as a relative path; percent-encoded.",
        json_schema_extra={
            "pattern": DOC_ID,
            "minLength": 1,
            "maxLength": MOST_ID,
            "examples": ["guides/goats.md"],
        },
    ),
]


def _check_id(doc: str) -> None:
    """Raises `InvalidInput` for what can't be an id."""
    if not is_doc_id(doc):
        detail = f"{DOC_ID_RULE[:1].upper()}{DOC_ID_RULE[1:]}."
        raise InvalidInput([{"parameter": "doc", "detail": detail}], code="invalid-parameter")


@queries.get(
    "/index/{index}/doc",
    operation_id="listDocuments",
    summary="List documents",
    response_description="A part of the list.",
    responses={
        200: {"model": DocumentList, "headers": openapi.LINK},
        **openapi.errors(*openapi.LIST_ERRORS),
    },
)
async def list_documents(
    request: Request, parts: All, index: IndexPath, query: Annotated[DocumentQuery, Query()]
) -> Response:
    """By id, without their texts. With `failed=true` those that could not be taken in, each with its
    `error`."""
    one_cursor(query.after, query.before)
    for cursor in (query.after, query.before):
        if cursor is not None and not is_doc_id(cursor):
            raise MalformedCursor("A cursor here is a document's id, such as `last_id` of the page before.")
    found = await parts.indexes.documents.index(parts.principal, index)

    async def load(page: Page) -> list[DocumentBrief]:
        return await parts.indexes.documents.briefs(found, page, failed=query.failed)

    documents, has_more = await load_page(
        load,
        limit=query.limit,
        descending=query.order == "desc",
        after=query.after,
        before=query.before,
    )
    return list_response(request, documents, has_more, query, after=query.after, before=query.before)


@queries.post(
    "/index/{index}/doc",
    status_code=202,
    operation_id="putDocuments",
    summary="Put many documents",
    response_description="All that was kept is durable, and is being taken in.",
    responses={
        200: {"model": BulkAnswer, "description": "With `wait`: all of it can be found, or has failed."},
        202: {"model": BulkAnswer, "headers": openapi.REPLAYED},
        **openapi.errors(*openapi.POST_ERRORS),
    },
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body_or_lines(
            PutDocuments,
            NewDocument,
            LINES[0],
            examples={
                "two": {
                    "documents": [
                        {"id": "goats", "text": "Goats climb trees.", "metadata": {"lang": "en"}},
                        {"id": "sheep", "text": "Sheep follow.", "metadata": {"lang": "en"}},
                    ]
                }
            },
        ),
    },
)
async def put_documents(
    request: Request, parts: All, index: IndexPath, query: Annotated[WriteQuery, Query()]
) -> Response:
    """Each in place of the one of its id. Of JSON (up to 16 MB) all are checked first: one that the index
    can't have spoils all. Of lines (`application/x-ndjson`, up to 64 MB, read as they come) each counts for
    itself: `errors` names those that were refused, the others are kept; 422 only if none was, or after a
    thousand that were refused: no more are read then."""
    lines, keyed = in_lines(request), IDEMPOTENCY_KEY in request.headers
    found = await parts.indexes.documents.index(parts.principal, index)
    if lines and not keyed:
        chunks = request.stream()
        try:
            bulk = await keep_lines(parts.indexes.documents, found, chunks)
        except GoatherdError:
            await drained(chunks)
            raise
        return (await _answered(request, parts, found, bulk, query.wait)).response()
    raw = await whole_body(request)
    # What the key stands for, as JSON: the body may be lines of such.
    digest = await asyncio.to_thread(hashlib.sha256, raw)
    told = orjson.dumps([lines, digest.hexdigest()])

    async def act(_: Ids) -> Answer:
        if lines:
            bulk = await keep_lines(parts.indexes.documents, found, _at_once(raw))
        else:
            documents = (await parse_any(raw or b"{}", PutDocuments)).documents
            rev = await parts.indexes.documents.put_all(found, documents)
            bulk = Bulk(received=len(documents), kept=len(documents), rev=rev)
        return await _answered(request, parts, found, bulk, query.wait)

    return (await parts.idempotency.run(request, parts.principal, told, act)).response()


async def _at_once(raw: bytes) -> AsyncIterator[bytes]:
    yield raw


async def _answered(request: Request, parts: Parts, index: Index, bulk: Bulk, wait_s: float) -> Answer:
    bulk.check()
    complete = False
    if wait_s:
        complete = await while_connected(request, parts.indexes.documents.all_found(index, bulk.rev, wait_s))
    answer = BulkAnswer(
        received=bulk.received,
        kept=bulk.kept,
        refused=bulk.refused,
        errors=bulk.errors,
        complete=complete,
        counts=await parts.indexes.documents.counts(index),
    )
    return Answer(200 if complete else 202, answer.model_dump_json().encode())


@router.post(
    "/index/{index}/doc/__delete",
    operation_id="removeDocuments",
    summary="Remove many documents",
    response_description="How many there were. No search that begins now finds them.",
    responses={
        200: {"model": RemovedDocuments, "headers": openapi.REPLAYED},
        **openapi.errors(*openapi.POST_ERRORS),
    },
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(
            RemoveDocuments, required=True, examples={"two": {"ids": ["goats", "guides/goats.md"]}}
        ),
    },
)
async def remove_documents(request: Request, parts: All, index: IndexPath) -> Response:
    """By their ids. Ids that there is no document of are named in the answer, and are no error."""
    refuse_query(request)
    body, raw = await read_body(request, RemoveDocuments)

    async def act(_: Ids) -> Answer:
        removed = await parts.indexes.documents.remove_all(parts.principal, index, body.ids)
        return Answer(200, removed.model_dump_json().encode())

    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()


@one_queries.put(
    "/index/{index}/doc/{doc:path}",
    status_code=202,
    operation_id="putDocument",
    summary="Put a document",
    response_description="It is kept, and will be taken in.",
    responses={
        200: {"model": DocumentBrief, "description": "With `wait`: the changed one can be found, or failed."},
        201: {
            "model": DocumentBrief,
            "description": "With `wait`: the new one can be found, or failed.",
            "headers": openapi.LOCATION,
        },
        202: {"model": DocumentBrief, "headers": openapi.LOCATION},
        **openapi.errors(*openapi.PUT_ERRORS),
    },
    openapi_extra=openapi.body(
        PutDocument,
        required=True,
        examples={
            "a text": {"text": "Goats climb trees.", "metadata": {"lang": "en", "year": 2024}},
            "a vector": {"vector": [0.1, 0.7, 0.2], "metadata": {"goat": "Ada"}},
        },
    ),
)
async def put_document(
    request: Request, parts: All, index: IndexPath, doc: DocPath, query: Annotated[WriteQuery, Query()]
) -> Response:
    """In place of the one of this id, if there is one. `status` says whether it can be found already; with
    `wait` the answer comes when it can, or has failed (`error` says why)."""
    _check_id(doc)
    body, _ = await read_body(request, PutDocument)
    putting = parts.indexes.documents.put(parts.principal, index, doc, body, wait_s=query.wait)
    written = await (while_connected(request, putting) if query.wait else putting)
    told = brief(written.index, written.document)
    status = 202 if told.status == "pending" else 201 if written.new else 200
    if not query.wait:
        status = 202
    location = f"/index/{written.index.name}/doc/{quote(doc, safe='/')}"
    return Response(told.model_dump_json(), status, headers={"location": location}, media_type=JSON)


@one.get(
    "/index/{index}/doc/{doc:path}",
    operation_id="getDocument",
    summary="Read a document",
    response_description="The document, as it was written last.",
    responses={
        200: {"model": DocumentShown, "headers": openapi.ETAG},
        304: {"description": "You have it already.", "headers": openapi.ETAG},
        **openapi.errors(*openapi.READ_ERRORS),
    },
    openapi_extra={"parameters": [openapi.IF_NONE_MATCH]},
)
async def get_document(request: Request, parts: All, index: IndexPath, doc: DocPath) -> Response:
    """With its text, its vector if it came with one, and whether it can be found."""
    refuse_query(request)
    if not is_doc_id(doc):
        # Unknown, and nobody need be asked.
        raise NotFound(f"There is no document {doc[:200]!r}.")
    found, document = await parts.indexes.documents.document(parts.principal, index, doc)
    return tagged(request, whole(found, document).model_dump_json().encode())


@one.delete(
    "/index/{index}/doc/{doc:path}",
    status_code=204,
    operation_id="removeDocument",
    summary="Remove a document",
    response_class=Response,
    response_description="No search that begins now finds it.",
    responses=openapi.errors(403, 404, 422, 500, 503),
)
async def remove_document(request: Request, parts: All, index: IndexPath, doc: DocPath) -> Response:
    """For good."""
    refuse_query(request)
    _check_id(doc)
    await parts.indexes.documents.remove(parts.principal, index, doc)
    return Response(status_code=204)
