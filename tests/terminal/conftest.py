"""A fake API that is really served, and a chat that talks with it."""

from __future__ import annotations

import asyncio
import io
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
import uvicorn

from goatherd.terminal import Chat
from goatherd.terminal._api import Api
from goatherd.terminal._screen import Pipe
from tests.terminal.server import FakeApi


@asynccontextmanager
async def served(fake: FakeApi) -> AsyncIterator[str]:
    # A line that breaks on purpose is an error to uvicorn, told with a traceback.
    levels = {
        name: logging.getLogger(name).level for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi")
    }
    config = uvicorn.Config(fake.app(), log_config=None, log_level=logging.CRITICAL, lifespan="off")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    # Not `serve`, which would take over the signals of the test run.
    task = asyncio.create_task(server._serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


class Out(io.StringIO):
    """Tells when something is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()

    def write(self, text: str) -> int:
        self.written.set()
        return super().write(text)


@dataclass
class Talk:
    """A chat in a pipe, and what it wrote."""

    chat: Chat
    out: Out
    err: io.StringIO

    async def run(self, *lines: str) -> int:
        waiting = iter([*lines, None])

        async def read() -> str | None:
            return next(waiting)

        return await self.chat.run(read)


@pytest.fixture
def fake() -> FakeApi:
    return FakeApi()


@pytest.fixture
async def talk(fake: FakeApi) -> AsyncIterator[Talk]:
    out, err = Out(), io.StringIO()
    async with served(fake) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        screen = Pipe(out, err)
        api = Api(http, notice=screen.notice, patience_s=5.0, retry_s=0.01)
        talk = Talk(Chat(api, screen, interactive=False), out, err)
        yield talk
