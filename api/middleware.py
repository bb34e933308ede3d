"""What happens to every request before and after its route. Plain ASGI, for speed.

From the outside in: `Observe` (request id, log context, access line, metrics), CORS if any origins are
allowed, `Guard` (Host, Origin, size, and errors that nobody caught).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from time import perf_counter

from prometheus_client import Counter, Histogram
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import REQUEST_ID_KEY, BodyTooLarge, error_response, internal_error_response
from api.hosts import Hosts
from api.in_flight import InFlight, NoRoom
from goatherd.contracts.ids import CHAT_ID, new_id
from goatherd.errors import Forbidden, GoatherdError, TooManyRequests
from goatherd.settings import Settings
from goatherd.telemetry import bound, get_logger
from goatherd.telemetry.metrics import HTTP_REQUEST_SECONDS, HTTP_REQUESTS

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_SESSION_IN_PATH = re.compile(r"/chat/(" + CHAT_ID.strip("^$") + r")(?:/|$)")
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# Asked every few seconds, by machines.
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
_CLIENT_LEFT = 499
# A client that is still sending reads no answer: what is too large is read to its end, up to here.
_DRAIN_BYTES = 64 << 20
_DRAIN_S = 10.0
_DOCUMENT_BYTES = 8 << 20
"""Of one document of an index: JSON may take several times the bytes of a text."""
_MANY_DIGITS = 6
"""Of a length: bodies of less than 100 kB are not counted, so that most requests are not slowed down."""

log = get_logger("api.access")


class Observe:
    """Gives each request its id, and says what became of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._timers: dict[tuple[str, str], Histogram] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        request_id = _request_id(scope)
        scope[REQUEST_ID_KEY] = request_id
        header = (b"x-request-id", request_id.encode())
        status = 0
        streaming_since: float | None = None

        async def observed_send(message: Message) -> None:
            nonlocal status, streaming_since
            kind = message["type"]
            if kind in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
                status = message.get("status", 101)
                headers = [*message.get("headers", ()), header]
                message = {**message, "headers": headers}
                if any(k == b"content-type" and v.startswith(b"text/event-stream") for k, v in headers):
                    streaming_since = perf_counter()
            elif kind == "websocket.close" and status == 0:
                status = 403
            await send(message)

        found = _SESSION_IN_PATH.match(scope["path"])
        with bound(request_id=request_id, session=found.group(1) if found else None):
            try:
                await self._app(scope, receive, observed_send)
            finally:
                self._tell(scope, status or _CLIENT_LEFT, started, streaming_since)

    def _tell(self, scope: Scope, status: int, started: float, streaming_since: float | None) -> None:
        now = perf_counter()
        path: str | None = getattr(scope.get("route"), "path", None)
        route = path or "(none)"
        method = "WS" if scope["type"] == "websocket" else scope["method"]
        if method != "WS":
            label = method if method in _METHODS else "(other)"
            self._counter(label, route, status).inc()
            self._timer(label, route).observe((streaming_since or now) - started)
        tell = log.debug if route in _QUIET else log.info
        tell("request", method=method, route=route, status=status, ms=round((now - started) * 1000, 1))

    def _counter(self, method: str, route: str, status: int) -> Counter:
        key = (method, route, status)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = HTTP_REQUESTS.labels(method, route, str(status))
        return counter

    def _timer(self, method: str, route: str) -> Histogram:
        timer = self._timers.get((method, route))
        if timer is None:
            timer = self._timers[method, route] = HTTP_REQUEST_SECONDS.labels(method, route)
        return timer


