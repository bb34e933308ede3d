"""A session in full swing, seen from outside: who posts, who reads, and what has to be true of it then."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from activities.backends.scripted import ScriptedChatModel
from activities.ports import ChatRequest
from goatherd.contracts.inference import ChatTurn, Chunk, Generation

Json = dict[str, Any]

PATIENCE_S = 90.0
"""Until whatever is waited for has to have happened, on a machine that is busy with other things."""
RETRY_S = 0.1
FINISHED = ("message.completed", "message.failed", "message.cancelled")
_PASSING = (429, 503, 504)
_UNREACHABLE = (httpx.TransportError, OSError)


async def scripted_reply(content: str) -> str:
    """What the scripted model says to it, a function of the turns alone."""
    request = ChatRequest(
        turns=[ChatTurn(role="user", content=re.sub(r" ?delay_ms=\d+", "", content))],
        generation=Generation(),
        prefix="",
    )
    return "".join(
        [piece.text async for piece in ScriptedChatModel().stream(request) if isinstance(piece, Chunk)]
    )


class Reader:
    """A client that follows a session from its start to its end, whatever happens to its connections."""

    def __init__(self, url: str, session: str) -> None:
        self.url = url
        self.session = session
        self.events: list[Json] = []
        self.texts: dict[str, str] = {}
        self.times: dict[str, list[float]] = {}
        """When each piece of a message came."""
        self.faults: list[str] = []
        self.connections = 0
        self._cursor = "0"
        self._news = asyncio.Event()

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1]["type"] == "session.ended"

    def finish(self, message: str) -> Json | None:
        """The event that ended the message."""
        ends = (event for event in self.events if event.get("message") == message)
        return next((event for event in ends if event["type"] in FINISHED), None)

    def created(self, message: str) -> bool:
        return any(
            event.get("message") == message and event["type"] == "message.created" for event in self.events
        )

    async def until(self, true: Callable[[], bool], *, within: float = PATIENCE_S) -> None:
        """Returns once it is true; it is looked at whenever something was received."""
        async with asyncio.timeout(within):
            while not true():
                self._news.clear()
                await self._news.wait()

    async def run(self) -> None:
        """Until the session's end was received."""
        while not self.ended:
            self.connections += 1
            try:
                await self._follow()
            except (*_UNREACHABLE, ConnectionClosed, InvalidHandshake):
                pass
            if not self.ended:
                await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        raise NotImplementedError

    def _take(self, event: Json, cursor: str | None) -> None:
        if event["type"] == "message.delta":
            self._take_delta(event["message"], **event["data"])
        elif "seq" in event:
            if event["seq"] != len(self.events) + 1:
                self.faults.append(f"event {event['seq']} came after event {len(self.events)}")
            self.events.append(event)
        self._cursor = cursor or self._cursor
        self._news.set()

    def _take_delta(self, message: str, offset: int, text: str) -> None:
        held = self.texts.get(message, "")
        if offset != len(held):
            self.faults.append(f"text of {message} at {offset} came after {len(held)} of it")
        if self.finish(message) is not None:
            self.faults.append(f"text of {message} came after its end")
        self.texts[message] = held + text
        self.times.setdefault(message, []).append(time.monotonic())


class SseReader(Reader):
    """As a browser's `EventSource`: it comes back with the last id it got."""

    async def _follow(self) -> None:
        headers = {"last-event-id": self._cursor}
        timeout = httpx.Timeout(5, read=30)
        async with (
            httpx.AsyncClient(base_url=self.url, timeout=timeout) as http,
            http.stream("GET", f"/chat/{self.session}/events", headers=headers) as response,
        ):
            if response.status_code != 200:
                if response.status_code not in _PASSING:
                    self.faults.append(f"SSE answered {response.status_code}")
                return
            lines: dict[str, str] = {}
            async for line in response.aiter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    lines[name] = value
                    continue
                if "data" in lines:
                    self._take(orjson.loads(lines["data"]), lines.get("id"))
                lines = {}


class WsReader(Reader):
    """It comes back with `since` the last cursor it got."""

    async def _follow(self) -> None:
        url = f"{self.url.replace('http', 'ws', 1)}/chat/{self.session}/ws?since={self._cursor}"
        async with connect(url, open_timeout=10, close_timeout=1) as socket:
            async for raw in socket:
                frame = orjson.loads(raw)
                if frame["type"] == "event":
                    self._take(frame["event"], frame.get("cursor"))
                else:
                    self.faults.append(f"WS sent {frame}")


@dataclass
class Post:
    """A message that was answered with 2xx."""

    client_id: str
    content: str
    answer: Json
    began: float
    answered: float
    tries: int

    @property
    def reply(self) -> str | None:
        reply: str | None = self.answer.get("reply")
        return reply


