"""Sessions over HTTP."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from activities.ports import Page
from api import openapi
from api.body import read_body
from api.deps import All, LeanRoute, Parts
from api.etags import etag_of, tagged
from api.idempotency import Answer, Ids
from api.pages import (
    DEFAULT_LIMIT,
    SessionQuery,
    TranscriptQuery,
    bad_message_cursor,
    list_response,
    load_page,
    one_cursor,
    refuse_query,
    render_list,
    seq_cursor,
    session_cursor,
)
from api.schemas import CreateSession, ForkBody, SessionList, SessionWithMessages
from goatherd.contracts.chat import Message, Session, StartSession
from goatherd.contracts.ids import is_chat_id, is_message_id
from goatherd.contracts.inference import Generation
from goatherd.errors import Invalid, NotFound

router = APIRouter(tags=["Sessions"], route_class=LeanRoute)
# Those with a query that is validated.
queries = APIRouter(tags=["Sessions"])

SessionPath = Annotated[
    str, Path(description="The session's id.", json_schema_extra=openapi.SESSION_ID_PARAMETER)
]

_CREATED = {"headers": {**openapi.LOCATION, **openapi.ETAG, **openapi.REPLAYED}}


def known_session(session: str) -> None:
    """What can't be an id is an unknown one, and nobody need be asked."""
    if not is_chat_id(session):
        raise NotFound(f"There is no session {session[:200]!r}.")


@router.post(
    "/chat",
    status_code=201,
    operation_id="createSession",
    summary="Start a session",
    response_description="The session.",
    responses={
        201: {"model": SessionWithMessages, **_CREATED},
        **openapi.errors(*openapi.POST_ERRORS),
    },
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(
            CreateSession,
            required=False,
            examples={
                "plain": {},
                "with a role to play": {"title": "Goats", "system": "You know everything about goats."},
            },
        ),
    },
)
async def create_session(request: Request, parts: All) -> Response:
    """Starts a session and gives it as `GET /chat/{session}` does. The body may be left out."""
    refuse_query(request)
    body, raw = await read_body(request, CreateSession)
    if body.agent is not None and body.agent not in openapi.AGENTS:
        raise Invalid(
            f"There is no agent {body.agent[:200]!r}. There is: {', '.join(openapi.AGENTS)}.",
            code="agent-not-found",
            pointer="/agent",
        )
    start = StartSession(
        title=body.title,
        agent=body.agent or openapi.AGENTS[0],
        model=body.model,
        system=body.system,
        labels=body.labels,
        metadata=body.metadata,
        generation=body.generation.contract() if body.generation else Generation(),
    )

    async def act(ids: Ids) -> Answer:
        session = await parts.service.create(parts.principal, ids.make("chat", "session"), start)
        return _created(session.id, _render(session, [], has_more=False, last_seq=0, replying=False))

    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()


@queries.get(
    "/chat",
    operation_id="listSessions",
    summary="List sessions",
    response_description="A part of the list.",
    responses={
        200: {"model": SessionList, "headers": openapi.LINK},
        **openapi.errors(400, 403, 422, 500, 503),
    },
)
async def list_sessions(request: Request, parts: All, query: Annotated[SessionQuery, Query()]) -> Response:
    """Your sessions, newest first, also those that have ended."""
    one_cursor(query.after, query.before)
    for cursor in (query.after, query.before):
        if cursor is not None:
            session_cursor(cursor, is_chat_id)

    async def load(page: Page) -> list[Session]:
        return await parts.service.sessions(parts.principal, page, status=query.status, label=query.label)

    sessions, has_more = await load_page(
        load,
        limit=query.limit,
        descending=query.order == "desc",
        after=query.after,
        before=query.before,
    )
    return list_response(request, sessions, has_more, query, after=query.after, before=query.before)


