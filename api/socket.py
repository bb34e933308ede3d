"""One client's WebSocket: what it asks is done and answered, and what happens in its session is sent to it.

Client frames are `{id, method, params}`, server frames `{type: "success" | "error", id, …}` and
`{type: "event", event, cursor}`. Everything that could grow is bounded: frames at work, frames that wait to
be sent, and the time that sending may take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from api.connections import cut_off
from api.deps import Parts
from api.errors import invalid_fields, problem_fields
from api.frames import Cursor, Frame
from api.schemas import (
    AckParams,
    CancelParams,
    ClientFrame,
    PingParams,
    PostedMessage,
    PostMessageBody,
    TypingParams,
)
from api.subscription import FeedClosed, SlowConsumer
from goatherd.contracts.chat import Ephemeral, PostMessage
from goatherd.contracts.ids import new_id
from goatherd.contracts.model import Json, rfc3339
from goatherd.errors import Forbidden, GoatherdError, Invalid, MalformedCursor, NotFound
from goatherd.telemetry import get_logger
from goatherd.telemetry.metrics import OPEN_SOCKETS, SLOW_CONSUMERS
from goatherd.waiting import put_down

DONE = 1000
RESTART = 1012
TRY_LATER = 1013
BAD_FRAME = 4400
FORBIDDEN = 4403
NOT_FOUND = 4404
SLOW = 4408

SEND_TIMEOUT_S = 5.0
AT_WORK = 16
"""Frames of one client that are worked on at once; after one more, none is read."""
_FINISH_S = 5.0
_CLOSE_S = 1.0
_TYPING_EVERY_S = 0.5
_PARAMS = "params"
_LONGEST_REASON = 120

log = get_logger(__name__)


class UnknownMethod(Invalid):
    code = "unknown-method"


class BadQuery(Invalid):
    """The socket's address has a parameter that there isn't."""

    code = "unknown-parameter"


_ID: TypeAdapter[str | int] = TypeAdapter(str | int, config=ConfigDict(strict=True, str_max_length=128))

Model = TypeVar("Model", bound=BaseModel)
Method = Callable[["ChatSocket", Json], Awaitable[Json]]


def close_code(error: GoatherdError) -> int:
    """The code that a socket is closed with that can't be opened, or can't go on."""
    codes: dict[type[GoatherdError], int] = {
        SlowConsumer: SLOW,
        FeedClosed: RESTART,
        NotFound: NOT_FOUND,
        Forbidden: FORBIDDEN,
        MalformedCursor: BAD_FRAME,
        BadQuery: BAD_FRAME,
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), TRY_LATER)


async def close(websocket: WebSocket, code: int, reason: str) -> None:
    """Closes, whether or not the client still listens."""
    with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
        async with asyncio.timeout(_CLOSE_S):
            await websocket.close(code, short(reason))


def short(reason: str) -> str:
    """A reason as far as it fits into a close frame: whole sentences, or at least whole words."""
    if len(reason.encode()) <= _LONGEST_REASON:
        return reason
    cut = reason.encode()[: _LONGEST_REASON - 3].decode(errors="ignore")
    sentences, stop, _ = cut.rpartition(". ")
    if stop:
        return f"{sentences}."
    words = cut.rpartition(" ")[0] or cut
    return f"{words.rstrip(' ,;:')}…"


class ChatSocket:
    """An accepted socket on a session that is its client's."""

    def __init__(self, websocket: WebSocket, session: str, parts: Parts) -> None:
        self._websocket = websocket
        self._session = session
        self._parts = parts
        # Tells this socket from others of the session, for what should not come back to its sender.
        self._id = new_id("req")
        self._over: asyncio.Future[tuple[int, str] | None] = asyncio.get_running_loop().create_future()
        self._slots = asyncio.Semaphore(AT_WORK)
        self._working: set[asyncio.Task[None]] = set()
        self._sending = asyncio.Lock()
        self._posting = asyncio.Lock()
        self._last_typing: tuple[bool, float] = (False, float("-inf"))

    async def serve(self, cursor: Cursor) -> None:
        """Until the session ends, the client goes, or one of them has to be told to go."""
        both = [asyncio.create_task(self._follow(cursor)), asyncio.create_task(self._read())]
        with OPEN_SOCKETS.labels("ws").track_inprogress():
            try:
                end = await self._over
                if end is not None and end[0] == SLOW:
                    SLOW_CONSUMERS.inc()
                    log.info("cut off a socket that reads too slowly")
                    cut_off(self._websocket)
                elif self._working:
                    # What was asked for before is done all the same: a client that went may not have waited.
                    in_a_hurry = end is not None and end[0] == RESTART
                    await asyncio.wait(self._working, timeout=_CLOSE_S if in_a_hurry else _FINISH_S)
            finally:
                await put_down(*both, *self._working)
            if end is not None:
                await close(self._websocket, *end)

    def _end(self, code: int, reason: str) -> None:
        if not self._over.done():
            self._over.set_result((code, reason))

    def _gone(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    # -- to the client

    async def _follow(self, cursor: Cursor) -> None:
        try:
            async with aclosing(self._parts.feed.follow(self._session, cursor, ephemeral=True)) as frames:
                async for frame in frames:
                    if not self._is_own(frame):
                        await self._send(_encode(frame))
            self._end(DONE, "The session has ended.")
        except WebSocketDisconnect:
            self._gone()
        except GoatherdError as error:
            self._end(close_code(error), error.message)
        except Exception:
            log.exception("following a session failed")
            self._end(TRY_LATER, "Something went wrong on our side; connect again with the last cursor.")

    def _is_own(self, frame: Frame) -> bool:
        return isinstance(frame.wire.item, Ephemeral) and frame.wire.item.data.get("connection") == self._id

    async def _send(self, text: bytes) -> None:
        """Raises `SlowConsumer`, or `WebSocketDisconnect`."""
        async with self._sending:
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._websocket.send_text(text.decode())
            except TimeoutError:
                raise SlowConsumer from None
            except WebSocketDisconnected:
                raise WebSocketDisconnect(1006) from None

    # -- from the client

    async def _read(self) -> None:
        try:
            while True:
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    self._gone()
                    return
                # A frame waits here, and the client's TCP with it, while enough of them are at work.
                await self._slots.acquire()
                fault = self._take(message.get("text"))
                if fault is not None:
                    self._end(BAD_FRAME, fault)
                    return
        except Exception:
            log.exception("reading a socket failed")
            self._end(TRY_LATER, "Something went wrong on our side; connect again with the last cursor.")

    def _take(self, text: str | None) -> str | None:
        """Starts work on a frame; or says what is wrong with it, if it isn't one."""
        limit = self._parts.settings.max_body_bytes
        if text is None:
            return "Frames are JSON in text messages; this one is binary."
        if len(text) > limit or len(raw := text.encode()) > limit:
            return f"A frame has {limit} bytes at most."
        try:
            content = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            return f"A frame has to be JSON: {error}."
        if not isinstance(content, dict):
            return "A frame is an object {id, method, params}."
        task = asyncio.create_task(self._work(content))
        self._working.add(task)
        task.add_done_callback(self._worked)
        return None

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self._slots.release()

    async def _work(self, content: Json) -> None:
        frame_id = _readable_id(content.get("id"))
        try:
            answer = await self._answer(frame_id, content)
            await self._send(answer)
        except SlowConsumer as error:
            self._end(SLOW, error.message)
        except WebSocketDisconnect:
            self._gone()

    async def _answer(self, frame_id: str | int | None, content: Json) -> bytes:
        try:
            request = _validated(ClientFrame, content)
            if request.id is not None and frame_id is None:
                raise Invalid("An id is a whole number, or a text of up to 128 characters.", pointer="/id")
            method = _METHODS.get(request.method)
            if method is None:
                raise UnknownMethod(
                    f"There is no method {request.method[:80]!r}. There are: {', '.join(_METHODS)}.",
                    pointer="/method",
                )
            try:
                result = await method(self, request.params)
            except GoatherdError as error:
                if error.pointer is not None:
                    error.pointer = f"/{_PARAMS}{error.pointer}"
                raise
            return orjson.dumps({"type": "success", "id": frame_id, "result": result})
        except GoatherdError as error:
            fields = problem_fields(error)
        except Exception:
            log.exception("a frame failed")
            fields = problem_fields(GoatherdError("unforeseen"))
        told = {"code": fields["code"], "message": fields["detail"], "status": fields["status"]}
        if "errors" in fields:
            told["errors"] = fields["errors"]
        return orjson.dumps({"type": "error", "id": frame_id, "error": told})

    async def _send_message(self, params: Json) -> Json:
        body = _validated(PostMessageBody, params, _PARAMS)
        order = PostMessage(
            content=body.content,
            role=body.role,
            id=new_id("msg"),
            client_id=body.client_id,
            parent=body.parent_id,
            on_busy=body.on_busy,
            reply=body.reply,
            reply_id=new_id("msg"),
            model=body.model,
            generation=body.generation.contract() if body.generation else None,
            metadata=body.metadata,
        )
        # First come, first served, and one at a time: so a client's messages keep the order it sent them in.
        async with self._posting:
            message, reply = await self._parts.service.post(self._parts.principal, self._session, order)
        fields = message.model_dump()
        return PostedMessage(**fields, reply=reply.id if reply else None).model_dump(mode="json")

    async def _cancel_message(self, params: Json) -> Json:
        target = _validated(CancelParams, params, _PARAMS).message
        await self._parts.service.cancel(self._parts.principal, self._session, target)
        return {"message": target}

    async def _typing(self, params: Json) -> Json:
        typing = _validated(TypingParams, params, _PARAMS).typing
        now = asyncio.get_running_loop().time()
        before, at = self._last_typing
        if typing != before or now - at >= _TYPING_EVERY_S:
            self._last_typing = (typing, now)
            data = {"typing": typing, "connection": self._id, "principal": self._parts.principal.id}
            await self._parts.service.store.publish(
                Ephemeral(session=self._session, type="typing", ts=datetime.now(UTC), data=data)
            )
        return {}

    async def _ping(self, params: Json) -> Json:
        _validated(PingParams, params, _PARAMS)
        return {"ts": rfc3339(datetime.now(UTC))}

    async def _ack(self, params: Json) -> Json:
        """Nothing is kept for a client that an acknowledgement could free: it is only answered."""
        return {"seq": _validated(AckParams, params, _PARAMS).seq}


_METHODS: dict[str, Method] = {
    "message.send": ChatSocket._send_message,
    "message.cancel": ChatSocket._cancel_message,
    "typing": ChatSocket._typing,
    "ping": ChatSocket._ping,
    "ack": ChatSocket._ack,
}


def _validated(model: type[Model], content: Json, *place: str) -> Model:
    """`place` is where in its frame the content is."""
    try:
        return model.model_validate_json(orjson.dumps(content))
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        raise invalid_fields([{**one, "loc": (*place, *one["loc"])} for one in errors]) from None


def _readable_id(value: Any) -> str | int | None:
    try:
        return _ID.validate_python(value)
    except ValidationError:
        return None


def _encode(frame: Frame) -> bytes:
    if frame.cursor is None:
        return b'{"type":"event","event":%b}' % frame.wire.body
    return b'{"type":"event","event":%b,"cursor":"%b"}' % (frame.wire.body, str(frame.cursor).encode())
