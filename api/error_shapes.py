"""Errors as OpenAI's and Hugging Face's clients read them: other shapes of the same problem."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any


class Surface(Enum):
    """Whose clients a path is for."""

    OWN = "own"
    OPENAI = "openai"
    HUGGING_FACE = "hugging-face"


_FIRST_STEP = {"v1": Surface.OPENAI, "models": Surface.HUGGING_FACE}

_OPENAI_CODES = {"too-long": "context_length_exceeded", "too-many-requests": "rate_limit_exceeded"}
# The other codes are ours, as they write theirs.

_HUGGING_FACE_TYPES = {429: "overloaded", 503: "unavailable", 504: "timeout", 404: "not_found"}
# Source of `overloaded`, `validation`: text-generation-inference. Its client has exceptions for them.


def surface_of(path: str) -> Surface:
    return _FIRST_STEP.get(path[1:].partition("/")[0], Surface.OWN)


def shaped(surface: Surface, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The body of an answer that is this problem."""
    if surface is Surface.OPENAI:
        return {"error": _openai(fields)}
    if surface is Surface.HUGGING_FACE:
        return {"error": fields["detail"], "error_type": _type(fields)}
    return dict(fields)


def _openai(fields: Mapping[str, Any]) -> dict[str, Any]:
    code, status = fields["code"], fields["status"]
    if status == 429:
        kind = "rate_limit_error"
    else:
        kind = "server_error" if status >= 500 else "invalid_request_error"
    errors = fields.get("errors")
    return {
        "message": fields["detail"],
        "type": kind,
        "param": _param(errors[0]) if errors else None,
        "code": _OPENAI_CODES.get(code) or code.replace("-", "_"),
    }


def _param(error: Mapping[str, str]) -> str | None:
    """`messages[0].content`, as OpenAI writes `/messages/0/content`. What we have among parameters is a field
    like any other there."""
    place = error.get("pointer")
    if place is None:
        return error.get("parameter") or error.get("header")
    steps = [
        step.replace("~1", "/").replace("~0", "~")
        for step in place.removeprefix("/parameters").split("/")[1:]
    ]
    return "".join(f"[{step}]" if step.isdigit() else f".{step}" for step in steps).lstrip(".") or None


def _type(fields: Mapping[str, Any]) -> str:
    status: int = fields["status"]
    known = "not_found" if fields["code"] == "model-not-found" else _HUGGING_FACE_TYPES.get(status)
    return known or ("validation" if status < 500 else "internal")
