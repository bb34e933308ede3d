"""WebSockets over a real server and a real client."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from api import connections
from api import socket as socket_module
from goatherd.contracts.ids import new_id
from goatherd.errors import Invalid, Unavailable
from tests.api.streams import House, StagedStore, Writer, eventually, gathered, house_on, stop


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with house_on(StagedStore(), max_body_bytes=300_000) as house:
        yield house


def url(house: House, session: str, query: str = "") -> str:
    return f"ws://{house.address}/chat/{session}/ws{query}"


async def receive(ws: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(5):
        frame: dict[str, Any] = orjson.loads(await ws.recv())
        return frame


async def ask(ws: ClientConnection, method: str, frame_id: Any = "1", **params: Any) -> dict[str, Any]:
    """The answer; events that come before it are dropped."""
    await ws.send(orjson.dumps({"id": frame_id, "method": method, "params": params}).decode())
    while (frame := await receive(ws))["type"] == "event":
        pass
    return frame


async def events(ws: ClientConnection, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        frame = await receive(ws)
        if frame["type"] == "event":
            found.append(frame)
    return found


async def closed(ws: ClientConnection) -> tuple[int, str]:
    async with asyncio.timeout(5):
        async for _ in received(ws):
            pass
    return ws.close_code or 0, ws.close_reason or ""


async def received(ws: ClientConnection) -> AsyncIterator[str | bytes]:
    with suppress(ConnectionClosed):
        while True:
            yield await ws.recv()


async def test_a_message_sent_is_answered_and_seen(house: House) -> None:
    writer = await house.chat()
    async with connect(url(house, writer.session)) as ws:
        answer = await ask(ws, "message.send", 7, content="hi", client_id="c1", metadata={"a": "b"})
        assert (answer["type"], answer["id"]) == ("success", 7)
        message = answer["result"]
        assert (message["content"], message["seq"], message["reply"]) == ("hi", 1, writer.reply)
    async with connect(url(house, writer.session, "?since=0")) as ws:
        got = await events(ws, 3)
        assert [one["cursor"] for one in got] == ["1", "2", "3"]
        assert [one["event"]["type"] for one in got] == ["message.created", "message.created", "run.started"]
        assert got[0]["event"]["message"] == message["id"]
        await writer.say("abc")
        (delta,) = await events(ws, 1)
        assert delta["cursor"] == f"3:{writer.reply}:3"
        assert delta["event"]["data"] == {"offset": 0, "text": "abc"}


async def test_without_since_there_is_what_is_new_and_the_reply_in_progress(house: House) -> None:
    writer = await house.chat()
    await writer.post()
    await writer.say("abc")
    async with connect(url(house, writer.session)) as ws:
        (delta,) = await events(ws, 1)
        assert delta["event"]["data"] == {"offset": 0, "text": "abc"}
        await writer.finish()
        assert [one["event"]["seq"] for one in await events(ws, 2)] == [4, 5]


async def test_a_reply_is_cancelled(house: House) -> None:
    writer = await house.chat()
    async with connect(url(house, writer.session)) as ws:
        reply = (await ask(ws, "message.send", content="hi"))["result"]["reply"]
        assert (await ask(ws, "message.cancel", "2", message=reply)) == {
            "type": "success",
            "id": "2",
            "result": {"message": reply},
        }
        answer = await ask(ws, "message.cancel", "3", message=reply)
        assert (answer["type"], answer["error"]["status"]) == ("error", 409)


async def test_typing_is_seen_by_the_others_on_every_replica_and_not_stored() -> None:
    store = StagedStore()
    async with house_on(store) as one, house_on(store) as two:
        writer = await one.chat()
        await two.chat(writer)
        async with (
            connect(url(one, writer.session)) as mine,
            connect(url(one, writer.session)) as near,
            connect(url(two, writer.session)) as far,
        ):
            for ws in (near, far):
                await ask(ws, "ping")
            await eventually(lambda: all(not each.reading for h in (one, two) for each in followers(h)))
            assert (await ask(mine, "typing"))["type"] == "success"
            for ws in (near, far):
                (seen,) = await events(ws, 1)
                assert (seen["event"]["type"], seen["event"]["data"]["typing"]) == ("typing", True)
                assert "seq" not in seen["event"]
                assert "cursor" not in seen
            await writer.post(reply=False)
            assert (await events(mine, 1))[0]["event"]["type"] == "message.created"
        assert await store.last_seq(writer.session) == 1


def followers(house: House) -> list[Any]:
    return [one for several in house.feed._followers.values() for one in several]


async def test_two_processes_on_one_store_see_each_others_posts() -> None:
    store = StagedStore()
    async with house_on(store) as one, house_on(store) as two:
        writer = await one.chat()
        await two.chat(writer)
        async with connect(url(one, writer.session)) as here, connect(url(two, writer.session)) as there:
            await ask(here, "message.send", content="from here", reply=False)
            assert (await events(there, 1))[0]["event"]["data"]["message"]["content"] == "from here"
            await ask(there, "message.send", content="from there", reply=False)
            seqs: list[int] = []
            while 2 not in seqs:
                seqs += [one["event"]["seq"] for one in await events(here, 1)]


async def test_ping_and_ack_are_answered(house: House) -> None:
    writer = await house.chat()
    async with connect(url(house, writer.session)) as ws:
        assert set((await ask(ws, "ping"))["result"]) == {"ts"}
        assert (await ask(ws, "ack", seq=3))["result"] == {"seq": 3}


@pytest.mark.parametrize(
    ("frame", "code", "where"),
    [
        ({"id": "1", "method": "nope"}, "unknown-method", "/method"),
        ({"id": "1"}, "invalid", "/method"),
        ({"id": "1", "method": 3}, "invalid", "/method"),
        ({"id": "1", "method": "ping", "params": []}, "invalid", "/params"),
        ({"id": "1", "method": "ping", "more": 1}, "invalid", "/more"),
        ({"id": "1", "method": "ping", "params": {"x": 1}}, "invalid", "/params/x"),
        ({"id": "1", "method": "ack", "params": {"seq": -1}}, "invalid", "/params/seq"),
        ({"id": "1", "method": "message.send"}, "invalid", "/params/content"),
        ({"id": "1", "method": "message.send", "params": {"content": ""}}, "invalid", "/params/content"),
        (
            {"id": "1", "method": "message.send", "params": {"content": "x", "reply": "no"}},
            "invalid",
            "/params/reply",
        ),
        (
            {"id": "1", "method": "message.cancel", "params": {"message": "../x"}},
            "invalid",
            "/params/message",
        ),
        ({"id": "1", "method": "typing", "params": {"typing": "yes"}}, "invalid", "/params/typing"),
    ],
)
async def test_a_wrong_frame_is_answered_with_an_error(
    house: House, frame: dict[str, Any], code: str, where: str
) -> None:
    writer = await house.chat()
    async with connect(url(house, writer.session)) as ws:
        await ws.send(orjson.dumps(frame).decode())
        answer = await receive(ws)
        assert (answer["type"], answer["id"]) == ("error", "1")
        error = answer["error"]
        assert (error["code"], error["status"]) == (code, 422)
        assert where in [one["pointer"] for one in error["errors"]]
        assert (await ask(ws, "ping"))["type"] == "success"


@pytest.mark.parametrize("frame_id", [1.5, True, [], {}, "x" * 200])
async def test_an_id_that_is_none_is_not_given_back(house: House, frame_id: Any) -> None:
    writer = await house.chat()
    async with connect(url(house, writer.session)) as ws:
        answer = await ask(ws, "ping", frame_id)
        assert (answer["type"], answer["id"], answer["error"]["code"]) == ("error", None, "invalid")
        assert [one["pointer"] for one in answer["error"]["errors"]] == ["/id"]


@pytest.mark.parametrize(
    "frame",
    ["", "nonsense", "[]", "3", '{"id":', "null", '{"id":NaN}', b'{"id":"1"}', "[" * 100_000, "x" * 300_001],
    ids=range(10),
)
async def test_what_is_no_frame_closes_with_4400(house: House, frame: str | bytes) -> None:
    writer = await house.chat()
    async with connect(url(house, writer.session)) as ws:
        await ws.send(frame)
        code, reason = await closed(ws)
        assert code == 4400
        assert "frame" in reason.lower()


async def test_a_socket_that_cannot_be_opened_says_why(house: House) -> None:
    writer = await house.chat()
    for session, query, code in (
        (new_id("chat"), "", 4404),
        ("nonsense", "", 4404),
        (writer.session, "?since=x", 4400),
        (writer.session, "?since=", 4400),
        (writer.session, "?since=99", 4400),
        (writer.session, "?since=0&limit=5", 4400),
        (writer.session, "?Since=0", 4400),
        (writer.session, "?since=" + "x" * 200, 4400),
        ("n" * 200, "", 4404),
    ):
        async with connect(url(house, session, query)) as ws:
            found, reason = await closed(ws)
            assert found == code
            assert reason.endswith((".", "…"))
            assert len(reason.encode()) <= 120
    house.service.fault = Unavailable("the store is away")
    async with connect(url(house, writer.session)) as ws:
        assert await closed(ws) == (1013, "the store is away")


@pytest.mark.parametrize(
    ("reason", "short"),
    [
        ("Short.", "Short."),
        ("x" * 120, "x" * 120),
        (f"First. Second is {'longer ' * 30}", "First."),
        (f"What is {'long ' * 30}", f"What is {'long ' * 20}long…"),
        ("🐐" * 100, "🐐" * 29 + "…"),
    ],
)
def test_a_reason_is_not_cut_within_a_word(reason: str, short: str) -> None:
    assert socket_module.short(reason) == short
    assert len(short.encode()) <= 120


async def test_what_the_service_finds_wrong_is_pointed_at_in_the_frame(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def post(*_: Any) -> None:
        raise Invalid("There is no such message.", pointer="/parent_id")

    writer = await house.chat()
    monkeypatch.setattr(house.service, "post", post)
    async with connect(url(house, writer.session)) as ws:
        error = (await ask(ws, "message.send", content="hi"))["error"]
        assert [one["pointer"] for one in error["errors"]] == ["/params/parent_id"]


async def test_the_end_of_the_session_is_delivered_and_closes_with_1000(house: House) -> None:
    writer = await house.chat()
    async with connect(url(house, writer.session)) as ws:
        await ask(ws, "ping")
        await writer.end()
        assert (await events(ws, 1))[0]["event"]["type"] == "session.ended"
        assert (await closed(ws))[0] == 1000
    async with connect(url(house, writer.session)) as ws:
        assert (await closed(ws))[0] == 1000


async def test_messages_keep_their_order_while_other_frames_overtake_them(house: House) -> None:
    writer = await house.chat()
    gate = house.service.gates["first"] = asyncio.Event()
    async with connect(url(house, writer.session)) as ws:
        for number, content in enumerate(["first", "second", "third"]):
            params = {"content": content, "reply": False}
            await ws.send(orjson.dumps({"id": number, "method": "message.send", "params": params}).decode())
        assert (await ask(ws, "ping"))["type"] == "success"
        gate.set()
        answers: list[dict[str, Any]] = []
        while len(answers) < 3:
            frame = await receive(ws)
            if frame["type"] != "event":
                answers.append(frame)
        assert [(one["id"], one["result"]["seq"]) for one in answers] == [(0, 1), (1, 2), (2, 3)]
        assert house.service.began == ["first", "second", "third"]


async def test_no_more_frames_are_read_than_can_be_worked_on(house: House) -> None:
    writer = await house.chat()
    gate = house.service.gates["slow"] = asyncio.Event()
    async with connect(url(house, writer.session)) as ws:
        frame = orjson.dumps({"method": "message.send", "params": {"content": "slow", "reply": False}})
        for _ in range(socket_module.AT_WORK):
            await ws.send(frame.decode())
        ping = asyncio.create_task(ask(ws, "ping", "after"))
        await eventually(lambda: house.service.began == ["slow"])
        assert not ping.done()
        gate.set()
        (first,) = await gathered(ping)
        assert first["type"] == "success"


async def test_a_message_is_posted_even_if_its_sender_does_not_wait(house: House) -> None:
    writer = await house.chat()
    gate = house.service.gates["bye"] = asyncio.Event()
    async with connect(url(house, writer.session)) as ws:
        await ws.send(orjson.dumps({"method": "message.send", "params": {"content": "bye"}}).decode())
    await eventually(lambda: house.service.began == ["bye"])
    gate.set()
    await eventually(lambda: writer.seq == 3)
    await eventually(lambda: not house.feed._followers)


async def test_a_shutdown_closes_with_1012_at_once() -> None:
    house = House(StagedStore())
    serving = asyncio.create_task(house.server.serve(sockets=[house.socket]))
    writer = await house.chat()
    async with connect(url(house, writer.session)) as ws:
        await ask(ws, "ping")
        started = asyncio.get_running_loop().time()
        (_, (code, _)) = await gathered(stop(house, serving), closed(ws))
        assert code == 1012
        assert asyncio.get_running_loop().time() - started < 3


async def mute_client(house: House, session: str) -> socket.socket:
    """A client that opens a socket and then reads nothing, with as small a window as there is."""
    loop = asyncio.get_running_loop()
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.setblocking(False)
    host, _, port = house.address.partition(":")
    await loop.sock_connect(peer, (host, int(port)))
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET /chat/{session}/ws HTTP/1.1\r\nHost: {house.address}\r\nConnection: Upgrade\r\n"
    head += f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    await loop.sock_sendall(peer, head.encode())
    assert (await loop.sock_recv(peer, 4096)).startswith(b"HTTP/1.1 101")
    return peer


async def fill(writer: Writer, until: asyncio.Event) -> int:
    """Posts more than anybody's buffers hold; gives how many bytes."""
    posted = 0
    async with asyncio.timeout(20):
        while not until.is_set():
            await writer.post("x" * 200_000, reply=False)
            posted += 200_000
            await asyncio.sleep(0)
    return posted


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    monkeypatch.setattr(socket_module, "SEND_TIMEOUT_S", 0.3)
    event = asyncio.Event()

    def cut_off(connection: Any) -> None:
        connections.cut_off(connection)
        event.set()

    monkeypatch.setattr(socket_module, "cut_off", cut_off)
    return event


