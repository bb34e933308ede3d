"""A real server over models in memory, for clients of others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from api.connections import HttpConnection
from tests.api.conftest import build, make_settings
from tests.api.fake_inference import FakeInference, given


@dataclass
class InferenceHouse:
    """Where it is, and what stands behind it."""

    url: str
    inference: FakeInference

    def anew(self) -> InferenceHouse:
        """With models that nobody has asked yet."""
        vars(self.inference).update(vars(FakeInference()))
        return self

    def model(self, name: str, task: str | None = None) -> str:
        """The address of a model, or of one of its tasks."""
        address = f"{self.url}/models/{name}"
        return address if task is None else f"{address}/pipeline/{task}"


@asynccontextmanager
async def inference_house(**changes: Any) -> AsyncIterator[InferenceHouse]:
    inference = FakeInference()
    app = build(make_settings(**changes), make_inference=lambda _: given(inference))[0]
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http=HttpConnection, log_config=None, lifespan="on", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield InferenceHouse(f"http://127.0.0.1:{listening.getsockname()[1]}", inference)
    finally:
        server.should_exit = True
        async with asyncio.timeout(10):
            await serving
