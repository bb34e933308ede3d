"""A server that speaks OpenAI's API as far as the provider asks: chats by the scripted model, embeddings,
sounds and images that are made from what was sent. It keeps what it was asked."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response, UploadFile
from fastapi.responses import JSONResponse, StreamingResponse

from activities.backends.scripted import ScriptedChatModel
from activities.ports import ChatRequest
from goatherd.contracts.inference import ChatTurn, Finish, Generation

KEY = "key-that-nobody-may-see"
DIMENSIONS = 8
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


@dataclass
class OpenAIServer:
    """`window`: in messages; more are too long."""

    window: int | None = None
    base64_known: bool = True
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Somebody went away in the middle of a stream."""

    @property
    def app(self) -> FastAPI:
        app = FastAPI()
        app.middleware("http")(self._guard)
        app.post("/v1/chat/completions")(self.chat)
        app.post("/v1/completions")(self.complete)
        app.post("/v1/embeddings")(self.embed)
        app.post("/v1/audio/transcriptions")(self.transcribe)
        app.post("/v1/audio/translations")(self.transcribe)
        app.post("/v1/audio/speech")(self.speak)
        app.post("/v1/images/generations")(self.draw)
        return app

    async def _guard(self, request: Request, follow: Any) -> Response:
        self.headers.append(dict(request.headers))
        if request.headers.get("authorization") != f"Bearer {KEY}":
            message = f"Incorrect API key provided: {request.headers.get('authorization')}"
            return JSONResponse({"error": {"message": message, "code": "invalid_api_key"}}, 401)
        answer: Response = await follow(request)
        return answer

    async def chat(self, request: Request) -> Response:
        body = await self._body(request)
        messages = body["messages"]
        if self.window is not None and len(messages) > self.window:
            error = {"message": "maximum context length exceeded", "code": "context_length_exceeded"}
            return JSONResponse({"error": error}, 400)
        prefix = ""
        if body.get("continue_final_message"):
            *messages, last = messages
            prefix = last["content"]
        turns = [ChatTurn(role=one["role"], content=one["content"]) for one in messages]
        return self._stream(body, turns, prefix, "content")

    async def complete(self, request: Request) -> Response:
        body = await self._body(request)
        return self._stream(body, [ChatTurn(role="user", content=body["prompt"])], "", "text")

    def _stream(self, body: dict[str, Any], turns: list[ChatTurn], prefix: str, place: str) -> Response:
        given = {name: body.get(name) for name in Generation.model_fields}
        # What may still be made is counted without the prefix here.
        if prefix and given["max_tokens"]:
            given["max_tokens"] += len(prefix.split())
        request = ChatRequest(turns, Generation.model_validate(given), prefix)

        async def events() -> AsyncIterator[bytes]:
            ended = False
            try:
                async for one in ScriptedChatModel().stream(request):
                    choice: dict[str, Any] = {"index": 0, "finish_reason": None}
                    if isinstance(one, Finish):
                        choice |= {"finish_reason": one.reason, "delta": {}}
                        # As vLLM says it: OpenAI's own API does not tell.
                        choice["stop_reason"] = body["stop"][-1] if one.at_stop_text else None
                        yield _event({"choices": [choice]})
                        counts = one.usage.model_dump()
                        yield _event({"choices": [], "usage": counts})
                        yield b"data: [DONE]\n\n"
                        continue
                    choice |= {"delta": {"content": one.text}} if place == "content" else {"text": one.text}
                    if body.get("logprobs"):
                        choice["logprobs"] = {"content": [{"token": one.text, "logprob": -0.5}]}
                    yield _event({"choices": [choice]})
                ended = True
            finally:
                if not ended:
                    self.left.set()

        return StreamingResponse(events(), media_type="text/event-stream")

    async def embed(self, request: Request) -> Response:
        body = await self._body(request)
        if any("refuse me" in text for text in body["input"]):
            return JSONResponse({"error": {"message": "one of these won't do", "code": None}}, 400)
        size = body.get("dimensions") or DIMENSIONS
        data = []
        for index, text in enumerate(body["input"]):
            vector = vector_of(text)[:size]
            packed = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode()
            plain = body.get("encoding_format") != "base64" or not self.base64_known
            data.append({"index": index, "embedding": vector if plain else packed})
        count = sum(len(text.split()) for text in body["input"])
        return JSONResponse({"data": data[::-1], "usage": {"prompt_tokens": count, "total_tokens": count}})

    async def transcribe(self, request: Request) -> Response:
        async with request.form() as form:
            sound = form["file"]
            assert not isinstance(sound, str)
            upload: UploadFile = sound  # type: ignore[assignment]
            data = await upload.read()
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
            self.asked.append({**fields, "path": request.url.path, "file": upload.filename})
        text = f"heard {len(data)} bytes"
        if fields["response_format"] == "json":
            return JSONResponse({"text": text, "usage": {"type": "duration", "seconds": 3}})
        key, name = (
            ("words", "word") if fields.get("timestamp_granularities[]") == "word" else ("segments", "text")
        )
        parts = [{name: word, "start": n, "end": n + 0.5} for n, word in enumerate(text.split())]
        return JSONResponse({"text": text, "language": "english", "duration": 3.0, key: parts})

    async def speak(self, request: Request) -> Response:
        body = await self._body(request)
        return Response(f"{body['voice']} says {body['input']}".encode(), media_type="audio/wav")

    async def draw(self, request: Request) -> Response:
        body = await self._body(request)
        if body.get("response_format") != "b64_json" and not body["model"].startswith("gpt-image"):
            return JSONResponse({"data": [{"url": "https://example.org/image.png"}]})
        return JSONResponse({"data": [{"b64_json": base64.b64encode(PNG).decode()}]})

    async def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.asked.append({**body, "path": request.url.path})
        return body


def vector_of(text: str) -> list[float]:
    """The same for the same text, of length 1."""
    raw = [byte - 128.0 for byte in hashlib.sha256(text.encode()).digest()[:DIMENSIONS]]
    length = sum(one * one for one in raw) ** 0.5
    return [one / length for one in raw]


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()
