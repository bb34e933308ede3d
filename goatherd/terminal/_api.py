"""The routes of the HTTP API that a chat needs. What fails for a passing reason is tried again."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from httpx_sse import EventSource
from pydantic import BaseModel, ConfigDict, ValidationError

RETRY_S = 0.2
_RETRY_MAX_S = 3.0
_PASSING = frozenset({429, 502, 503, 504})
IN_USE = "idempotency-key-in-use"
IN_USE_S = 60.0
"""How long a key may be in use: the API that had it may have died, and then the next takes its claim over
(after some 20 s, unless it is set up to wait for longer)."""
# The API pings a quiet stream more often than that.
_STREAM_TIMEOUT = httpx.Timeout(10.0, read=60.0)

View = TypeVar("View", bound=BaseModel)


class Refused(Exception):
    """The API said no. The text is one line for people; `faults` are the parts of it, if it has some."""

    def __init__(
        self, text: str, *, status: int, code: str | None = None, faults: tuple[str, ...] = ()
    ) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.faults = faults

    @property
    def passing(self) -> bool:
        """Whether the same request may well be answered otherwise a little later."""
        return self.status in _PASSING or self.code == IN_USE


class Unreachable(Exception):
    """The API does not answer."""


class _View(BaseModel):
    """The part of an answer that a chat needs; what a newer API adds is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class MessageView(_View):
    id: str
    role: str
    content: str
    status: str
    error: dict[str, Any] | None = None


class PostedView(_View):
    id: str
    reply: str | None = None


class SessionView(_View):
    id: str
    status: str
    model: str
    title: str | None = None
    created_at: str = ""
    last_seq: int = 0


class _Sessions(_View):
    data: list[SessionView]


class _Messages(_View):
    data: list[MessageView]


class StreamEvent(_View):
    """An event, or a piece of a reply in progress (`message.delta`)."""

    type: str
    message: str | None = None
    data: dict[str, Any] = {}