class Guard:
    """Turns away what is not for us, what is too large, and turns what nobody caught into a plain 500."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._hosts = Hosts(settings)
        self._limit = settings.max_body_bytes
        self._media_limit = settings.max_media_bytes
        self._bulk_limit = settings.max_bulk_bytes
        self._in_flight = InFlight(settings.max_bytes_in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        # Of a header that is sent twice, the last counts, but for Host, of which all have to be ours.
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name == b"host" and not self._hosts.allows_host(value):
                await error_response(scope, _wrong_host(value))(scope, receive, send)
                return
            headers[name] = value
        is_http = scope["type"] == "http"
        origin = headers.get(b"origin")
        if origin is not None and not (is_http and scope["method"] in _SAFE):
            host = headers.get(b"host", b"").decode("latin-1")
            if not self._hosts.allows_origin(origin.decode("latin-1"), scope["scheme"], host):
                await error_response(scope, _wrong_origin(origin))(scope, receive, send)
                return
        if is_http:
            await self._limited(scope, receive, send, headers)
        else:
            await self._app(scope, receive, send)

    async def _limited(
        self, scope: Scope, receive: Receive, send: Send, headers: Mapping[bytes, bytes]
    ) -> None:
        declared = headers.get(b"content-length")
        limit = self._limit_of(scope["path"])
        if declared is not None and declared.isdigit() and int(declared) > limit:
            waits = headers.get(b"expect", b"").lower() == b"100-continue"
            await self._too_large(scope, receive, send, limit, drain=not waits)
            return
        limited = receive
        if b"transfer-encoding" in headers:
            limited = _counted(receive, limit)
        elif declared is None or len(declared) < _MANY_DIGITS:
            await self._caught(scope, receive, receive, send, limit)
            return
        with self._in_flight.counting(limited) as counting:
            await self._caught(scope, receive, counting, send, limit)

    async def _caught(self, scope: Scope, receive: Receive, limited: Receive, send: Send, limit: int) -> None:
        """`limited` is what the app is given of `receive`."""
        responding = False

        async def watched_send(message: Message) -> None:
            nonlocal responding
            responding = True
            await send(message)

        try:
            await self._app(scope, limited, watched_send)
        except ClientDisconnect:
            # It left in the middle of its own request.
            return
        except _PastLimit:
            await self._too_large(scope, receive, send, limit, drain=True)
        except NoRoom as full:
            busy = TooManyRequests(
                "As much is being sent and computed here as may be. Try again in a moment."
            )
            await self._refused(scope, receive, send, busy, drain=not full.ended)
        except Exception:
            log.exception("request failed")
            if responding:
                # The status is out already: only a broken connection still tells the client.
                raise
            await internal_error_response(scope)(scope, receive, send)

    def _limit_of(self, path: str) -> int:
        """Where an image or a sound may be sent, one in base64 has to fit, with what stands around it.
        Documents of an index have a limit of their own, and many come in one request."""
        if path.startswith("/index/"):
            steps = path.split("/", 4)
            if steps[3:4] == ["doc"]:
                return max(self._limit, self._bulk_limit if len(steps) == 4 else _DOCUMENT_BYTES)
        if path.startswith(("/v1/", "/models/", "/inference/")):
            return self._limit + (self._media_limit + 2) // 3 * 4
        return self._limit

    async def _too_large(
        self, scope: Scope, receive: Receive, send: Send, limit: int, *, drain: bool
    ) -> None:
        error = BodyTooLarge(f"The body has more than {limit} bytes. Send less at once.")
        await self._refused(scope, receive, send, error, drain=drain)

    async def _refused(
        self, scope: Scope, receive: Receive, send: Send, error: GoatherdError, *, drain: bool
    ) -> None:
        done = drain and await _drained(receive)
        response = error_response(scope, error)
        if not done:
            MutableHeaders(raw=response.raw_headers)["connection"] = "close"
        await response(scope, receive, send)


class _PastLimit(Exception):
    """Not an error of ours, so that no handler answers it before the rest of the body is read."""


def _counted(receive: Receive, limit: int) -> Receive:
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise _PastLimit
        return message

    return counted


async def _drained(receive: Receive) -> bool:
    """Reads the rest of the body and drops it. False if that went on for too long."""
    dropped = 0
    try:
        async with asyncio.timeout(_DRAIN_S):
            while dropped < _DRAIN_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return False
                dropped += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return True
    except TimeoutError:
        pass
    return False


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            given: str = value.decode()
            return given
    return new_id("req")


def _wrong_host(host: bytes) -> Forbidden:
    return Forbidden(
        f"Requests for host {host.decode('latin-1')[:200]!r} are not served here. If the name is right, add "
        "it to GOATHERD_ALLOWED_HOSTS.",
        code="host-not-allowed",
    )


def _wrong_origin(origin: bytes) -> Forbidden:
    return Forbidden(
        f"Pages of {origin.decode('latin-1')[:200]!r} may not do this. If they should, add the origin to "
        "GOATHERD_ALLOWED_ORIGINS.",
        code="origin-not-allowed",
    )