@queries.get(
    "/chat/{session}",
    operation_id="getSession",
    summary="Read a session",
    response_description="The session with its messages.",
    responses={
        200: {"model": SessionWithMessages, "headers": openapi.ETAG},
        304: {"description": "You have it already.", "headers": openapi.ETAG},
        **openapi.errors(*openapi.LIST_ERRORS),
    },
    openapi_extra={"parameters": [openapi.IF_NONE_MATCH]},
)
async def get_session(
    request: Request, session: SessionPath, parts: All, query: Annotated[TranscriptQuery, Query()]
) -> Response:
    """The session with its oldest messages, or those after a cursor; what it is doing; its newest event."""
    known_session(session)
    return tagged(request, await _transcript(parts, session, limit=query.limit, after=query.after))


@router.delete(
    "/chat/{session}",
    status_code=204,
    operation_id="endSession",
    summary="End a session",
    response_description="It has ended.",
    responses=openapi.errors(*openapi.DELETE_ERRORS),
)
async def end_session(request: Request, session: SessionPath, parts: All) -> Response:
    """Ends the session for good, and what is being replied in it. It stays readable, with status `ended`.

    Again gives 204 again.
    """
    refuse_query(request)
    known_session(session)
    await parts.service.end(parts.principal, session)
    return Response(status_code=204)


@router.post(
    "/chat/{session}/fork",
    status_code=201,
    operation_id="forkSession",
    summary="Fork a session",
    response_description="The new session.",
    responses={
        201: {"model": SessionWithMessages, **_CREATED},
        **openapi.errors(*openapi.POST_ERRORS),
    },
    openapi_extra={
        "parameters": [openapi.IDEMPOTENCY_KEY],
        **openapi.body(
            ForkBody,
            required=False,
            examples={"all of it": {}, "up to a message": {"message": "msg_01k9w2x6hj3v8m5r7t0q4n1b2c"}},
        ),
    },
)
async def fork_session(request: Request, session: SessionPath, parts: All) -> Response:
    """A new session that starts with the messages that lead to one of this session's (ended or not)."""
    refuse_query(request)
    known_session(session)
    body, raw = await read_body(request, ForkBody)

    async def act(ids: Ids) -> Answer:
        forked = await parts.service.fork(
            parts.principal, session, body.message, ids.make("chat", "fork"), body.title
        )
        return _created(forked.id, await _transcript(parts, forked.id, limit=DEFAULT_LIMIT, after=None))

    return (await parts.idempotency.run(request, parts.principal, raw, act)).response()


async def message_position(parts: Parts, session: str, cursor: str | None) -> int | None:
    """The `seq` that a message cursor stands for. The session has to be the caller's.

    Raises `MalformedCursor` if it stands for nothing.
    """
    if cursor is None:
        return None
    seq = seq_cursor(cursor)
    if seq is not None:
        return seq
    message = await parts.service.store.message(session, cursor) if is_message_id(cursor) else None
    if message is None:
        raise bad_message_cursor()
    return message.seq


async def _transcript(parts: Parts, session_id: str, *, limit: int, after: str | None) -> bytes:
    session = await parts.service.session(parts.principal, session_id)
    position = await message_position(parts, session_id, after)

    async def load(page: Page) -> list[Message]:
        return await parts.service.messages(parts.principal, session_id, page)

    (messages, has_more), last_seq, unfinished = await asyncio.gather(
        load_page(load, limit=limit, descending=False, after=position),
        parts.service.store.last_seq(session_id),
        parts.service.store.unfinished(session_id),
    )
    replying = bool(unfinished) and session.status == "active"
    return _render(session, messages, has_more=has_more, last_seq=last_seq, replying=replying)


def _render(
    session: Session, messages: list[Message], *, has_more: bool, last_seq: int, replying: bool
) -> bytes:
    state = "replying" if replying else "idle"
    head = session.model_dump_json()[:-1].encode()
    listed = render_list(messages, has_more)
    return b'%b,"state":"%b","last_seq":%d,"messages":%b}' % (head, state.encode(), last_seq, listed)


def _created(session_id: str, content: bytes) -> Answer:
    return Answer(201, content, {"location": f"/chat/{session_id}", "etag": etag_of(content)})
