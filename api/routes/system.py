"""Is it alive, is it ready, what is it doing, where does one begin."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from api import openapi
from api.deps import All
from api.schemas import Alive, Index, ReadyReport, RouteRow
from api.table import route_table
from goatherd import __version__
from goatherd.telemetry.metrics import render

router = APIRouter(tags=["System"])

_ALIVE = Alive().model_dump_json().encode()
_JSON = "application/json"


@router.get(
    "/",
    operation_id="getIndex",
    summary="Where to begin",
    responses={
        200: {"model": Index},
        307: {"description": "For browsers: to the docs."},
        **openapi.errors(403, 500),
    },
)
async def index(request: Request) -> Response:
    """Names the ways in, and every route. A browser is sent to the docs."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("/docs")
    links = {"docs": "/docs", "openapi": "/openapi.json", "ready": "/readyz"}
    links |= {"chat": "/chat", "tasks": "/tasks", "models": "/models", "jobs": "/jobs"}
    routes = [
        RouteRow(method=method, path=path, summary=summary)
        for method, path, summary in route_table(request.app)
    ]
    content = Index(name="goatherd", version=__version__, links=links, routes=routes)
    return Response(content.model_dump_json(), media_type=_JSON)


@router.get(
    "/healthz",
    operation_id="getHealth",
    summary="Is the process alive",
    responses={200: {"model": Alive}, **openapi.errors(403, 500)},
)
async def health() -> Response:
    """Answers without asking any other part."""
    return Response(_ALIVE, media_type=_JSON)


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Can requests be served",
    responses={
        200: {"model": ReadyReport},
        503: {"model": ReadyReport, "description": "Not yet, or not now.", "headers": openapi.RETRY_AFTER},
        **openapi.errors(403, 500),
    },
)
async def readiness(parts: All) -> Response:
    """Asks Temporal, the store and the workers, each by name, and whether the default model is loaded."""
    report = await parts.readiness.report()
    ready = report.status == "ready"
    return Response(
        report.model_dump_json(),
        200 if ready else 503,
        media_type=_JSON,
        headers={} if ready else {"retry-after": "1"},
    )


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={
        200: {
            "content": {"text/plain": {"schema": {"type": "string"}}},
            "description": "In the text format.",
        },
        **openapi.errors(403, 500),
    },
)
async def metrics() -> Response:
    """This process's metrics."""
    content, content_type = render()
    return Response(content, media_type=content_type)
