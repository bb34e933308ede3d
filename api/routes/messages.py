"""Messages over HTTP."""

from __future__ import annotations

import re
from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from activities.ports import Page
from api import openapi
from api.body import read_body
from api.deps import All, LeanRoute, Parts
from api.etags import etag_of, tagged
from api.idempotency import REPLAYED, Answer, Ids
from api.pages import MessageQuery, list_response, load_page, one_cursor, refuse_query
from api.routes import chat_streams
from api.routes.chat import SessionPath, known_session, message_position
from api.schemas import (
    CancelBody,
    FeedbackBody,
    MessageList,
    PostedMessage,
    PostMessageBody,
    RegenerateBody,
)
from api.sse import MEDIA_TYPE
from goatherd.contracts.chat import Feedback, Message, MessageStatus, PostMessage, Regenerate
from goatherd.contracts.ids import is_message_id
from goatherd.errors import NotFound, Unavailable

router = APIRouter(tags=["Messages"], route_class=LeanRoute)
# Those with a query that is validated.
queries = APIRouter(tags=["Messages"])

MessagePath = Annotated[
    str, Path(description="The message's id.", json_schema_extra=openapi.MESSAGE_ID_PARAMETER)
]

MAX_WAIT_S = 120
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,6})", re.IGNORECASE)
_OPEN = (MessageStatus.QUEUED, MessageStatus.IN_PROGRESS)


def known_message(session: str, message: str) -> None:
    """As `known_session`."""
    known_session(session)
    if not is_message_id(message):
        raise NotFound(f"There is no message {message[:200]!r} in session {session!r}.")


@router.post(
    "/chat/{session}/message",
    status_code=201,
    operation_id="postMessage",
    summary="Post a message",
    response_description="The message, and the id of the reply that is coming.",
    responses={
        201: {
            "model": PostedMessage,
            "headers": {**openapi.LOCATION, **openapi.ETAG, **openapi.REPLAYED},
            "content": {MEDIA_TYPE: openapi.event_stream("event: message.created\nid: 4\ndata: {…}\n\n")},
        },
        **openapi.errors(*openapi.POST_ERRORS),
    },
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY, openapi.PREFER],
        **openapi.body(
            PostMessageBody,
            required=True,
            examples={
                "plain": {"content": "What do goats eat?"},
                "no reply": {"content": "A note.", "reply": False},
                "sure to count once": {"content": "Hello!", "client_id": "7c9e6679"},
            },
        ),
    },
)
async def post_message(request: Request, session: SessionPath, parts: All) -> Response:
    """Adds a message; by default, the model replies to it.

    The answer comes as soon as the message is durable. `Prefer: wait=n` waits for the reply as well;
    `Accept: text/event-stream` gives the reply's events as they come. A client that goes away stops nothing.
    """
    refuse_query(request)
    known_session(session)
    body, raw = await read_body(request, PostMessageBody)
    posted: tuple[Message, Message | None] | None = None

    async def act(ids: Ids) -> Answer:
        nonlocal posted
        order = PostMessage(
            content=body.content,
            role=body.role,
            id=ids.make("msg", "message"),
            client_id=body.client_id,
            parent=body.parent_id,
            on_busy=body.on_busy,
            reply=body.reply,
            reply_id=ids.make("msg", "reply"),
            model=body.model,
            generation=body.generation.contract() if body.generation else None,
            metadata=body.metadata,
        )
        posted = await parts.service.post(parts.principal, session, order, repeated=ids.repeated)
        return _posted(*posted)

    answer = await parts.idempotency.run(request, parts.principal, raw, act)
    streams = MEDIA_TYPE in request.headers.get("accept", "")
    wait_s = _wait_s(request.headers.get("prefer"))
    if not streams and not wait_s:
        return answer.response()
    if posted is None:
        posted = await _posted_before(parts, session, answer)
    message, reply = posted
    if streams:
        response = chat_streams.reply_stream(parts.feed, session, message, reply)
        if answer.replayed:
            response.headers[REPLAYED] = "true"
        return response
    if reply is None:
        return answer.response()
    if reply.status in _OPEN:
        reply = await _waited(parts, session, reply.id, message.seq, wait_s)
    headers = {**answer.all_headers(), "preference-applied": f"wait={wait_s}"}
    content = _render_posted(message, reply.id, reply.model_dump_json())
    return Response(content, answer.status, headers=headers, media_type="application/json")


