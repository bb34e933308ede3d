"""Errors as HTTP answers: the only place where an error of ours gets a status, and the shape of a problem.

Every error is `application/problem+json` (RFC 9457) with `code`, a stable slug for machines, `request_id`,
and, where input is at fault, `errors` that point at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from goatherd.errors import (
    Conflict,
    DeadlineExceeded,
    Forbidden,
    GoatherdError,
    Invalid,
    MalformedCursor,
    NotFound,
    TooManyRequests,
    Unavailable,
)

PROBLEM_JSON = "application/problem+json"
REQUEST_ID_KEY = "goatherd.request_id"
"""Where the middleware puts the request's id into the ASGI scope."""

_DOCS = "The routes are listed at /docs."


class MalformedJson(Invalid):
    """The body is not JSON at all."""

    code = "malformed-json"


class InvalidInput(Invalid):
    """Well-formed, but against the schema; `errors` say where."""

    def __init__(self, errors: Sequence[dict[str, str]], *, code: str = "invalid") -> None:
        where = "; ".join(f"{_place(error)}: {error['detail']}" for error in errors[:3])
        more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
        super().__init__(f"The request is not valid. {where}{more}", code=code)
        self.errors = errors


class UnsupportedMediaType(GoatherdError):
    code = "unsupported-media-type"


class BodyTooLarge(GoatherdError):
    code = "body-too-large"


class KeyInUse(Conflict):
    """The first request with this idempotency key is still at work. Unlike other conflicts, it passes."""

    code = "idempotency-key-in-use"


_STATUS: dict[type[GoatherdError], int] = {
    MalformedJson: 400,
    MalformedCursor: 400,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    BodyTooLarge: 413,
    UnsupportedMediaType: 415,
    Invalid: 422,
    TooManyRequests: 429,
    Unavailable: 503,
    DeadlineExceeded: 504,
    GoatherdError: 500,
}

TITLES = {
    "agent-not-found": "No such agent",
    "body-too-large": "Body too large",
    "conflict": "State conflict",
    "deadline-exceeded": "No answer in time",
    "empty-session": "Nothing to fork",
    "host-not-allowed": "Host not allowed",
    "idempotency-key-in-use": "Idempotency key in use",
    "idempotency-key-invalid": "Invalid idempotency key",
    "idempotency-key-reused": "Idempotency key reused",
    "internal": "Internal error",
    "invalid": "Invalid request",
    "invalid-parameter": "Invalid parameter",
    "malformed-cursor": "Malformed cursor",
    "malformed-json": "Malformed JSON",
    "message-deleted": "Message deleted",
    "method-not-allowed": "Method not allowed",
    "model-not-found": "No such model",
    "not-found": "Not found",
    "origin-not-allowed": "Origin not allowed",
    "route-not-found": "No such route",
    "session-busy": "Session busy",
    "session-ended": "Session ended",
    "starting": "Starting",
    "storage-full": "Storage full",
    "too-many-requests": "Too many requests",
    "unavailable": "Unavailable",
    "unknown-parameter": "Unknown parameter",
    "unsupported-media-type": "Unsupported media type",
}


def status_of(error: GoatherdError) -> int:
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def problem_fields(error: GoatherdError) -> dict[str, Any]:
    """The part of a problem that is the same whenever and by whomever it is read."""
    status = status_of(error)
    if status == 500:
        # An error that nobody foresaw, from another process: its text is for the log.
        return _fields(500, "internal", "Something went wrong on our side. The log has the details.")
    errors = list(error.errors) if isinstance(error, InvalidInput) else []
    if error.pointer is not None:
        errors.append({"pointer": error.pointer, "detail": error.message})
    return _fields(status, error.code, error.message, errors)


def _fields(status: int, code: str, detail: str, errors: Sequence[dict[str, str]] = ()) -> dict[str, Any]:
    title = TITLES.get(code) or HTTPStatus(status).phrase
    fields = {
        "type": f"urn:goatherd:error:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
    }
    return {**fields, "errors": list(errors)} if errors else fields


