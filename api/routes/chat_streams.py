"""A session as it goes on: its events over SSE and WebSocket, and a single reply as it is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.websockets import WebSocket

from api import openapi, socket
from api.deps import All
from api.feed import ChatFeed
from api.follower import FINISHING
from api.frames import Cursor, Frame
from api.routes.chat import SessionPath, known_session
from api.schemas import Schema
from api.socket import ChatSocket, close, close_code
from api.sse import MEDIA_TYPE, EventStream
from goatherd.contracts.chat import Event, Message
from goatherd.contracts.ids import MESSAGE_ID
from goatherd.errors import GoatherdError

router = APIRouter(tags=["Events"])

_DOCUMENT_LAG_S = 0.02
_START = "0"
_SINCE = "since"


_CURSOR = rf"^[0-9]{{1,15}}(:{MESSAGE_ID.strip('^$')}:[0-9]{{1,10}})?$"


def _cursor(schema: dict[str, Any]) -> None:
    """Tells a cursor's pattern without checking it: what doesn't match is a malformed cursor, not a 422."""
    schema["anyOf"] = [{"type": "string", "pattern": _CURSOR}, {"type": "null"}]


_WEBSOCKET: Schema = {
    "path": "/chat/{session}/ws",
    "description": "The same events, and a way to talk: see docs/protocol.md.",
    "parameters": [{"name": "since", "in": "query", "schema": {"type": "string", "pattern": _CURSOR}}],
    "clientFrame": openapi.reference("ClientFrame"),
    "methods": {
        "message.send": {
            "params": openapi.reference("PostMessageBody"),
            "result": openapi.reference("PostedMessage"),
        },
        "message.cancel": {"params": openapi.reference("CancelParams")},
        "typing": {"params": openapi.reference("TypingParams")},
        "ping": {"params": openapi.reference("PingParams")},
        "ack": {"params": openapi.reference("AckParams")},
    },
    "serverFrames": {
        "success": "{type, id, result}",
        "error": "{type, id, error: {code, message, status, errors?}}",
        "event": "{type, event: Event | DeltaEvent | PassingEvent, cursor?}",
    },
    "closeCodes": {
        str(socket.DONE): "The session has ended. Don't come back.",
        str(socket.RESTART): "The server restarts. Come back with the last cursor.",
        str(socket.TRY_LATER): "A part is down. Come back after a while, with the last cursor.",
        str(socket.BAD_FRAME): "Not a frame, an unknown parameter or a malformed cursor. Don't repeat it.",
        str(socket.FORBIDDEN): "Not for you.",
        str(socket.NOT_FOUND): "There is no such session.",
        str(socket.SLOW): "You read too slowly. Come back with the last cursor.",
    },
}


class StreamQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    since: str | None = Field(
        None,
        description="Only what came after this cursor: a `seq`, or the `id` of an event of this stream. "
        "Default: from the session's beginning.",
        examples=["4", "4:msg_01k9w2x6hj3v8m5r7t0q4n1b2c:120"],
        json_schema_extra=_cursor,
    )


@router.get(
    "/chat/{session}/events",
    operation_id="followSession",
    summary="Follow a session's events",
    response_class=Response,
    response_description="The events, for as long as the session goes on and you read.",
    responses={
        200: {
            "content": {
                MEDIA_TYPE: openapi.event_stream('event: message.created\nid: 1\ndata: {"v":1,"seq":1,…}\n\n')
            }
        },
        204: {"description": "The session has ended, and you have seen its end. Don't come back."},
        **openapi.errors(*openapi.LIST_ERRORS),
    },
    openapi_extra={"x-websocket": _WEBSOCKET},
)
async def follow_session(
    session: SessionPath,
    parts: All,
    query: Annotated[StreamQuery, Query()],
    last_event_id: Annotated[
        str | None,
        Header(
            description="As `since`, and before it: an `EventSource` sends it by itself.",
            json_schema_extra=_cursor,
        ),
    ] = None,
) -> Response:
    """The session's events as Server-Sent Events: those after the cursor, then each as it happens.

    The `id` of an event is a cursor. Text of a reply in progress comes as `message.delta`; of a finished
    one there is `message.completed` with all of it. An idle stream has a `ping` every 15 s. The stream
    ends after `session.ended`; a client that reads too slowly is cut off.

    `WS /chat/{session}/ws` has the same events, and takes messages: `x-websocket` here describes it, and
    docs/protocol.md all of this, with a client.
    """
    known_session(session)
    await parts.service.authorize(parts.principal, session)
    # A browser that comes back asks for the same URL again, with the header saying where it was.
    since = last_event_id or query.since
    cursor = Cursor.parse(_START if since is None else since)
    if await parts.feed.check(session, cursor):
        return Response(status_code=204)
    return EventStream(parts.feed.follow(session, cursor))


@router.websocket("/chat/{session}/ws")
async def chat_socket(websocket: WebSocket, session: str, parts: All) -> None:
    """Talk in a session, and follow it.

    `?since=` is a cursor, as for the events; without it comes what is new, and the text so far of a reply
    that is being made. A socket that can't be opened is accepted and then closed, since browsers show
    their pages no other reason: 4400 malformed cursor or unknown parameter, 4404 no such session, 1013 try
    again later.
    """
    await websocket.accept()
    try:
        known_session(session)
        for name in websocket.query_params:
            if name != _SINCE:
                raise socket.BadQuery(f"There is no parameter {name[:40]!r}, only {_SINCE!r}.")
        await parts.service.authorize(parts.principal, session)
        since = websocket.query_params.get(_SINCE)
        if since is None:
            cursor = await parts.feed.end_of(session)
        else:
            cursor = Cursor.parse(since)
            await parts.feed.check(session, cursor)
    except GoatherdError as error:
        await close(websocket, close_code(error), error.message)
        return
    await ChatSocket(websocket, session, parts).serve(cursor)


def reply_stream(feed: ChatFeed, session_id: str, message: Message, reply: Message | None) -> Response:
    """A message and the reply to it as SSE, from `message.created` of both to the end of the reply.

    Nothing of other turns. The ids are cursors of the session: a client may go on with its events.
    """
    return EventStream(_turn(feed, session_id, message, reply))


async def _turn(
    feed: ChatFeed, session_id: str, message: Message, reply: Message | None
) -> AsyncGenerator[Frame]:
    ids = {message.id} if reply is None else {message.id, reply.id}
    awaited = set(ids)
    cursor = Cursor(message.seq - 1)
    async with aclosing(feed.follow(session_id, cursor, messages=ids)) as frames:
        async for frame in frames:
            yield frame
            event = frame.wire.item
            if not isinstance(event, Event):
                continue
            if event.type in FINISHING or (event.message == message.id):
                awaited.discard(event.message or "")
            if not awaited:
                return


async def wait_for_reply(
    feed: ChatFeed, session_id: str, reply_id: str, since_seq: int, timeout_s: float
) -> Message | None:
    """The reply when it is finished, as the store has it from then on; None if it isn't in time.

    `since_seq` is any number before its end. Raises `FeedClosed` (503) if the process shuts down.
    """
    try:
        async with (
            asyncio.timeout(timeout_s),
            aclosing(feed.follow(session_id, Cursor(since_seq), messages={reply_id})) as frames,
        ):
            async for frame in frames:
                if isinstance(frame.wire.item, Event) and frame.wire.item.type in FINISHING:
                    return await _stored(feed, frame.wire.item, reply_id)
    except TimeoutError:
        pass
    return None


async def _stored(feed: ChatFeed, end: Event, reply_id: str) -> Message:
    """An event may be seen a moment before its message's document follows."""
    while True:
        message = await feed.store.message(end.session, reply_id)
        if message is not None and message.version >= end.seq:
            return message
        await asyncio.sleep(_DOCUMENT_LAG_S)