async def test_a_client_that_never_reads_is_cut_off_with_4408(house: House, cut: asyncio.Event) -> None:
    writer = await house.chat()
    with await mute_client(house, writer.session) as peer:
        async with connect(url(house, writer.session), max_queue=None) as other:
            posted = await fill(writer, cut)
            # The task and what waited are gone, though the window is full; the others are fine.
            await eventually(lambda: len(followers(house)) == 1)
            last = 0
            while last < writer.seq:
                (frame,) = await events(other, 1)
                last = frame["event"]["seq"]
        # If it looks after all, it finds some of it, and why there is no more.
        loop = asyncio.get_running_loop()
        got = bytearray()
        async with asyncio.timeout(20):
            while not got.endswith(reason := b"connect again with the last cursor."):
                chunk = await loop.sock_recv(peer, 1 << 20)
                assert chunk, "no close frame"
                got += chunk
    assert len(got) < posted / 2
    close = got[got.rindex(b"\x88") :]
    assert struct.unpack("!H", close[2:4]) == (4408,)
    assert close.endswith(reason)


async def test_a_client_that_never_reads_does_not_hold_up_a_shutdown(cut: asyncio.Event) -> None:
    house = House(StagedStore())
    serving = asyncio.create_task(house.server.serve(sockets=[house.socket]))
    writer = await house.chat()
    with await mute_client(house, writer.session):
        await fill(writer, cut)
        started = asyncio.get_running_loop().time()
        await stop(house, serving)
        assert asyncio.get_running_loop().time() - started < 5
