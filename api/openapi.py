"""The OpenAPI document: what FastAPI can't see from the routes' signatures, said once.

Bodies are read by ourselves (`api.body`), so their schemas are added here, as are the errors, the headers,
and what only the settings know: which models there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.error_shapes import Surface, shaped, surface_of
from api.errors import PROBLEM_JSON, TITLES
from api.hf_inputs import ModelCall
from api.idempotency import KEY_PATTERN
from api.index_schemas import BODIES as INDEX_BODIES
from api.inference_schemas import HuggingFaceError, OpenAIError
from api.job_schemas import CreateJob
from api.model_schemas import RegisterModel
from api.openai_schemas import BODIES as OPENAI_BODIES
from api.schemas import (
    AckParams,
    CancelBody,
    CancelParams,
    ClientFrame,
    CreateSession,
    DeltaEvent,
    FeedbackBody,
    ForkBody,
    PassingEvent,
    PingParams,
    PostMessageBody,
    ProblemDetails,
    RegenerateBody,
    Schema,
    TypingParams,
)
from api.task_schemas import BODIES as TASK_BODIES
from goatherd import __version__
from goatherd.contracts.chat import Event
from goatherd.contracts.ids import CHAT_ID, JOB_ID, MESSAGE_ID, SUBTASK_ID, TASK_ID
from goatherd.contracts.task import TaskEvent
from goatherd.settings import Settings

AGENTS = ("assistant",)

_BODIES: tuple[type[BaseModel], ...] = (
    CancelBody,
    CreateSession,
    FeedbackBody,
    ForkBody,
    PostMessageBody,
    ProblemDetails,
    RegenerateBody,
    CreateJob,
    ModelCall,
    RegisterModel,
    HuggingFaceError,
    OpenAIError,
    *OPENAI_BODIES,
    *TASK_BODIES,
    *INDEX_BODIES,
)
_EVENTS: tuple[type[BaseModel], ...] = (Event, DeltaEvent, PassingEvent)
_FRAMES: tuple[type[BaseModel], ...] = (ClientFrame, AckParams, CancelParams, PingParams, TypingParams)
_SCHEMAS: tuple[type[BaseModel], ...] = (*_BODIES, *_EVENTS, TaskEvent, *_FRAMES)
_REF = "#/components/schemas/{model}"

_DESCRIPTION = """
Durable chats and tasks. What is answered with 2xx is durable: it survives the end of any process.

**Errors** are `application/problem+json` (RFC 9457) with a stable `code`, a `detail` that says what to do,
and the `request_id`; below `/v1` and `/models` they have OpenAI's and Hugging Face's own shapes. Bad input
is never a 500. Unknown query parameters and body fields are 422: no
misspelt name is silently ignored.

**Lists** take `limit`, `after`, `before` and `order`, and link to their neighbours in `Link`.

**Idempotency-Key** on any POST makes it count once: the same key and body give the stored answer for 24 h.
A model that is asked changes nothing, so these routes take no key.

**x-request-id** is taken over if you send one (up to 128 visible ASCII characters), made if not, and is in
every answer and log line. `traceparent` is honoured.

A session's events come live: `GET /chat/{session}/events` (SSE) and `WS /chat/{session}/ws`. What they say,
how to come back without a gap, and a client in JavaScript: `docs/protocol.md` of the source.

A job (`POST /inference/job`) has a model compute something durably: it can be waited for, cancelled, retried.

An index finds documents by meaning, by words, or by both (`POST /index/{index}/search`). Its backends,
filters and limits: `docs/retrieval.md`.

