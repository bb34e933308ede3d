"""Searches over HTTP."""

from __future__ import annotations

from time import perf_counter

from fastapi import APIRouter, Request
from starlette.responses import Response

from api import openapi
from api.body import read_body
from api.deps import All, LeanRoute
from api.hangup import while_connected
from api.idempotency import Answer, Ids
from api.index_schemas import Explained, HitShown, SearchBody, SearchFound
from api.index_search import Found, Search
from api.pages import refuse_query
from api.routes.indexes import IndexPath
from goatherd.contracts.retrieval import SearchQuery
from goatherd.errors import Invalid

router = APIRouter(tags=["Index search"], route_class=LeanRoute)


@router.post(
    "/index/{index}/search",
    operation_id="searchIndex",
    summary="Search an index",
    response_description="The best hits, best first; fewer than `k` if there are no more.",
    responses={200: {"model": SearchFound}, **openapi.errors(*openapi.POST_ERRORS)},
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(
            SearchBody,
            required=True,
            examples={
                "a text": {"text": "who climbs trees?", "k": 5},
                "filtered": {
                    "text": "who climbs trees?",
                    "filter": {"lang": {"in": ["en", "de"]}, "year": {"gte": 2020}},
                    "mode": "hybrid",
                    "weights": {"dense": 1, "lexical": 0.5},
                    "explain": True,
                    "highlight": True,
                },
                "a vector": {"vector": [0.1, 0.7, 0.2], "mode": "dense"},
            },
        ),
    },
)
async def search_index(request: Request, parts: All, index: IndexPath) -> Response:
    """By meaning, by words, or by both, joined by their ranks. It sees all that was taken in or removed
    before it began."""
    refuse_query(request)
    began = perf_counter()
    body, raw = await read_body(request, SearchBody)
    search = _asked(body)

    async def act(_: Ids) -> Answer:
        found = await while_connected(request, parts.indexes.search.search(parts.principal, index, search))
        return Answer(200, _told(found, body, (perf_counter() - began) * 1_000))

    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()


def _asked(body: SearchBody) -> Search:
    if body.candidates is not None and body.candidates < body.k:
        raise Invalid(f"Has to be at least `k`, which is {body.k}.", pointer="/candidates")
    query = SearchQuery(
        text=body.text,
        vector=body.vector,
        k=body.k,
        filter=body.filter,
        per_document=body.per_document,
        weights={} if body.weights is None else body.weights.model_dump(),
        candidates=body.candidates,
        rank_constant=body.rank_constant,
        explain=body.explain,
        highlight=body.highlight,
    )
    return Search(query, body.mode, body.timeout_s)


def _told(found: Found, body: SearchBody, took_ms: float) -> bytes:
    hits = [
        HitShown(
            id=hit.doc,
            chunk=hit.chunk,
            score=hit.score,
            text=hit.text,
            start=hit.start,
            end=hit.end,
            metadata=hit.metadata,
            highlights=hit.highlights if body.highlight else None,
            explain=Explained(dense=hit.dense, lexical=hit.lexical) if body.explain else None,
        )
        for hit in found.hits
    ]
    answer = SearchFound(
        hits=hits,
        mode=found.mode,
        exact=found.exact,
        complete=found.complete,
        seq=found.seq,
        took_ms=round(took_ms, 3),
    )
    unasked = set()
    if not body.highlight:
        unasked.add("highlights")
    if not body.explain:
        unasked.add("explain")
    return answer.model_dump_json(exclude={"hits": {"__all__": unasked}}).encode()
