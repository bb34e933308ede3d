"""Indexes over HTTP."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from activities.ports import Page
from api import openapi
from api.body import read_body
from api.deps import All, LeanRoute, Parts
from api.etags import JSON, tagged
from api.idempotency import Answer, Ids
from api.index_schemas import (
    Affected,
    Cancelled,
    CreateIndex,
    IndexDocument,
    IndexList,
    IndexQuery,
    PatchIndex,
    RebuildIndex,
)
from api.index_service import shown
from api.pages import list_response, load_page, one_cursor, refuse_query
from goatherd.contracts.retrieval import INDEX_NAME, Counts, Index
from goatherd.errors import MalformedCursor

router = APIRouter(tags=["Indexes"], route_class=LeanRoute)
# Those with a query that is validated.
queries = APIRouter(tags=["Indexes"])

IndexPath = Annotated[
    str,
    Path(
        description="The index's name, or its id.",
        json_schema_extra={"pattern": INDEX_NAME, "examples": ["docs"]},
    ),
]
_NAME = re.compile(INDEX_NAME)
_ACTION_ERRORS = (403, 404, 409, 422, 429, 500, 503)


class _Listed:
    """An index as an entry of a list, whose position is its name."""

    def __init__(self, index: Index, counts: Counts) -> None:
        self.id = index.name
        self._shown = shown(index, counts)

    def model_dump_json(self) -> str:
        return self._shown.model_dump_json()


@router.post(
    "/index",
    status_code=201,
    operation_id="createIndex",
    summary="Create an index",
    response_description="The index. Documents can be put in.",
    responses={
        200: {"model": IndexDocument, "description": "It was there already, just as it is wished for."},
        201: {"model": IndexDocument, "headers": {**openapi.LOCATION, **openapi.REPLAYED}},
        **openapi.errors(*openapi.POST_ERRORS),
    },
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(
            CreateIndex,
            required=True,
            examples={
                "texts by a model": {"name": "docs", "model": "all-minilm-l6-v2"},
                "vectors of your own": {"name": "faces", "dimensions": 512, "metric": "ip", "lexical": "off"},
                "words only": {"name": "notes", "language": "de"},
                "with options": {
                    "name": "manuals",
                    "model": "all-minilm-l6-v2",
                    "chunking": {"splitter": "markdown", "size": 800, "overlap": 80},
                    "faiss": {"kind": "hnsw", "ef_search": 200},
                    "metadata": {"team": "support"},
                },
            },
        ),
    },
)
async def create_index(request: Request, parts: All) -> Response:
    """The same again is answered 200; another one of that name is 409, which says how they differ."""
    refuse_query(request)
    body, raw = await read_body(request, CreateIndex)
    metadata = body.metadata if "metadata" in body.model_fields_set else None

    async def act(ids: Ids) -> Answer:
        service = parts.indexes.service
        index, new = await service.create(ids, parts.principal, body, metadata=metadata)
        content = await _whole(parts, index)
        return Answer(201 if new else 200, content, {"location": f"/index/{index.name}"})

    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()


@queries.get(
    "/index",
    operation_id="listIndexes",
    summary="List indexes",
    response_description="A part of the list.",
    responses={
        200: {"model": IndexList, "headers": openapi.LINK},
        **openapi.errors(400, 403, 422, 500, 503),
    },
)
async def list_indexes(request: Request, parts: All, query: Annotated[IndexQuery, Query()]) -> Response:
    """Yours, by name. Positions in this list are names."""
    one_cursor(query.after, query.before)
    for cursor in (query.after, query.before):
        if cursor is not None and not _NAME.fullmatch(cursor):
            raise MalformedCursor("A cursor here is an index's name, such as `last_id` of the page before.")

    async def load(page: Page) -> list[_Listed]:
        return [_Listed(*one) for one in await parts.indexes.service.indexes(parts.principal, page)]

    indexes, has_more = await load_page(
        load,
        limit=query.limit,
        descending=query.order == "desc",
        after=query.after,
        before=query.before,
    )
    return list_response(request, indexes, has_more, query, after=query.after, before=query.before)


@router.get(
    "/index/{index}",
    operation_id="readIndex",
    summary="Read an index",
    response_description="The index, with how many documents are where.",
    responses={
        200: {"model": IndexDocument, "headers": openapi.ETAG},
        304: {"description": "You have it already.", "headers": openapi.ETAG},
        **openapi.errors(*openapi.READ_ERRORS),
    },
    openapi_extra={"parameters": [openapi.IF_NONE_MATCH]},
)
async def get_index(request: Request, parts: All, index: IndexPath) -> Response:
    """How it is made, its versions, and its documents: how many there are, are not taken in yet, can't be."""
    refuse_query(request)
    found = await parts.indexes.service.index(parts.principal, index)
    return tagged(request, await _whole(parts, found))


@router.patch(
    "/index/{index}",
    operation_id="patchIndex",
    summary="Change an index's metadata",
    response_description="The index.",
    responses={200: {"model": IndexDocument}, **openapi.errors(400, *_ACTION_ERRORS, 413, 415)},
    openapi_extra=openapi.body(
        PatchIndex, required=True, examples={"metadata": {"metadata": {"team": "support"}}}
    ),
)
async def patch_index(request: Request, parts: All, index: IndexPath) -> Response:
    """How it is made is changed by `__rebuild`."""
    refuse_query(request)
    body, _ = await read_body(request, PatchIndex)
    changed = await parts.indexes.service.set_metadata(parts.principal, index, body.metadata)
    return Response(await _whole(parts, changed), media_type=JSON)


