"""Errors as HTTP answers: the only place where an error of ours gets a status, and the shape of a problem.

Every error is `application/problem+json` (RFC 9457) with `code`, a stable slug for machines, `request_id`,
and, where input is at fault, `errors` that point at it; but below `/v1` and `/models` it has the shape that
the clients of these surfaces show (`api/error_shapes.py`).
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

from api.error_shapes import Surface, shaped, surface_of
from goatherd.contracts.ids import ASSIGNMENT_ID, CHAT_ID, MESSAGE_ID, SUBTASK_ID, TASK_ID
from goatherd.contracts.inference import MODEL_NAME
from goatherd.contracts.retrieval import DOC_ID, DOC_ID_RULE, INDEX_NAME
from goatherd.errors import (
    Conflict,
    DeadlineExceeded,
    Forbidden,
    GoatherdError,
    Invalid,
    MalformedCursor,
    ModelBroken,
    NotFound,
    TooManyRequests,
    Unavailable,
)

PROBLEM_JSON = "application/problem+json"
REQUEST_ID_KEY = "goatherd.request_id"
"""Where the middleware puts the request's id into the ASGI scope."""

_DOCS = "The routes are listed at /docs."

HAS_TEXT = r"\S"
"""The pattern of a text that is more than white space."""


WEBHOOK_SECRET = r"^(whsec_)?([A-Za-z0-9+/]{4}){6,20}([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
"""The pattern of what webhooks are signed with."""


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


class PreconditionFailed(GoatherdError):
    """It is not any more what `If-Match` says."""

    code = "precondition-failed"


class PreconditionRequired(GoatherdError):
    """A change that could undo somebody else's has to say what it is a change of."""

    code = "precondition-required"


class KeyInUse(Conflict):
    """The first request with this idempotency key is still at work. Unlike other conflicts, it passes."""

    code = "idempotency-key-in-use"


_STATUS: dict[type[GoatherdError], int] = {
    MalformedJson: 400,
    MalformedCursor: 400,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    PreconditionFailed: 412,
    BodyTooLarge: 413,
    UnsupportedMediaType: 415,
    Invalid: 422,
    PreconditionRequired: 428,
    TooManyRequests: 429,
    # The fault is on our side, and the request may be right; what is missing is a reason to try again.
    ModelBroken: 503,
    Unavailable: 503,
    DeadlineExceeded: 504,
    GoatherdError: 500,
}

_ABROAD = {"model-not-found": 404}
"""Statuses by code on the surfaces of others, where a model is what is asked, not a part of a body."""

TITLES = {
    "agent-not-found": "No such agent",
    "body-too-large": "Body too large",
    "client-id-reused": "Client id reused",
    "conflict": "State conflict",
    "deadline-exceeded": "No answer in time",
    "dependency-cycle": "Dependency cycle",
    "empty-session": "Nothing to fork",
    "host-not-allowed": "Host not allowed",
    "idempotency-key-in-use": "Idempotency key in use",
    "idempotency-key-invalid": "Invalid idempotency key",
    "idempotency-key-reused": "Idempotency key reused",
    "another-model": "The model is another one now",
    "index-exists": "Another index has this name",
    "index-rebuilt": "Another version is being built",
    "internal": "Internal error",
    "invalid": "Invalid request",
    "invalid-parameter": "Invalid parameter",
    "invalid-transition": "Not from this state",
    "lease-lost": "Lease lost",
    "malformed-cursor": "Malformed cursor",
    "malformed-json": "Malformed JSON",
    "message-deleted": "Message deleted",
    "message-finished": "Message finished",
    "method-not-allowed": "Method not allowed",
    "model-broken": "Model broken",
    "model-not-found": "No such model",
    "model-unavailable": "Model unavailable",
    "not-found": "Not found",
    "origin-not-allowed": "Origin not allowed",
    "out-of-memory": "Out of memory",
    "precondition-failed": "Changed meanwhile",
    "precondition-required": "If-Match required",
    "route-not-found": "No such route",
    "session-busy": "Session busy",
    "session-ended": "Session ended",
    "starting": "Starting",
    "storage-full": "Storage full",
    "task-closed": "Task closed",
    "too-long": "Too long for the model",
    "too-many-requests": "Too many requests",
    "unavailable": "Unavailable",
    "unknown-method": "Unknown method",
    "unknown-parameter": "Unknown parameter",
    "unreadable-media": "Not an image or a sound",
    "unsupported-media-type": "Unsupported media type",
    "unsupported-parameter": "Unsupported parameter",
    "wrong-task": "Not what the model is for",
}

PATTERNS = {
    CHAT_ID: "The id of a session, such as chat_01k9w2x6hj3v8m5r7t0q4n1b2c.",
    MESSAGE_ID: "The id of a message, such as msg_01k9w2x6hj3v8m5r7t0q4n1b2c.",
    TASK_ID: "The id of a task, such as task_01k9w2x6hj3v8m5r7t0q4n1b2c.",
    SUBTASK_ID: "The id of a subtask, such as sub_01k9w2x6hj3v8m5r7t00000001.",
    ASSIGNMENT_ID: "The id of an assignment, such as asg_01k9w2x6hj3v8m5r7t00000001.",
    HAS_TEXT: "Has no text, only white space.",
    INDEX_NAME: "An index's name: 1 to 63 of the characters a-z 0-9 . _ -, with a letter or digit first.",
    DOC_ID: f"{DOC_ID_RULE[:1].upper()}{DOC_ID_RULE[1:]}.",
    WEBHOOK_SECRET: "A secret for webhooks: base64 of 18 to 62 bytes, with `whsec_` before it or not.",
    MODEL_NAME: "A model's name: letters, digits and . _ -, in up to four parts with / between them, each of "
    "which begins with a letter or digit.",
    r"^[!-~]+$": "Visible ASCII characters only, without spaces.",
    r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}$": "1 to 64 of the characters A-Z a-z 0-9 _ . : / -, with a letter "
    "or digit first.",
    r"^[A-Za-z0-9][A-Za-z0-9_.:/+-]{0,63}$": "1 to 64 of the characters A-Z a-z 0-9 _ . : / + -, with a "
    "letter or digit first.",
    r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$": "1 to 64 of the characters A-Z a-z 0-9 _ . : -, with a letter or "
    "digit first.",
    r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$": "A key has 1 to 64 of the characters A-Z a-z 0-9 _ . -, with a "
    "letter, a digit or _ first.",
}
"""What a text has to look like, for people."""

