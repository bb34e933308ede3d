"""Server-Sent Events over a real server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from httpx_sse import EventSource, ServerSentEvent

from api import connections, sse
from api.frames import Cursor, Frame, ping, wire_form
from api.routes.chat_streams import reply_stream
from goatherd.contracts.chat import EventType
from goatherd.contracts.ids import new_id
from goatherd.errors import Unavailable
from tests.api.streams import House, StagedStore, Writer, eventually, feed_on, gathered, house_on, stop


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with house_on(StagedStore()) as house:
        yield house


@pytest.fixture
async def http(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{house.address}", timeout=5) as http:
        yield http


@asynccontextmanager
async def events(http: httpx.AsyncClient, url: str, **headers: str) -> AsyncIterator[AsyncIterator[Any]]:
    async with http.stream("GET", url, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        async with aclosing(EventSource(response).aiter_sse()) as parsed:
            yield parsed


async def take(source: AsyncIterator[ServerSentEvent], count: int) -> list[ServerSentEvent]:
    async with asyncio.timeout(5):
        return [await anext(source) for _ in range(count)]


def test_a_frame_is_an_event_with_its_cursor_as_id() -> None:
    store_event = ping(new_id("chat"))
    assert sse.encode(store_event).startswith(b"event: ping\ndata: {")
    frame = Frame(store_event.wire, Cursor(3, "msg_x", 4))
    assert sse.encode(frame) == b"event: ping\nid: 3:msg_x:4\ndata: " + frame.wire.body + b"\n\n"


async def test_a_stream_replays_and_goes_on(house: House, http: httpx.AsyncClient) -> None:
    writer = await house.chat()
    await writer.post("one")
    async with http.stream("GET", f"/chat/{writer.session}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-accel-buffering"] == "no"
        source = EventSource(response).aiter_sse()
        got = await take(source, 3)
        await writer.say("line\nbreak ")
        await writer.say("🐐")
        got += await take(source, 2)
        await writer.finish()
        got += await take(source, 2)
        await writer.end()
        got += await take(source, 1)
        with pytest.raises(StopAsyncIteration):
            await take(source, 1)
    reply = writer.events[1].message
    assert [one.id for one in got] == ["1", "2", "3", f"3:{reply}:11", f"3:{reply}:12", "4", "5", "6"]
    assert [one.event for one in got][3:] == [
        "message.delta",
        "message.delta",
        "message.completed",
        "run.completed",
        "session.ended",
    ]
    assert all(one.json()["type"] == one.event for one in got)
    assert [one.json()["data"] for one in got[3:5]] == [
        {"offset": 0, "text": "line\nbreak "},
        {"offset": 11, "text": "🐐"},
    ]


async def test_the_first_bytes_come_before_anything_happens(house: House, http: httpx.AsyncClient) -> None:
    writer = await house.chat()
    async with http.stream("GET", f"/chat/{writer.session}/events") as response:
        async with asyncio.timeout(5):
            assert await anext(response.aiter_raw()) == sse.HELLO


async def test_the_header_counts_before_the_query(house: House, http: httpx.AsyncClient) -> None:
    writer = await house.chat()
    for _ in range(5):
        await writer.post(reply=False)
    url = f"/chat/{writer.session}/events"
    async with events(http, f"{url}?since=2") as source:
        assert [one.id for one in await take(source, 1)] == ["3"]
    async with events(http, f"{url}?since=2", **{"Last-Event-ID": "4"}) as source:
        assert [one.id for one in await take(source, 1)] == ["5"]


async def test_a_stream_comes_back_in_the_middle_of_a_message(house: House, http: httpx.AsyncClient) -> None:
    writer = await house.chat()
    await writer.post()
    await writer.say("abcdef")
    last = f"3:{writer.reply}:2"
    async with events(http, f"/chat/{writer.session}/events", **{"Last-Event-ID": last}) as source:
        (delta,) = await take(source, 1)
    assert delta.json()["data"] == {"offset": 2, "text": "cdef"}
    assert delta.id == f"3:{writer.reply}:6"


async def test_who_has_seen_the_end_is_told_not_to_come_back(house: House, http: httpx.AsyncClient) -> None:
    writer = await house.chat()
    await writer.post(reply=False)
    await writer.end()
    url = f"/chat/{writer.session}/events"
    assert (await http.get(url, headers={"Last-Event-ID": "2"})).status_code == 204
    assert (await http.get(url, params={"since": "1"})).text.count("session.ended") == 2


@pytest.mark.parametrize("since", ["x", "", "-1", "1:msg_1:2", "99", "0x1", "1\0"])
async def test_a_bad_cursor_is_a_400(house: House, http: httpx.AsyncClient, since: str) -> None:
    writer = await house.chat()
    answer = await http.get(f"/chat/{writer.session}/events", params={"since": since})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed-cursor")


async def test_a_session_that_is_not_mine_is_a_404(house: House, http: httpx.AsyncClient) -> None:
    for session in (new_id("chat"), "chat_nonsense", "%00"):
        answer = await http.get(f"/chat/{session}/events")
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


async def test_a_store_that_is_away_is_a_503(house: House, http: httpx.AsyncClient) -> None:
    writer = await house.chat()
    house.service.fault = Unavailable("the store is away")
    answer = await http.get(f"/chat/{writer.session}/events")
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


async def test_a_client_that_goes_is_forgotten_at_once(house: House, http: httpx.AsyncClient) -> None:
    writer = await house.chat()
    await writer.post(reply=False)
    async with events(http, f"/chat/{writer.session}/events") as source:
        await take(source, 1)
        assert house.feed._followers
    await eventually(lambda: not house.feed._followers)


async def test_a_shutdown_ends_streams_at_once() -> None:
    house = House(StagedStore())
    serving = asyncio.create_task(house.server.serve(sockets=[house.socket]))
    writer = await house.chat()
    await writer.post(reply=False)
    async with (
        httpx.AsyncClient(base_url=f"http://{house.address}", timeout=5) as http,
        events(http, f"/chat/{writer.session}/events") as source,
    ):
        await take(source, 1)
        started = asyncio.get_running_loop().time()
        stopping = asyncio.create_task(stop(house, serving))
        assert [one async for one in source] == []
        await stopping
        assert asyncio.get_running_loop().time() - started < 3


async def test_a_client_that_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch, house: House) -> None:
    monkeypatch.setattr(sse, "SEND_TIMEOUT_S", 0.2)
    cut = asyncio.Event()

    def cut_off(connection: Any) -> None:
        connections.cut_off(connection)
        cut.set()

    monkeypatch.setattr(sse, "cut_off", cut_off)
    writer = await house.chat()
    loop = asyncio.get_running_loop()
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.setblocking(False)
        host, _, port = house.address.partition(":")
        await loop.sock_connect(peer, (host, int(port)))
        request = f"GET /chat/{writer.session}/events HTTP/1.1\r\nHost: {house.address}\r\n\r\n"
        await loop.sock_sendall(peer, request.encode())
        await loop.sock_recv(peer, 4096)
        async with asyncio.timeout(20):
            while not cut.is_set():
                await writer.post("x" * 200_000, reply=False)
                await asyncio.sleep(0)
        await eventually(lambda: not (house.server.server_state.connections or house.feed._followers))


async def test_a_reply_stream_shows_one_turn_and_ends() -> None:
    store = StagedStore()
    writer = Writer(store)
    async with feed_on(store) as feed:
        await writer.post("an earlier note", reply=False)
        message, reply = await writer.post("go")
        response = reply_stream(feed, writer.session, message, reply)
        sent: list[dict[str, Any]] = []
        more = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(part: Any) -> None:
            sent.append(part)
            more.set()

        running = asyncio.create_task(response({"type": "http"}, receive, send))
        while not any(b"run.started" in part.get("body", b"") for part in sent):
            more.clear()
            await more.wait()
        await writer.post("somebody else's", reply=False)
        await writer.say("abc")
        await writer.finish("cancelled")
        await gathered(running)
    body = b"".join(part.get("body", b"") for part in sent).decode()
    data = [orjson.loads(line[6:]) for line in body.splitlines() if line.startswith("data: ")]
    assert reply is not None
    assert {one["message"] for one in data} == {message.id, reply.id}
    assert [one["type"] for one in data if one["type"] != "message.delta"] == [
        "message.created",
        "message.created",
        "run.started",
        "message.cancelled",
    ]
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_an_event_has_no_empty_fields() -> None:
    writer = Writer(StagedStore())
    ended = orjson.loads(wire_form(writer._event(EventType.SESSION_ENDED)).body)
    assert set(ended) == {"v", "seq", "id", "type", "session", "ts", "data"}
