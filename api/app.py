"""The HTTP application: parts in, FastAPI app out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from temporalio.client import Client

from activities.ports import ChatStore, IdempotencyStore, WorkerRegistry
from activities.task_ports import TaskStore
from api import openapi
from api.deps import Parts, State
from api.errors import handle_errors
from api.feed import ChatFeed
from api.head import Head
from api.idempotency import Idempotency, StoredProblem, on_stored_problem
from api.index_parts import MakeSearching, SearchingParts, by_index_workers, serve_indexes
from api.middleware import Guard, Observe
from api.model_parts import MakeInference, ModelStores, by_workers, serve_models
from api.model_registry import ModelRegistry
from api.readiness import Readiness
from api.routes import (
    chat,
    chat_streams,
    hf_models,
    index_documents,
    index_search,
    indexes,
    jobs,
    messages,
    models,
    openai_media,
    openai_models,
    openai_text,
    subtasks,
    system,
    task_streams,
    tasks,
)
from api.service import ChatService
from api.task_actors import Actors
from api.task_parts import serve_tasks
from goatherd import __version__
from goatherd.actors.durable import ActorSystem
from goatherd.contracts.queues import Pool
from goatherd.security.access import Principal
from goatherd.settings import Settings
from goatherd.telemetry import Tracing

if TYPE_CHECKING:
    from activities.retrieval_ports import IndexStore

# A claim outlives the longest wait for an actor by a little.
_LEASE_MARGIN_S = 5.0
_CORS_MAX_AGE_S = 600
_EXPOSED = [
    "etag",
    "idempotency-replayed",
    "link",
    "location",
    "preference-applied",
    "retry-after",
    "x-request-id",
    "x-should-retry",
]

MakeService = Callable[[Client, ChatStore, Settings, ModelRegistry], ChatService]
MakeActors = Callable[[Client, Settings], Actors]


def actors_of(client: Client, settings: Settings) -> Actors:
    """What tasks' actors are asked by."""
    return ActorSystem(client, task_queue=settings.task_queue(Pool.ACTORS))


def create_app(
    settings: Settings,
    *,
    client: Client,
    store: ChatStore,
    idempotency: IdempotencyStore,
    workers: WorkerRegistry,
    task_store: TaskStore,
    model_stores: ModelStores,
    index_store: IndexStore,
    tracing: Tracing | None = None,
    make_service: MakeService = ChatService,
    make_actors: MakeActors = actors_of,
    make_inference: MakeInference = by_workers,
    make_searching: MakeSearching = by_index_workers,
) -> FastAPI:
    """The app. The parts are the caller's to open and close; feed and service are made by its lifespan."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with (
            ChatFeed(store).running() as feed,
            serve_tasks(client, make_actors(client, settings), task_store, settings) as served,
            serve_models(client, workers, model_stores, settings, make_inference) as hosted,
            serve_indexes(
                SearchingParts(client, workers, model_stores.payloads, settings),
                index_store,
                hosted.inference,
                make_searching,
            ) as served_indexes,
        ):
            yield State(
                parts=Parts(
                    settings=settings,
                    service=make_service(client, store, settings, hosted.registry),
                    feed=feed,
                    tasks=served,
                    inference=hosted.inference,
                    models=hosted.admin,
                    jobs=hosted.jobs,
                    indexes=served_indexes,
                    idempotency=Idempotency(idempotency, lease_s=settings.ask_timeout_s + _LEASE_MARGIN_S),
                    workers=workers,
                    readiness=Readiness(
                        client=client,
                        store=store,
                        workers=workers,
                        feeds=(feed, served.feed),
                        settings=settings,
                    ),
                    principal=Principal(settings.principal),
                )
            )

    app = FastAPI(
        title="Goatherd",
        version=__version__,
        lifespan=lifespan,
        redoc_url=None,
        # A redirect would be made from the Host header, and loses the body of a POST with many clients.
        redirect_slashes=False,
    )
    for router in (
        messages.router,
        messages.queries,
        # Early: routes are tried in turn, and searches come often.
        index_search.router,
        chat.router,
        chat.queries,
        chat_streams.router,
        subtasks.router,
        subtasks.queries,
        tasks.router,
        tasks.queries,
        task_streams.router,
        openai_text.router,
        openai_media.router,
        openai_models.router,
        jobs.router,
        indexes.router,
        indexes.queries,
        index_documents.router,
        index_documents.queries,
        # Take whatever is below a list of documents: what the others take comes before.
        index_documents.one,
        index_documents.one_queries,
        models.router,
        hf_models.router,
        # Takes whatever is below /models: what the others take comes before.
        models.one,
        hf_models.address,
        system.router,
    ):
        _mount(app, router)
    app.add_exception_handler(StoredProblem, on_stored_problem)
    handle_errors(app)
    openapi.describe(app, settings)
    # The last one added is the outermost.
    app.add_middleware(Guard, settings=settings)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
            max_age=_CORS_MAX_AGE_S,
        )
    app.add_middleware(Head)
    app.add_middleware(Observe)
    if tracing is not None:
        tracing.instrument_app(app)
    return app


def _mount(app: FastAPI, router: APIRouter) -> None:
    # Not `include_router`: FastAPI matches what was included twice, a quarter of a small request's time.
    app.router.routes.extend(router.routes)
