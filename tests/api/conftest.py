"""The app over fakes, called in process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from activities.backends.memory_indexes import MemoryIndexStore
from activities.backends.memory_jobs import MemoryJobStore
from activities.backends.memory_models import MemoryModelCatalog, MemoryPieceFeed
from activities.backends.memory_tasks import MemoryTaskStore
from activities.ports import WorkerStatus
from api.app import create_app
from api.index_parts import MakeSearching, by_index_workers
from api.model_parts import MakeInference, ModelStores, by_workers
from goatherd.contracts.inference import ModelSpec
from goatherd.settings import Settings
from tests.api.fakes import FakeKeys, FakeService, FakeStore, FakeTemporal, FakeWorkers
from tests.api.task_house import LocalActors, TaskHouse

BASE = "http://localhost:8080"


def make_settings(**changes: Any) -> Settings:
    models = {"tiny": ModelSpec(provider="scripted"), "other": ModelSpec(provider="scripted")}
    return Settings(_env_file=None, **{"models": models, "model": "tiny", **changes})


@dataclass
class House:
    """An app that runs, and what it runs on."""

    app: FastAPI
    http: httpx.AsyncClient
    service: FakeService
    store: FakeStore
    keys: FakeKeys
    workers: FakeWorkers
    temporal: FakeTemporal
    tasks: TaskHouse

    async def session(self, **body: Any) -> str:
        answer = await self.http.post("/chat", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def message(self, session: str, content: str = "hi", **body: Any) -> dict[str, Any]:
        answer = await self.http.post(f"/chat/{session}/message", json={"content": content, **body})
        assert answer.status_code == 201, answer.text
        return cast("dict[str, Any]", answer.json())


def ready_worker(**changes: Any) -> WorkerStatus:
    given = {"pools": ("actors", "inference", "store"), "state": "ready", "models": {"tiny": "ready"}}
    return WorkerStatus(identity="w1", **{**given, **changes})


def build(
    settings: Settings,
    actors: LocalActors | None = None,
    make_inference: MakeInference = by_workers,
    *,
    indexes: MemoryIndexStore | None = None,
    make_searching: MakeSearching = by_index_workers,
) -> tuple[FastAPI, FakeService, FakeStore, FakeKeys, FakeWorkers, FakeTemporal]:
    given = actors or LocalActors(MemoryTaskStore())
    store, keys, workers, temporal = FakeStore(), FakeKeys(), FakeWorkers(ready_worker()), FakeTemporal()
    service = FakeService(store, settings)
    app = create_app(
        settings,
        client=cast(Any, temporal),
        store=cast(Any, store),
        idempotency=keys,
        workers=workers,
        task_store=given.store,
        model_stores=ModelStores(MemoryModelCatalog(), MemoryPieceFeed(), MemoryJobStore()),
        index_store=indexes or MemoryIndexStore(),
        make_actors=lambda *_: given,
        make_service=lambda *_: cast(Any, service),
        make_inference=make_inference,
        make_searching=make_searching,
    )
    return app, service, store, keys, workers, temporal


class WithLifespan:
    """Runs the app's lifespan around its use, as a server does, and hands its state to each request."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self.state: dict[str, Any] = {}

    async def __aenter__(self) -> WithLifespan:
        self._context = self._app.router.lifespan_context(self._app)
        self.state = dict(cast("dict[str, Any]", await self._context.__aenter__()))
        return self

    async def __aexit__(self, *failure: Any) -> None:
        await self._context.__aexit__(*failure)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app({**scope, "state": dict(self.state)}, receive, send)


async def _house(settings: Settings) -> AsyncIterator[House]:
    actors = LocalActors(MemoryTaskStore())
    app, service, store, keys, workers, temporal = build(settings, actors)
    async with WithLifespan(app) as running:
        transport = httpx.ASGITransport(running, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
            tasks = TaskHouse(http, actors.store, actors, running.state["parts"].tasks)
            yield House(app, http, service, store, keys, workers, temporal, tasks)
    await actors.close()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async for one in _house(make_settings()):
        yield one


@pytest.fixture
async def house_of(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    """Parametrized indirectly with changes to the settings."""
    async for one in _house(make_settings(**request.param)):
        yield one


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is a whole problem of this kind."""
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "instance", "code", "request_id"} <= problem.keys()
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    return cast("dict[str, Any]", problem)