@queries.get(
    "/chat/{session}/message",
    operation_id="listMessages",
    summary="List messages",
    response_description="A part of the list.",
    responses={
        200: {"model": MessageList, "headers": openapi.LINK},
        **openapi.errors(*openapi.LIST_ERRORS),
    },
)
async def list_messages(
    request: Request, session: SessionPath, parts: All, query: Annotated[MessageQuery, Query()]
) -> Response:
    """The session's messages by `seq`, on all branches, oldest first."""
    known_session(session)
    one_cursor(query.after, query.before)
    await parts.service.authorize(parts.principal, session)
    after = await message_position(parts, session, query.after)
    before = await message_position(parts, session, query.before)

    async def load(page: Page) -> list[Message]:
        return await parts.service.messages(parts.principal, session, page)

    messages, has_more = await load_page(
        load, limit=query.limit, descending=query.order == "desc", after=after, before=before
    )
    return list_response(request, messages, has_more, query, after=query.after, before=query.before)


@router.get(
    "/chat/{session}/message/{message}",
    operation_id="getMessage",
    summary="Read a message",
    response_description="The message.",
    responses={
        200: {"model": Message, "headers": openapi.ETAG},
        304: {"description": "You have it already.", "headers": openapi.ETAG},
        **openapi.errors(*openapi.READ_ERRORS),
    },
    openapi_extra={"parameters": [openapi.IF_NONE_MATCH]},
)
async def get_message(request: Request, session: SessionPath, message: MessagePath, parts: All) -> Response:
    """One message. While its status is `in_progress`, its content is what there is so far."""
    refuse_query(request)
    known_message(session, message)
    found = await parts.service.message(parts.principal, session, message)
    return tagged(request, found.model_dump_json().encode())


@router.delete(
    "/chat/{session}/message/{message}",
    status_code=204,
    operation_id="deleteMessage",
    summary="Delete or cancel a message",
    response_description="It is deleted, or cancelled.",
    responses=openapi.errors(*openapi.DELETE_ERRORS),
)
async def delete_message(
    request: Request, session: SessionPath, message: MessagePath, parts: All
) -> Response:
    """Leaves a tombstone. A reply in progress is cancelled instead: what there is of it stays.

    Again gives 204 again; a cancelled reply is then deleted.
    """
    refuse_query(request)
    known_message(session, message)
    await parts.service.delete(parts.principal, session, message)
    return Response(status_code=204)


@router.post(
    "/chat/{session}/message/{message}/regenerate",
    status_code=201,
    operation_id="regenerateMessage",
    summary="Ask for another reply",
    response_description="The reply that is coming.",
    responses={
        201: {"model": Message, "headers": {**openapi.LOCATION, **openapi.ETAG, **openapi.REPLAYED}},
        **openapi.errors(*openapi.POST_ERRORS),
    },
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(
            RegenerateBody,
            required=False,
            examples={"plain": {}, "bolder": {"generation": {"temperature": 1.2}}},
        ),
    },
)
async def regenerate_message(
    request: Request, session: SessionPath, message: MessagePath, parts: All
) -> Response:
    """Another reply beside a reply, or to any other message. Both stay: messages form a tree."""
    refuse_query(request)
    known_message(session, message)
    body, raw = await read_body(request, RegenerateBody)

    async def act(ids: Ids) -> Answer:
        order = Regenerate(
            parent=message,
            reply_id=ids.make("msg", "reply"),
            model=body.model,
            generation=body.generation.contract() if body.generation else None,
            on_busy=body.on_busy,
        )
        reply = await parts.service.regenerate(parts.principal, session, message, order)
        content = reply.model_dump_json().encode()
        return Answer(201, content, _headers(session, reply.id, content))

    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()