@router.delete(
    "/index/{index}",
    status_code=204,
    operation_id="deleteIndex",
    summary="Delete an index",
    response_class=Response,
    response_description="It is gone, with its documents; its name is free.",
    responses=openapi.errors(403, 404, 422, 500, 503),
)
async def delete_index(request: Request, parts: All, index: IndexPath) -> Response:
    """For everybody at once. What it had is removed from the store bit by bit."""
    refuse_query(request)
    await parts.indexes.service.delete(parts.principal, index)
    return Response(status_code=204)


@router.post(
    "/index/{index}/__pause",
    operation_id="pauseIndex",
    summary="Pause an index",
    response_description="The index. What is under way may still be taken in.",
    responses={200: {"model": IndexDocument}, **openapi.errors(*_ACTION_ERRORS)},
    openapi_extra={"parameters": [openapi.IDEMPOTENCY_KEY]},
)
async def pause_index(request: Request, parts: All, index: IndexPath) -> Response:
    """Documents are still kept and removed, and found as they were; none are taken in until `__resume`."""
    refuse_query(request)

    async def act(_: Ids) -> Answer:
        found = await parts.indexes.service.pause(parts.principal, index)
        return Answer(200, await _whole(parts, found))

    return (await parts.idempotency.run(request, parts.principal, b"{}", act)).response()


@router.post(
    "/index/{index}/__resume",
    operation_id="resumeIndex",
    summary="Resume an index",
    response_description="The index.",
    responses={200: {"model": IndexDocument}, **openapi.errors(*_ACTION_ERRORS)},
    openapi_extra={"parameters": [openapi.IDEMPOTENCY_KEY]},
)
async def resume_index(request: Request, parts: All, index: IndexPath) -> Response:
    """Takes in what has come meanwhile. Of one that is not paused it only sees to it that work goes on."""
    refuse_query(request)

    async def act(_: Ids) -> Answer:
        found = await parts.indexes.service.resume(parts.principal, index)
        return Answer(200, await _whole(parts, found))

    return (await parts.idempotency.run(request, parts.principal, b"{}", act)).response()


@router.post(
    "/index/{index}/__cancel",
    operation_id="cancelIngestion",
    summary="Cancel what is to be taken in",
    response_description="How many documents failed by that.",
    responses={200: {"model": Cancelled}, **openapi.errors(*_ACTION_ERRORS)},
    openapi_extra={"parameters": [openapi.IDEMPOTENCY_KEY]},
)
async def cancel_ingestion(request: Request, parts: All, index: IndexPath) -> Response:
    """Documents that are not taken in yet fail (`cancelled`), and can be retried. A version that is being
    built is given up."""
    refuse_query(request)

    async def act(_: Ids) -> Answer:
        found, count, given_up = await parts.indexes.service.cancel(parts.principal, index)
        cancelled = Cancelled(documents=count, index=await _document(parts, found), given_up=given_up)
        return Answer(200, cancelled.model_dump_json().encode())

    return (await parts.idempotency.run(request, parts.principal, b"{}", act)).response()


@router.post(
    "/index/{index}/__retry",
    operation_id="retryIngestion",
    summary="Take in again what failed",
    response_description="How many documents are to do again.",
    responses={200: {"model": Affected}, **openapi.errors(*_ACTION_ERRORS)},
    openapi_extra={"parameters": [openapi.IDEMPOTENCY_KEY]},
)
async def retry_ingestion(request: Request, parts: All, index: IndexPath) -> Response:
    """All documents that have an error."""
    refuse_query(request)

    async def act(_: Ids) -> Answer:
        found, count = await parts.indexes.service.retry(parts.principal, index)
        affected = Affected(documents=count, index=await _document(parts, found))
        return Answer(200, affected.model_dump_json().encode())

    return (await parts.idempotency.run(request, parts.principal, b"{}", act)).response()


@router.post(
    "/index/{index}/__rebuild",
    status_code=202,
    operation_id="rebuildIndex",
    summary="Build an index anew",
    response_description="The version is being built; searches go on with the one that serves.",
    responses={202: {"model": IndexDocument}, **openapi.errors(*openapi.POST_ERRORS)},
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(
            RebuildIndex,
            required=False,
            examples={
                "as it is": {},
                "another model": {"model": "all-minilm-l6-v2"},
                "another backend": {"backend": "scann", "scann": {"reorder": 400}},
            },
        ),
    },
)
async def rebuild_index(request: Request, parts: All, index: IndexPath) -> Response:
    """Makes a new version of all documents beside the one that serves, with the fields that are given; when
    it has all of them it serves at once. In place of another one that is being built."""
    refuse_query(request)
    body, raw = await read_body(request, RebuildIndex)

    async def act(_: Ids) -> Answer:
        found = await parts.indexes.service.rebuild(parts.principal, index, body)
        return Answer(202, await _whole(parts, found), {"location": f"/index/{found.name}"})

    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()


async def _whole(parts: Parts, index: Index) -> bytes:
    return (await _document(parts, index)).model_dump_json().encode()


async def _document(parts: Parts, index: Index) -> IndexDocument:
    return shown(index, await parts.indexes.service.counts(index))