@dataclass
class Talk:
    """A session and those who post in it."""

    http: httpx.AsyncClient
    session: str
    posts: list[Post] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    """Every answer that was no success."""

    @classmethod
    async def begin(cls, http: httpx.AsyncClient) -> Talk:
        made = await http.post("/chat", json={"title": "Kill me"})
        assert made.status_code == 201, made.text
        return cls(http, made.json()["id"])

    async def post(self, content: str, **more: Any) -> Post:
        """Posts until it is answered with 2xx, always with the same client id."""
        client_id = uuid4().hex
        body = {"content": content, "client_id": client_id, **more}
        began = time.monotonic()
        response, tries = await self.insist("POST", f"/chat/{self.session}/message", json=body)
        post = Post(client_id, content, response.json(), began, time.monotonic(), tries)
        self.posts.append(post)
        return post

    async def keep_posting(self, name: str, stop: Callable[[], bool], *, more: int = 2) -> None:
        """Posts again and again, each fourth with a reply, until asked to stop and then `more` times."""
        for n in itertools.count():
            more -= stop()
            if more < 0:
                return
            await self.post(f"{name} says {n}", reply=n % 4 == 3)
            await asyncio.sleep(0.05)

    async def end(self) -> None:
        await self.insist("DELETE", f"/chat/{self.session}")

    async def read(self, path: str = "", **query: Any) -> httpx.Response:
        return await self.http.get(f"/chat/{self.session}{path}", params=query)

    async def messages(self) -> list[Json]:
        """All of them, as the list gives them page by page."""
        found: list[Json] = []
        while True:
            after = {"after": found[-1]["seq"]} if found else {}
            page = (await self.read("/message", limit=100, **after)).raise_for_status().json()
            found += page["data"]
            if not page["has_more"]:
                return found

    async def insist(self, method: str, path: str, **request: Any) -> tuple[httpx.Response, int]:
        async with asyncio.timeout(PATIENCE_S):
            for tries in itertools.count(1):
                try:
                    response = await self.http.request(method, path, **request)
                except _UNREACHABLE:
                    pass
                else:
                    if response.is_success:
                        return response, tries
                    self.refused.append(response.status_code)
                    assert response.status_code in _PASSING, f"{method} {path}: {response.text}"
                await asyncio.sleep(RETRY_S)
        raise AssertionError("unreachable")


@dataclass(frozen=True)
class Recovery:
    """What those outside felt of a calamity, in seconds."""

    post_s: float
    """From the blow to the first answer to a post that began after it."""
    silence_s: float
    """The longest time without a piece of the long reply, for its SSE reader."""
    reply_s: float
    """From the blow to the long reply's end."""


async def live_through(
    url: str,
    calamity: Callable[[], Awaitable[None]],
    *,
    words: int = 120,
    delay_ms: int = 20,
    url_too: str | None = None,
) -> Recovery:
    """A session with a long reply, three who post and two who read; a calamity in the midst of the reply.

    Fails unless in the end it is as if nothing had happened. `url_too`: another replica, for the WebSocket.
    """
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        talk = await Talk.begin(http)
        sse, ws = SseReader(url, talk.session), WsReader(url_too or url, talk.session)
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for reader in (sse, ws):
                group.create_task(reader.run())
            long = await talk.post(f"[[words={words} delay_ms={delay_ms}]]")
            reply = long.reply
            assert reply is not None
            posting = [group.create_task(talk.keep_posting(name, over.is_set)) for name in "abc"]
            for reader in (sse, ws):
                await reader.until(lambda seen=reader: len(seen.texts.get(reply, "")) > 100)  # type: ignore[misc]
            assert sse.finish(reply) is None
            blow = time.monotonic()
            await calamity()
            over.set()
            await asyncio.gather(*posting)
            await sse.until(lambda: sse.finish(reply) is not None)
            done = time.monotonic()
            replies = [post.reply for post in talk.posts if post.reply]
            await sse.until(lambda: all(sse.finish(reply) for reply in replies))
            await talk.end()
        await check(talk, sse, ws)
        pieces = [blow, *(at for at in sse.times[reply] if at > blow), done]
        return Recovery(
            post_s=min(post.answered for post in talk.posts if post.began > blow) - blow,
            silence_s=max(after - before for before, after in itertools.pairwise(pieces)),
            reply_s=done - blow,
        )


async def check(talk: Talk, *readers: Reader) -> None:
    """Everything that was answered is there once, in order and whole, and was seen so by everyone."""
    events = await _whole_sequence(talk)
    messages = await talk.messages()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert 500 not in talk.refused
    _check_posts(talk.posts, events, messages)
    await _check_replies(events, messages)
    for reader in readers:
        assert reader.faults == []
        assert reader.events == events
        contents = {message["id"]: message["content"] for message in messages}
        assert {message: contents[message] for message in reader.texts} == reader.texts


async def _whole_sequence(talk: Talk) -> list[Json]:
    """As somebody gets it who only comes now."""
    late = SseReader(str(talk.http.base_url).rstrip("/"), talk.session)
    async with asyncio.timeout(PATIENCE_S):
        await late.run()
    assert late.faults == []
    assert late.connections == 1
    assert late.texts == {}, "text of a finished reply is not sent in pieces"
    return late.events


def _check_posts(posts: Sequence[Post], events: Sequence[Json], messages: Sequence[Json]) -> None:
    created = [event["data"]["message"] for event in events if event["type"] == "message.created"]
    said = {message["client_id"]: message for message in messages if message["role"] == "user"}
    assert [message["id"] for message in created] == [message["id"] for message in messages]
    assert len(said) == sum(message["role"] == "user" for message in messages)
    assert said.keys() == {post.client_id for post in posts}
    for post in posts:
        stored = said[post.client_id]
        assert stored["content"] == post.content
        assert stored["id"] == post.answer["id"]
        assert stored["seq"] == post.answer["seq"]
    replies = {message["id"] for message in messages if message["role"] == "assistant"}
    assert replies == {post.reply for post in posts if post.reply}


async def _check_replies(events: Sequence[Json], messages: Sequence[Json]) -> None:
    by_id = {message["id"]: message for message in messages}
    ends = [event for event in events if event["type"] in FINISHED]
    for message in messages:
        assert message["status"] == "completed", message
        if message["role"] != "assistant":
            continue
        assert message["content"] == await scripted_reply(by_id[message["parent"]]["content"])
        (end,) = [event for event in ends if event["message"] == message["id"]]
        assert end["type"] == "message.completed"
        assert end["data"]["content"] == message["content"]