_WHOLE, _NUMBER = "Has to be a whole number.", "Has to be a number."
_OBJECT, _YES_NO = "Has to be an object.", "Has to be true or false."
_SENTENCES = {
    "bool_parsing": _YES_NO,
    "bool_type": _YES_NO,
    "bytes_type": "Has to be base64, in a text; of a tensor the numbers' bytes, little-endian, row by row.",
    "dict_type": _OBJECT,
    "extra_forbidden": "Unknown; check the spelling.",
    "finite_number": _NUMBER,
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "greater_than": "Has to be more than {gt}.",
    "greater_than_equal": "Has to be {ge} or more.",
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": "The number is too long.",
    "int_type": _WHOLE,
    "less_than": "Has to be less than {lt}.",
    "less_than_equal": "Has to be {le} or less.",
    "list_type": "Has to be a list.",
    "literal_error": "Has to be {expected}.",
    "missing": "Is missing.",
    "timezone_aware": "Has to have a time zone, such as `Z`.",
    "model_attributes_type": _OBJECT,
    "model_type": _OBJECT,
    "string_too_long": "Has more than {max_length} characters.",
    "string_type": "Has to be a text.",
    "too_long": "Has more than {max_length} entries.",
    "too_short": "Has fewer than {min_length} entries.",
}
"""Pydantic's kinds of errors, for people who don't know Python."""


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
    if isinstance(error, Unavailable | TooManyRequests):
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    elif isinstance(error, KeyInUse):
        headers["retry-after"] = "1"
    if isinstance(error, Conflict):
        # The OpenAI client retries a 409 unless told otherwise.
        headers["x-should-retry"] = "true" if isinstance(error, KeyInUse) else "false"
    elif isinstance(error, ModelBroken):
        headers["x-should-retry"] = "false"  # as it would a 503
    return headers


def problem_response(
    scope: Scope, fields: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """A problem, completed with what belongs to this one request, in the shape of what was asked."""
    surface = surface_of(scope["path"])
    if surface is not Surface.OWN:
        content = shaped(surface, fields)
        status = _ABROAD.get(fields["code"], fields["status"])
        return Response(
            orjson.dumps(content), status, media_type="application/json", headers=dict(headers or {})
        )
    content = {
        **fields,
        "instance": _instance(scope),
        "request_id": scope.get(REQUEST_ID_KEY),
    }
    return Response(
        orjson.dumps(content), fields["status"], media_type=PROBLEM_JSON, headers=dict(headers or {})
    )


def error_body(scope: Scope, error: GoatherdError) -> dict[str, Any]:
    """What an answer that has begun already says of an error: in the shape of what was asked."""
    return shaped(surface_of(scope["path"]), problem_fields(error))


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
    """The methods of all routes that the path matches (Starlette names those of the first one only).

    Of one that ends in a word of ours, only those of routes with this word: it is nobody's id. Routes that
    take any rest of a path count only if no others match.
    """
    last = scope["path"].rpartition("/")[2]
    found = [route for route in app.routes if route.matches(scope)[0] is not Match.NONE]
    found = [route for route in found if getattr(route, "path", "").endswith(f"/{last}")] or found
    found = [route for route in found if not getattr(route, "path", "").endswith(":path}")] or found
    methods: set[str] = set()
    for route in found:
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
        found.append({kind: ".".join(map(str, name)), "detail": _sentence(error)})
    unknown = all(error["type"] == "extra_forbidden" for error in errors)
    return InvalidInput(found, code="unknown-parameter" if unknown else "invalid-parameter")


def invalid_fields(errors: Sequence[Any], *, under: str = "") -> InvalidInput:
    """Pydantic's complaints about a body, or what is `under` a pointer in it, as ours."""
    return InvalidInput(
        [{"pointer": under + pointer(error["loc"]), "detail": _sentence(error)} for error in errors[:20]]
    )


def _sentence(error: Mapping[str, Any]) -> str:
    kind, facts = error["type"], error.get("ctx", {})
    if kind == "string_pattern_mismatch" and facts.get("pattern") in PATTERNS:
        return PATTERNS[facts["pattern"]]
    if kind == "string_too_short":
        least = facts["min_length"]
        return "Must not be empty." if least == 1 else f"Has fewer than {least} characters."
    if kind == "value_error":
        text = str(facts["error"])
        return f"{text[:1].upper()}{text[1:]}."
    known = _SENTENCES.get(kind)
    return f"{error['msg']}." if known is None else known.format_map(facts)


def _place(error: Mapping[str, str]) -> str:
    return error.get("pointer") or error.get("parameter") or error.get("header") or "The body"


def _instance(scope: Scope) -> str:
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogateescape")
    # Servers differ in whether the raw path has the query, which may hold what is not for logs.
    return raw.partition(b"?")[0].decode("latin-1")[:500]
