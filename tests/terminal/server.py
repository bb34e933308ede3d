"""A small stand-in for the API: the chat routes, with streams that follow a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

SESSION = "chat_01k9w2x6hj3v8m5r7t0q4n1b2c"
USER = "msg_01k9w2x6hj3v8m5r7t0q4n1b2d"
REPLY = "msg_01k9w2x6hj3v8m5r7t0q4n1b2e"

Step = bytes | Response | Callable[[], Any]


class Dropped(Exception):
    """The line breaks here."""


def session(**fields: Any) -> dict[str, Any]:
    return {
        "object": "chat",
        "id": SESSION,
        "status": "active",
        "model": "fake",
        "title": None,
        "created_at": "2026-11-22T12:00:00.000Z",
        "last_seq": 4,
    } | fields


@dataclass
class FakeApi:
    """What was asked, and what is to be answered. Each stream is a list of frames and of things to await.

    A None among `post_failures` is an answer that is lost on its way.
    """

    streams: list[list[Step]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    session: dict[str, Any] = field(default_factory=session)
    posts: list[dict[str, Any]] = field(default_factory=list)
    post_failures: list[Response | None] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    cursors: list[str | None] = field(default_factory=list)
    reply: dict[str, Any] | None = None
    cancel_failure: Response | None = None
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self) -> Starlette:
        one = "/chat/{session}"
        return Starlette(
            routes=[
                Route("/chat", self.create, methods=["POST"]),
                Route("/chat", self.sessions),
                Route(one, self.get_session),
                Route(one, self.end, methods=["DELETE"]),
                Route(f"{one}/message", self.post, methods=["POST"]),
                Route(f"{one}/message", self.list_messages),
                Route(f"{one}/message/{{message}}", self.get_message),
                Route(f"{one}/message/{{message}}/cancel", self.cancel, methods=["POST"]),
                Route(f"{one}/message/{{message}}/regenerate", self.regenerate, methods=["POST"]),
                Route(f"{one}/events", self.events),
            ]
        )

    async def create(self, request: Request) -> Response:
        body = await request.json()
        self.calls.append(f"create {body}")
        self.session["status"] = "active"
        return JSONResponse(self.session | body, 201)

    async def sessions(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self.session], "has_more": False})

    async def get_session(self, request: Request) -> Response:
        if request.path_params["session"] != SESSION:
            return problem(404, "not-found", "There is no such session.")
        return JSONResponse(self.session)

    async def end(self, request: Request) -> Response:
        self.session["status"] = "ended"
        return Response(status_code=204)

    async def post(self, request: Request) -> Response:
        self.posts.append(await request.json())
        self.calls.append(f"post {request.headers['accept']}")
        if self.post_failures:
            failure = self.post_failures.pop(0)
            return failure if failure is not None else StreamingResponse(self._stream([b"{", drop]), 201)
        return JSONResponse(message(USER, "user", self.posts[-1]["content"]) | {"reply": REPLY}, 201)

    async def list_messages(self, request: Request) -> Response:
        query = request.query_params
        messages = self.messages[::-1] if query["order"] == "desc" else self.messages
        return JSONResponse({"object": "list", "data": messages[: int(query["limit"])], "has_more": False})

    async def get_message(self, request: Request) -> Response:
        return JSONResponse(self.reply)

    async def cancel(self, request: Request) -> Response:
        self.calls.append(f"cancel {request.path_params['message']}")
        self.cancelled.set()
        if self.cancel_failure is not None:
            return self.cancel_failure
        return JSONResponse(message(request.path_params["message"], "assistant", "", "cancelled"))

    async def regenerate(self, request: Request) -> Response:
        self.calls.append(f"regenerate {request.path_params['message']}")
        self.keys.append(request.headers.get("idempotency-key"))
        if len(self.keys) == 1:
            return problem(503, "unavailable", "A moment, please.")
        return JSONResponse(message(REPLY, "assistant", "", "in_progress"), 201)

    async def events(self, request: Request) -> Response:
        self.cursors.append(request.headers.get("last-event-id"))
        steps = self.streams.pop(0)
        if steps and isinstance(steps[0], Response):
            return steps[0]
        return StreamingResponse(self._stream(steps), media_type="text/event-stream")

    async def _stream(self, steps: list[Step]) -> AsyncIterator[bytes]:
        yield b"retry: 1000\n\n"
        for step in steps:
            if isinstance(step, bytes):
                yield step
            elif not isinstance(step, Response):
                await step()


async def drop() -> None:
    """Breaks the line in the middle of a stream."""
    raise Dropped


def message(message_id: str, role: str, content: str, status: str = "completed") -> dict[str, Any]:
    return {"object": "message", "id": message_id, "role": role, "content": content, "status": status}


def problem(status: int, code: str, detail: str, **headers: str) -> Response:
    body = {"type": "about:blank", "title": "No", "status": status, "detail": detail, "code": code}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def frame(kind: str, cursor: str | None, data: dict[str, Any], message_id: str = REPLY) -> bytes:
    body = json.dumps(
        {"v": 1, "type": kind, "session": SESSION, "message": message_id, "data": data}, ensure_ascii=False
    )
    lines = [f"event: {kind}", *([f"id: {cursor}"] if cursor else []), f"data: {body}"]
    return ("\n".join(lines) + "\n\n").encode()


def delta(offset: int, text: str, message_id: str = REPLY) -> bytes:
    cursor = f"6:{message_id}:{offset + len(text)}"
    return frame("message.delta", cursor, {"offset": offset, "text": text}, message_id)


def finished(kind: str, content: str, **data: Any) -> bytes:
    return frame(f"message.{kind}", "7", {"content": content, **data})