def error_headers(error: GoatherdError) -> dict[str, str]:
    headers: dict[str, str] = {}
    if isinstance(error, Unavailable):
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    elif isinstance(error, TooManyRequests | KeyInUse):
        headers["retry-after"] = "1"
    if isinstance(error, Conflict):
        # The OpenAI client retries a 409 unless told otherwise.
        headers["x-should-retry"] = "true" if isinstance(error, KeyInUse) else "false"
    return headers


def problem_response(
    scope: Scope, fields: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """A problem, completed with what belongs to this one request."""
    content = {
        **fields,
        "instance": _instance(scope),
        "request_id": scope.get(REQUEST_ID_KEY),
    }
    return Response(
        orjson.dumps(content), fields["status"], media_type=PROBLEM_JSON, headers=dict(headers or {})
    )


def error_response(scope: Scope, error: GoatherdError) -> Response:
    return problem_response(scope, problem_fields(error), error_headers(error))


def internal_error_response(scope: Scope) -> Response:
    return error_response(scope, GoatherdError("unforeseen"))


def handle_errors(app: FastAPI) -> None:
    """Makes every error that a route or the routing raises a problem."""

    async def on_ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, GoatherdError)
        return error_response(request.scope, error)

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(request.scope, invalid_parameters(error.errors()))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _http_problem(app, request, error)

    app.add_exception_handler(GoatherdError, on_ours)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)


def _http_problem(app: FastAPI, request: Request, error: HTTPException) -> Response:
    scope, status = request.scope, error.status_code
    headers = dict(error.headers or {})
    path = _instance(scope)
    if status == 404:
        fields = _fields(404, "route-not-found", f"There is nothing at {path!r}. {_DOCS}")
    elif status == 405:
        allowed = ", ".join(sorted(allowed_methods(app, scope)))
        headers = {"allow": allowed}
        detail = f"{path!r} does not take {request.method}, but: {allowed}."
        fields = _fields(405, "method-not-allowed", detail)
    else:
        code = HTTPStatus(status).phrase.lower().replace(" ", "-")
        fields = _fields(status, code, str(error.detail))
    return problem_response(scope, fields, headers)


def allowed_methods(app: FastAPI, scope: Scope) -> set[str]:
    """The methods of all routes that the path matches (Starlette names those of the first one only)."""
    methods: set[str] = set()
    for route in app.routes:
        match, _ = route.matches(scope)
        if match is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return methods


def pointer(loc: Iterable[str | int]) -> str:
    """A JSON pointer (RFC 6901) from pydantic's location."""
    steps = [str(step).replace("~", "~0").replace("/", "~1") for step in loc if step != "[key]"]
    return "".join(f"/{step}" for step in steps)


def invalid_parameters(errors: Sequence[Any]) -> InvalidInput:
    """FastAPI's complaints about parameters, as ours."""
    found = []
    for error in errors:
        place, *name = error["loc"]
        kind = "header" if place == "header" else "parameter"
        found.append({kind: ".".join(map(str, name)), "detail": _sentence(error["msg"])})
    unknown = all(error["type"] == "extra_forbidden" for error in errors)
    return InvalidInput(found, code="unknown-parameter" if unknown else "invalid-parameter")


def invalid_fields(errors: Sequence[Any]) -> InvalidInput:
    """Pydantic's complaints about a body, as ours."""
    return InvalidInput(
        [{"pointer": pointer(error["loc"]), "detail": _sentence(error["msg"])} for error in errors[:20]]
    )


def _sentence(text: str) -> str:
    return {"Extra inputs are not permitted": "Unknown; check the spelling"}.get(text, text) + "."


def _place(error: Mapping[str, str]) -> str:
    return error.get("pointer") or error.get("parameter") or error.get("header") or "The body"


def _instance(scope: Scope) -> str:
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogateescape")
    # Servers differ in whether the raw path has the query, which may hold what is not for logs.
    return raw.partition(b"?")[0].decode("latin-1")[:500]