@router.post(
    "/chat/{session}/message/{message}/cancel",
    operation_id="cancelMessage",
    summary="Stop a reply",
    response_description="The message as it is now.",
    responses={
        200: {"model": Message, "headers": {**openapi.ETAG, **openapi.REPLAYED}},
        **openapi.errors(*openapi.POST_ERRORS),
    },
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(CancelBody, required=False, examples={"plain": {}}),
    },
)
async def cancel_message(
    request: Request, session: SessionPath, message: MessagePath, parts: All
) -> Response:
    """Stops a reply that is queued or in progress; what there is of it stays.

    It may be `in_progress` for a moment longer: `message.cancelled` among the events is its end. A message
    that is finished is 409 `message-finished`.
    """
    refuse_query(request)
    known_message(session, message)
    _, raw = await read_body(request, CancelBody)

    async def act(_: Ids) -> Answer:
        await parts.service.cancel(parts.principal, session, message)
        content = (await parts.service.message(parts.principal, session, message)).model_dump_json().encode()
        return Answer(200, content, {"etag": etag_of(content)})

    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()


@router.post(
    "/chat/{session}/message/{message}/feedback",
    operation_id="giveFeedback",
    summary="Say what you think of a message",
    response_description="The message with the feedback.",
    responses={
        200: {"model": Message, "headers": {**openapi.ETAG, **openapi.REPLAYED}},
        **openapi.errors(*openapi.POST_ERRORS),
    },
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(
            FeedbackBody, required=True, examples={"good": {"rating": "up", "comment": "Just right."}}
        ),
    },
)
async def give_feedback(request: Request, session: SessionPath, message: MessagePath, parts: All) -> Response:
    """Keeps a rating with the message, in place of an earlier one."""
    refuse_query(request)
    known_message(session, message)
    body, raw = await read_body(request, FeedbackBody)

    async def act(ids: Ids) -> Answer:
        feedback = Feedback(rating=body.rating, comment=body.comment)
        rated = await parts.service.give_feedback(parts.principal, session, message, feedback)
        content = rated.model_dump_json().encode()
        return Answer(200, content, {"etag": etag_of(content)})

    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()


def _posted(message: Message, reply: Message | None) -> Answer:
    content = message.model_dump_json()
    body = _render_posted(message, reply.id if reply else None, "null", content)
    return Answer(201, body, _headers(message.session, message.id, content.encode()))


def _render_posted(message: Message, reply_id: str | None, reply: str, content: str | None = None) -> bytes:
    head = (content or message.model_dump_json())[:-1]
    coming = f'"{reply_id}"' if reply_id else "null"
    return f'{head},"reply":{coming},"reply_message":{reply}}}'.encode()


def _headers(session: str, message: str, content: bytes) -> dict[str, str]:
    return {"location": f"/chat/{session}/message/{message}", "etag": etag_of(content)}


async def _posted_before(parts: Parts, session: str, answer: Answer) -> tuple[Message, Message | None]:
    """The message and the reply that a stored answer is about, as they are now."""
    stored = orjson.loads(answer.body)
    message = await parts.service.message(parts.principal, session, stored["id"])
    if stored["reply"] is None:
        return message, None
    return message, await parts.service.message(parts.principal, session, stored["reply"])


async def _waited(parts: Parts, session: str, reply: str, since_seq: int, wait_s: int) -> Message:
    """The reply when it is finished, or as far as it is when there is no more waiting."""
    try:
        finished = await chat_streams.wait_for_reply(parts.feed, session, reply, since_seq, float(wait_s))
    except Unavailable:
        # The process is about to go. The message is durable all the same, so this is no error.
        finished = None
    return finished or await parts.service.message(parts.principal, session, reply)


def _wait_s(prefer: str | None) -> int:
    """Seconds of `Prefer: wait=n` (RFC 7240); 0 without one. What can't be understood is no preference."""
    found = _WAIT.search(prefer) if prefer else None
    return min(int(found.group(1)), MAX_WAIT_S) if found else 0