class Api:
    """One client of one API.

    Calls raise `Refused` for what the API refuses, and `Unreachable` when it does not answer for
    `patience_s` (None: never give up). Each call counts once, however often it had to be sent.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        notice: Callable[[str], None],
        patience_s: float | None = None,
        retry_s: float = RETRY_S,
    ) -> None:
        self.patience_s = patience_s
        self.retry_s = retry_s
        self.notice = notice
        self._http = http

    async def create(self, model: str | None) -> SessionView:
        body = {} if model is None else {"model": model}
        return await self._call(SessionView, "POST", "/chat", json=body, once=True)

    async def session(self, session: str) -> SessionView:
        return await self._call(SessionView, "GET", _path(session), params={"limit": 1})

    async def sessions(self, *, limit: int) -> list[SessionView]:
        """Newest first."""
        return (await self._call(_Sessions, "GET", "/chat", params={"limit": limit})).data

    async def end(self, session: str) -> None:
        await self._send("DELETE", _path(session))

    async def first_message(self, session: str) -> MessageView | None:
        """The oldest one: the user's."""
        params: dict[str, str | int] = {"limit": 1, "order": "asc"}
        oldest = await self._call(_Messages, "GET", _path(session, "message"), params=params)
        return oldest.data[0] if oldest.data else None

    async def message(self, session: str, message: str) -> MessageView:
        return await self._call(MessageView, "GET", _path(session, "message", message))

    async def messages(self, session: str, *, limit: int) -> list[MessageView]:
        """The newest ones, oldest first."""
        params: dict[str, str | int] = {"limit": limit, "order": "desc"}
        newest = await self._call(_Messages, "GET", _path(session, "message"), params=params)
        return newest.data[::-1]

    async def post(self, session: str, content: str) -> str | None:
        """Posts a message; gives the id of the reply that is coming."""
        body = {"content": content, "client_id": f"terminal-{secrets.token_hex(12)}"}
        return (await self._call(PostedView, "POST", _path(session, "message"), json=body)).reply

    async def regenerate(self, session: str, message: str) -> str:
        """Asks for another reply beside `message`; gives its id."""
        path = _path(session, "message", message, "regenerate")
        return (await self._call(MessageView, "POST", path, json={}, once=True)).id

    async def cancel(self, session: str, message: str) -> None:
        """Calls a reply off. One that is finished meanwhile stays as it is."""
        try:
            await self._send("POST", _path(session, "message", message, "cancel"))
        except Refused as refusal:
            if refusal.code != "message-finished":
                raise

    async def events(self, session: str, cursor: str) -> AsyncGenerator[tuple[str, StreamEvent]]:
        """Events after `cursor`, each with the cursor that stands after it, until the line breaks.

        Raises `httpx.TransportError` then, or just ends.
        """
        async with aclosing(self._stream(StreamEvent, _path(session, "events"), cursor)) as events:
            async for at, event in events:
                yield at, event

    async def _stream(self, view: type[View], path: str, cursor: str) -> AsyncGenerator[tuple[str, View]]:
        """Server-sent events, each with its id."""
        request = self._http.build_request(
            "GET",
            path,
            headers={"accept": "text/event-stream", "last-event-id": cursor},
            timeout=_STREAM_TIMEOUT,
        )
        response = await self._http.send(request, stream=True)
        try:
            if not response.is_success:
                await response.aread()
                raise _refusal(response)
            async with aclosing(EventSource(response).aiter_sse()) as frames:
                async for frame in frames:
                    # A frame without data sets the reconnection time only.
                    if frame.data:
                        yield frame.id, view.model_validate_json(frame.data)
        finally:
            await response.aclose()

    async def _call(
        self,
        view: type[View],
        method: str,
        path: str,
        *,
        json: object = None,
        params: dict[str, Any] | None = None,
        once: bool | str = False,
    ) -> View:
        response = await self._send(method, path, json=json, params=params, once=once)
        try:
            return view.model_validate_json(response.content)
        except ValidationError as error:
            text = f"{response.url} answered something that is not Goatherd's API."
            raise Refused(text, status=response.status_code) from error

    async def _send(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        lines: bytes | None = None,
        params: dict[str, Any] | None = None,
        once: bool | str = False,
    ) -> httpx.Response:
        """`lines`: a body of JSON lines, in place of one of JSON.

        `once`: with an Idempotency-Key, of this call's own or the one given. While that is in use, perhaps by
        this very call before the line broke, it is asked again for `IN_USE_S`, whatever the patience: what
        was done under it is known to nobody else."""
        headers = {"accept": "application/json"}
        if lines is not None:
            headers["content-type"] = "application/x-ndjson"
        if once:
            headers["idempotency-key"] = once if isinstance(once, str) else secrets.token_hex(16)
        started = asyncio.get_running_loop().time()
        delay = self.retry_s
        told = False
        busy_since: float | None = None
        while True:
            wait = delay
            busy = False
            try:
                response = await self._http.request(
                    method, path, json=json, content=lines, params=params, headers=headers
                )
            except httpx.UnsupportedProtocol as error:
                raise Unreachable(str(error)) from error
            except httpx.TransportError as error:
                failure: Exception = Unreachable(str(error) or type(error).__name__)
            else:
                if response.is_success:
                    return response
                failure = refusal = _refusal(response)
                if not refusal.passing:
                    raise refusal
                busy = bool(once) and refusal.code == IN_USE
                wait = max(delay, _retry_after(response))
            now = asyncio.get_running_loop().time()
            if busy:
                busy_since = now if busy_since is None else busy_since
                if now - busy_since + wait > IN_USE_S:
                    raise failure
            else:
                busy_since = None
                if self.patience_s is not None and self.patience_s - (now - started) <= wait:
                    raise failure
            if not told:
                told = True
                reason = f" ({failure})" if isinstance(failure, Refused) else ""
                self.notice(f"no answer{reason}, trying again…")
            await asyncio.sleep(wait)
            delay = min(delay * 2, _RETRY_MAX_S)


class Feed:
    """A session's events from a cursor on, however often the line breaks.

    `cursor` stands after what was given last.
    """

    def __init__(self, api: Api, session: str, cursor: str) -> None:
        self.cursor = cursor
        self._api = api
        self._session = session

    async def events(self) -> AsyncGenerator[StreamEvent]:
        """Without an end. Raises `Refused` if coming back makes no sense; 410: the cursor is too old."""
        delay = self._api.retry_s
        while True:
            try:
                async with aclosing(self._api.events(self._session, self.cursor)) as events:
                    async for cursor, event in events:
                        delay = self._api.retry_s
                        self.cursor = cursor or self.cursor
                        yield event
            except httpx.TransportError:
                pass
            except Refused as refusal:
                if refusal.status not in _PASSING:
                    raise
            # Once for each outage: what works again says so by going on.
            if delay == self._api.retry_s:
                self._api.notice("connection lost, reconnecting…")
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RETRY_MAX_S)


def _path(session: str, *parts: str) -> str:
    return "/".join(["/chat", *(quote(part, safe="") for part in (session, *parts))])


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("retry-after", "")
    return min(float(value), 30.0) if value.isdigit() else 0.0


def _refusal(response: httpx.Response) -> Refused:
    """A problem document as one line; something else by its status."""
    try:
        problem = json.loads(response.content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    text = problem.get("detail") or problem.get("title") or f"HTTP {response.status_code} for {response.url}"
    faults = problem.get("errors")
    details: list[str] = []
    if isinstance(faults, list):
        details = [
            str(fault["detail"]) for fault in faults if isinstance(fault, dict) and fault.get("detail")
        ]
        text = " ".join([str(text), *(detail for detail in details if detail not in str(text))])
    told = " ".join(str(text).split())
    return Refused(told, status=response.status_code, code=problem.get("code"), faults=tuple(details))
