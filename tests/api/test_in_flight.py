"""Bodies of requests that a process has in hand: together they are bounded."""

from __future__ import annotations

import asyncio

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.middleware import Guard
from tests.api.conftest import BASE, make_settings

LARGE = b"x" * 400_000
MOST = 1_000_000
PATH = "/inference/job"


class Slow:
    """Reads a body, and answers when it is let."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.read = asyncio.Semaphore(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        self.read.release()
        await self.gate.wait()
        await Response(str(len(body)))(scope, receive, send)


def client_of(app: Slow) -> httpx.AsyncClient:
    guard = Guard(app, settings=make_settings(max_bytes_in_flight=MOST))
    return httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url=BASE)


async def test_what_is_too_much_together_is_turned_away_until_there_is_room() -> None:
    app = Slow()
    async with client_of(app) as client:
        first = [asyncio.create_task(client.post(PATH, content=LARGE)) for _ in range(2)]
        for _ in first:
            await app.read.acquire()
        refused = await client.post(PATH, content=LARGE)
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-requests")
        assert int(refused.headers["retry-after"]) >= 1
        small = asyncio.create_task(client.post(PATH, content=b"small"))
        await app.read.acquire()
        app.gate.set()
        assert [answer.text for answer in await asyncio.gather(*first, small)] == ["400000", "400000", "5"]
        assert (await client.post(PATH, content=LARGE)).status_code == 200


async def test_one_that_is_larger_than_all_together_may_be_has_its_turn_alone() -> None:
    app = Slow()
    app.gate.set()
    async with client_of(app) as client:
        assert (await client.post(PATH, content=LARGE * 3)).text == "1200000"
