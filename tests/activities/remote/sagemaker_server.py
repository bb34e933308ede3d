"""A server that speaks the wire of SageMaker's runtime: invocations, and response streams in AWS's framing of
events. Behind it are containers: functions, and two that generate text by the scripted model."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from activities.backends.scripted import ScriptedChatModel
from activities.ports import ChatRequest
from goatherd.contracts.inference import ChatTurn, Finish, Generation


@dataclass
class Asked:
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Container = Callable[[Asked], Response]
PART = 7
"""Bytes of a part of a stream: so that lines and characters are cut."""


@dataclass
class SageMakerServer:
    containers: dict[str, Container] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Somebody went away in the middle of a stream."""
    fault: str | None = None
    """What a stream ends in after its first parts: an exception of this name, or `cut`."""

    @property
    def app(self) -> FastAPI:
        app = FastAPI()
        app.post("/endpoints/{name}/invocations")(self.invoke)
        app.post("/endpoints/{name}/invocations-response-stream")(self.stream)
        return app

    async def invoke(self, name: str, request: Request) -> Response:
        asked = await self._asked(request)
        if name in ("tgi", "chat"):
            return await self._at_once(name, asked)
        if name not in self.containers:
            return failure(400, "ValidationError", f"Endpoint {name} of account 123 not found.")
        return self.containers[name](asked)

    async def stream(self, name: str, request: Request) -> Response:
        asked = await self._asked(request)
        if name in self.containers:
            return self.containers[name](asked)
        lines = _tgi(asked.json) if name == "tgi" else _chat(asked.json)
        return StreamingResponse(self._frames(lines), media_type="application/vnd.amazon.eventstream")

    async def _frames(self, lines: AsyncIterator[str]) -> AsyncIterator[bytes]:
        ended, sent = False, 0
        try:
            async for line in lines:
                data = line.encode()
                for start in range(0, len(data), PART):
                    if self.fault is not None and sent > 40:
                        ended = True
                        if self.fault != "cut":
                            message = json.dumps(
                                {"Message": "it broke", "ErrorCode": "ModelStreamInterrupted"}
                            )
                            kinds = {":message-type": "exception", ":exception-type": self.fault}
                            yield frame(kinds, message.encode())
                        return
                    kinds = {":message-type": "event", ":event-type": "PayloadPart"}
                    yield frame(kinds, data[start : start + PART])
                    sent += 1
            ended = True
        finally:
            if not ended:
                self.left.set()

    async def _at_once(self, name: str, asked: Asked) -> Response:
        lines = _tgi(asked.json) if name == "tgi" else _chat(asked.json)
        events = [json.loads(line.removeprefix("data:")) async for line in lines if "{" in line]
        if name == "tgi":
            whole = {key: events[-1][key] for key in ("generated_text", "details")}
            return JSONResponse([whole])
        text = "".join(event["choices"][0]["delta"].get("content", "") for event in events[:-1])
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return JSONResponse({"choices": [choice], "usage": events[-1]["usage"]})

    async def _asked(self, request: Request) -> Asked:
        asked = Asked(await request.body(), dict(request.headers))
        self.asked.append(asked)
        return asked


def failure(status: int, code: str, message: str, **more: Any) -> Response:
    headers = {"x-amzn-errortype": code}
    return JSONResponse({"Message": message, **more}, status, headers)


def framed(data: bytes) -> Response:
    """A stream of one part."""
    kinds = {":message-type": "event", ":event-type": "PayloadPart"}
    return Response(frame(kinds, data), media_type="application/vnd.amazon.eventstream")


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One message of AWS's event streams (`application/vnd.amazon.eventstream`): lengths, a checksum of
    these, headers, the payload, a checksum of all."""
    packed = b""
    for name, value in headers.items():
        packed += struct.pack("!B", len(name)) + name.encode()
        packed += b"\x07" + struct.pack("!H", len(value)) + value.encode()
    lengths = struct.pack("!II", len(packed) + len(payload) + 16, len(packed))
    message = lengths + struct.pack("!I", zlib.crc32(lengths)) + packed + payload
    return message + struct.pack("!I", zlib.crc32(message))


async def _tgi(body: dict[str, Any]) -> AsyncIterator[str]:
    """Events of text-generation-inference. The stop text is part of what it generates, as it is there."""
    wish = body["parameters"]
    prompt = [ChatTurn(role="user", content=body["inputs"])]
    generation = Generation(max_tokens=wish.get("max_new_tokens"))
    text, index = "", 0
    async for one in ScriptedChatModel().stream(ChatRequest(prompt, generation)):
        if isinstance(one, Finish):
            break
        index += 1
        text += one.text
        stopped = next((stop for stop in wish.get("stop", []) if stop in text), None)
        last = stopped is not None or index == _most(generation)
        event: dict[str, Any] = {
            "index": index,
            "token": {"id": 100 + index, "text": one.text, "logprob": -0.25, "special": False},
            "generated_text": None,
            "details": None,
        }
        yield f"data:{json.dumps(event, ensure_ascii=False)}\n\n"
        if last:
            break
    reason = "stop_sequence" if any(stop in text for stop in wish.get("stop", [])) else "eos_token"
    if index == generation.max_tokens:
        reason = "length"
    end = {
        "index": index + 1,
        "token": {"id": 2, "text": "</s>", "logprob": -0.1, "special": True},
        "generated_text": text,
        "details": {"finish_reason": reason, "generated_tokens": index, "input_length": 9},
    }
    yield f"data:{json.dumps(end, ensure_ascii=False)}\n\n"


def _most(generation: Generation) -> int:
    return generation.max_tokens or -1


async def _chat(body: dict[str, Any]) -> AsyncIterator[str]:
    turns = [ChatTurn(role=one["role"], content=one["content"]) for one in body["messages"]]
    given = {name: body.get(name) for name in Generation.model_fields}
    async for one in ScriptedChatModel().stream(ChatRequest(turns, Generation.model_validate(given))):
        delta = {"content": one.text} if not isinstance(one, Finish) else {}
        reason = one.reason if isinstance(one, Finish) else None
        event: dict[str, Any] = {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        if isinstance(one, Finish):
            event["usage"] = one.usage.model_dump()
        yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
    yield "data: [DONE]\n\n"