A task is a bag of subtasks. A worker takes some (`POST /task/{task}/subtask/__take`); each assignment is a
lease with a token, which goes with everything that he reports. States, rules and examples: `docs/tasks.md`.
"""

_TAGS = [
    {"name": "Sessions", "description": "A chat session: made, listed, read, forked, ended."},
    {"name": "Messages", "description": "What is said in a session: a tree of messages."},
    {"name": "Tasks", "description": "Bags of work: made, listed, read, paused, cancelled."},
    {"name": "Subtasks", "description": "Added, taken by one worker at a time, and reported on."},
    {
        "name": "Models",
        "description": "What models there are, and each at its address, as Hugging Face's clients ask.",
    },
    {"name": "Jobs", "description": "What models are asked for durably."},
    {"name": "Indexes", "description": "What texts and vectors are found in: made, paused, built anew."},
    {"name": "Index documents", "description": "The documents of an index: put, one or many, read, removed."},
    {"name": "Index search", "description": "By meaning, by words, by both."},
    {"name": "OpenAI", "description": "Models as OpenAI's clients ask them: `base_url` is ours with `/v1`."},
    {"name": "Events", "description": "The durable sequence of events of a session or a task, live."},
    {"name": "System", "description": "Is it alive, is it ready, what is it doing."},
]

SESSION_ID_PARAMETER: Schema = {
    "pattern": CHAT_ID,
    "examples": ["chat_01k9w2x6hj3v8m5r7t0q4n1b2c"],
}
MESSAGE_ID_PARAMETER: Schema = {
    "pattern": MESSAGE_ID,
    "examples": ["msg_01k9w2x6hj3v8m5r7t0q4n1b2c"],
}
TASK_ID_PARAMETER: Schema = {
    "pattern": TASK_ID,
    "examples": ["task_01k9w2x6hj3v8m5r7t0q4n1b2c"],
}
JOB_ID_PARAMETER: Schema = {
    "pattern": JOB_ID,
    "examples": ["job_01k9w2x6hj3v8m5r7t0q4n1b2c"],
}
SUBTASK_ID_PARAMETER: Schema = {
    "pattern": SUBTASK_ID,
    "examples": ["sub_01k9w2x6hj3v8m5r7t00000001"],
}

IDEMPOTENCY_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    # Without an example, which would be used for more than one request.
    "description": "Makes this POST count once. Make a new one (a UUID, say) for each new request.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": KEY_PATTERN},
}
IF_NONE_MATCH: Schema = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The ETag that you have: 304 if it is still current.",
    "schema": {"type": "string"},
}
IF_MATCH: Schema = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": "The ETag of what you have read, or `*`: 412 if it is not current, 428 without.",
    "schema": {"type": "string"},
    "example": "*",
}
PREFER: Schema = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "`wait=n`: wait up to n seconds (at most 120) for the reply; it is `reply_message`.",
    "schema": {"type": "string"},
    "example": "wait=30",
}

ETAG = {"ETag": {"description": "The answer's version.", "schema": {"type": "string"}}}
LOCATION = {"Location": {"description": "Where it is from now on.", "schema": {"type": "string"}}}
LINK = {
    "Link": {
        "description": "The neighbouring pages: `next`, `prev` (RFC 8288).",
        "schema": {"type": "string"},
    }
}
REPLAYED = {
    "Idempotency-Replayed": {
        "description": "`true` if this is the stored answer to an earlier request with the same key.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}
RETRY_AFTER = {
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}},
}
_SHOULD_RETRY = {
    "x-should-retry": {
        "description": "Whether the same request may pass later.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    }
}

_ERRORS: dict[int, tuple[str, str]] = {
    400: ("malformed-json", "The body is not JSON, or a cursor is malformed."),
    403: ("origin-not-allowed", "Not for this host, or from a page that may not."),
    404: ("not-found", "There is no such thing, or it belongs to somebody else."),
    409: ("session-ended", "The state forbids it."),
    412: ("precondition-failed", "It is not any more what you have read."),
    413: ("body-too-large", "The body is too large."),
    415: ("unsupported-media-type", "The body is not declared as plain JSON in UTF-8."),
    422: ("invalid", "The input is not valid; `errors` say where."),
    428: ("precondition-required", "Say in `If-Match` what it is that you change."),
    429: ("too-many-requests", "Too much waits already. Try again in a moment."),
    500: ("internal", "A fault of ours; the log has it under the request id."),
    503: ("unavailable", "A part is down. Nothing was lost; try again."),
    504: ("deadline-exceeded", "No answer in time: it may still be applied, so repeat it with its key."),
}

Responses = dict[int | str, dict[str, Any]]

READ_ERRORS = (403, 404, 422, 500, 503)
LIST_ERRORS = (400, 403, 404, 422, 500, 503)
DELETE_ERRORS = (403, 404, 409, 422, 500, 503, 504)
PUT_ERRORS = (400, 403, 404, 409, 413, 415, 422, 429, 500, 503, 504)
POST_ERRORS = (400, 403, 404, 409, 413, 415, 422, 429, 500, 503, 504)


def errors(*statuses: int) -> Responses:
    """Documents error answers."""
    return {status: _error(status) for status in statuses}


def _error(status: int) -> dict[str, Any]:
    code, description = _ERRORS[status]
    example = {
        "type": f"urn:goatherd:error:{code}",
        "title": TITLES[code],
        "status": status,
        "detail": description,
        "code": code,
        "instance": "/chat",
        "request_id": "req_01k9w2x6hj3v8m5r7t0q4n1b2c",
    }
    response: dict[str, Any] = {
        "description": description,
        "content": {
            PROBLEM_JSON: {"schema": {"$ref": _REF.format(model="ProblemDetails")}, "example": example}
        },
    }
    if status in (409, 503):
        response["headers"] = {**RETRY_AFTER, **(_SHOULD_RETRY if status == 409 else {})}
    return response


def body(model: type[BaseModel], *, required: bool, examples: Mapping[str, Schema]) -> Schema:
    """Documents a body that the route reads itself. `model` has to be one of `_BODIES`."""
    content = {
        "schema": {"$ref": _REF.format(model=model.__name__)},
        "examples": {name: {"value": value} for name, value in examples.items()},
    }
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


def one_or_several(one: type[BaseModel], several: type[BaseModel], *, examples: Mapping[str, Any]) -> Schema:
    """As `body`, of one thing or an array of such."""
    documented = body(one, required=True, examples=examples)
    content = documented["requestBody"]["content"]["application/json"]
    content["schema"] = {"anyOf": [reference(one.__name__), reference(several.__name__)]}
    return documented


def body_or_lines(
    whole: type[BaseModel], line: type[BaseModel], media_type: str, *, examples: Mapping[str, Any]
) -> Schema:
    """As `body`, of a whole, or of lines of JSON. OpenAPI 3.1 has no word for what is in these; 3.2 will."""
    documented = body(whole, required=True, examples=examples)
    documented["requestBody"]["content"][media_type] = {
        "schema": {"type": "string", "description": f"In each line a `{line.__name__}`."},
        "x-itemSchema": reference(line.__name__),
    }
    return documented


def reference(name: str) -> Schema:
    """To a schema among the components."""
    return {"$ref": _REF.format(model=name)}


def event_stream(example: str, events: Sequence[type[BaseModel]] = _EVENTS) -> Schema:
    """Documents an answer of `text/event-stream`. OpenAPI 3.1 has no word for what is in it; 3.2 will."""
    names = " or ".join(f"`{model.__name__}`" for model in events)
    return {
        "schema": {
            "type": "string",
            "description": f"Server-Sent Events. The `data` of each is JSON: {names} (see `x-itemSchema`); "
            "its `event` is the `type`.",
        },
        "x-itemSchema": {"oneOf": [reference(model.__name__) for model in events]},
        "example": example,
    }


def describe(app: FastAPI, settings: Settings) -> None:
    """Makes `app.openapi()` give the whole document. It is made when it is first asked for."""

    def document() -> Schema:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, settings)
        return app.openapi_schema

    # FastAPI's documented way to extend the document.
    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI, settings: Settings) -> Schema:
    schema = get_openapi(
        title="Goatherd",
        version=__version__,
        summary="Durable chats, tasks and inference graphs as actors.",
        description=_DESCRIPTION.strip(),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        tags=_TAGS,
        routes=app.routes,
    )
    _keep_nulls(app, schema)
    components: Schema = schema.setdefault("components", {})
    schemas: Schema = components.setdefault("schemas", {})
    _, definitions = models_json_schema([(model, "validation") for model in _SCHEMAS], ref_template=_REF)
    for name, definition in definitions["$defs"].items():
        schemas.setdefault(name, definition)
    models = sorted(settings.models)
    for name in ("CreateSession", "PostMessageBody", "RegenerateBody"):
        # Not all that there are: more may be registered any time.
        schemas[name]["properties"]["model"]["examples"] = models
    _limit_to(schemas["CreateSession"], "agent", list(AGENTS))
    components["headers"] = {
        "RequestId": {"description": "Names the request in every log line.", "schema": {"type": "string"}}
    }
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            for response in operation["responses"].values():
                _shape_error(surface_of(path), response)
                response.setdefault("headers", {})["x-request-id"] = {
                    "$ref": "#/components/headers/RequestId"
                }
    return schema


def _keep_nulls(app: FastAPI, schema: Schema) -> None:
    """Bodies as they are described by us: FastAPI drops what is null, also from examples."""
    for route in app.routes:
        if isinstance(route, APIRoute) and "requestBody" in (route.openapi_extra or {}):
            for method in route.methods or ():
                operation = schema["paths"][route.path_format][method.lower()]
                operation["requestBody"] = (route.openapi_extra or {})["requestBody"]


def _shape_error(surface: Surface, response: dict[str, Any]) -> None:
    """Errors have the shape of whoever's clients the path is for."""
    problem = response.get("content", {}).get(PROBLEM_JSON)
    if problem is None or surface is Surface.OWN:
        return
    model = OpenAIError if surface is Surface.OPENAI else HuggingFaceError
    example = shaped(surface, problem["example"])
    response["content"] = {"application/json": {"schema": reference(model.__name__), "example": example}}


def _limit_to(schema: Schema, name: str, values: list[str]) -> None:
    """Names the values that a text or null may have."""
    for option in schema["properties"][name]["anyOf"]:
        if option["type"] == "string":
            option["enum"] = values
