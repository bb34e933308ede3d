"""What routes are given: made once by the app's lifespan, carried in the connection's state.

A route asks for the part that it needs by annotation: `service: Service`. All work for WebSockets too.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from fastapi import Depends
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from activities.ports import WorkerRegistry
from api.feed import ChatFeed
from api.idempotency import Idempotency
from api.index_parts import Indexes
from api.inference_port import Inference
from api.job_service import JobService
from api.model_admin import ModelAdmin
from api.readiness import Readiness
from api.service import ChatService
from api.task_parts import Tasks
from goatherd import settings as config
from goatherd.security import access


@dataclass(frozen=True, slots=True)
class Parts:
    """All that a request may need."""

    settings: config.Settings
    service: ChatService
    feed: ChatFeed
    tasks: Tasks
    inference: Inference
    models: ModelAdmin
    jobs: JobService
    indexes: Indexes
    idempotency: Idempotency
    workers: WorkerRegistry
    readiness: Readiness
    principal: access.Principal


class State(TypedDict):
    """The lifespan's state, of which each connection gets a copy."""

    parts: Parts


async def _parts(connection: HTTPConnection) -> Parts:
    parts: Parts = connection.state.parts
    return parts


async def _service(connection: HTTPConnection) -> ChatService:
    return (await _parts(connection)).service


async def _feed(connection: HTTPConnection) -> ChatFeed:
    return (await _parts(connection)).feed


async def _settings(connection: HTTPConnection) -> config.Settings:
    return (await _parts(connection)).settings


async def _principal(connection: HTTPConnection) -> access.Principal:
    """Who asks. The one place that authentication will change."""
    return (await _parts(connection)).principal


class LeanRoute(APIRoute):
    """A route whose endpoint takes `request`, `parts: All`, and path parameters as texts: nothing else.

    They are handed over as they are. FastAPI's general way takes half the time of such a request.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint: Callable[..., Coroutine[Any, Any, Response]] = self.endpoint

        async def handle(request: Request) -> Response:
            return await endpoint(request, parts=request.state.parts, **request.path_params)

        return handle


All = Annotated[Parts, Depends(_parts)]
Service = Annotated[ChatService, Depends(_service)]
Feed = Annotated[ChatFeed, Depends(_feed)]
Settings = Annotated[config.Settings, Depends(_settings)]
Principal = Annotated[access.Principal, Depends(_principal)]
