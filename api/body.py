"""JSON bodies: read once, checked once, by pydantic's own parser."""

from __future__ import annotations

import asyncio
import json
import re
from typing import NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from api.errors import InvalidInput, MalformedJson, UnsupportedMediaType, invalid_fields, pointer

Body = TypeVar("Body", bound=BaseModel)

# Not within a word: a large file in base64 has them for certain, and is not to be parsed twice for it.
_NO_NUMBERS = tuple(re.compile(word + rb"(?<![A-Za-z0-9+/]" + word + rb")") for word in (b"NaN", b"Infinity"))
_SURROGATE = re.compile("[\ud800-\udfff]")
_LARGE = 256 << 10
_MOST_FAULTS = 5_000
"""Of those that each are told apart from the others: of a million, the telling takes seconds."""


async def read_body(request: Request, model: type[Body]) -> tuple[Body, bytes]:
    """The body as `model`, and its bytes. An empty body is `{}`.

    Raises:
        UnsupportedMediaType: it says that it is something else than JSON, or doesn't say; or that it is
            compressed, or not UTF-8.
        MalformedJson: it isn't JSON (NaN and Infinity are not).
        InvalidInput: it doesn't fit the model.
    """
    raw = await request.body()
    if not raw:
        raw = b"{}"
    else:
        check_type(request.headers.get("content-type"))
        check_coding(request.headers.get("content-encoding"))
    return await parse_any(raw, model), raw


async def parse_any(raw: bytes, model: type[Body]) -> Body:
    """As `parse_body`; a large one in a thread, so that others are served meanwhile."""
    if len(raw) > _LARGE:
        return await asyncio.to_thread(parse_body, raw, model)
    return parse_body(raw, model)


def parse_body(raw: bytes, model: type[Body]) -> Body:
    """Raises as `read_body` does, of the JSON itself."""
    # Pydantic's parser takes these words for numbers, which JSON doesn't. They may also be part of a text.
    if any(word.search(raw) for word in _NO_NUMBERS):
        _parse(raw)
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        if (count := error.error_count()) > _MOST_FAULTS:
            raise InvalidInput(
                [{"pointer": "", "detail": f"It is wrong in {count:,} places: it can't be what was meant."}]
            ) from None
        errors = error.errors(include_url=False, include_input=False)
        if errors[0]["type"] == "json_invalid":
            _explain(raw)
        raise invalid_fields(errors) from None


def check_type(content_type: str | None) -> None:
    """Raises `UnsupportedMediaType` unless it is JSON in UTF-8."""
    if content_type == "application/json":
        return
    media_type, *parameters = [part.strip().lower() for part in (content_type or "").split(";")]
    if media_type == "application/json":
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name == "charset" and value.strip('"') not in ("utf-8", "utf8"):
                raise UnsupportedMediaType(f"JSON is UTF-8 here; the header says {parameter[:80]!r}.")
        return
    said = repr(media_type) if media_type else "nothing"
    raise UnsupportedMediaType(
        f"The body has to be JSON, sent with 'Content-Type: application/json'; the header says {said}."
    )


def check_coding(content_encoding: str | None) -> None:
    codings = {coding.strip().lower() for coding in (content_encoding or "").split(",")}
    if codings - {"", "identity"}:
        raise UnsupportedMediaType(
            f"The body has to be sent as it is, not with 'Content-Encoding: {content_encoding}'."
        )


def _explain(raw: bytes) -> NoReturn:
    """Says what pydantic's parser stumbled over: most often the syntax, but maybe what a text holds."""
    _find_surrogate(_parse(raw), [])
    raise MalformedJson("The body is nested too deeply.")


def _parse(raw: bytes) -> object:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise MalformedJson(f"The body is not UTF-8 (at byte {error.start}).") from None
    try:
        parsed: object = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise MalformedJson(
            f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        ) from None
    except RecursionError:
        raise MalformedJson("The body is nested too deeply.") from None
    except ValueError:
        raise MalformedJson("The body has a number that is too long.") from None
    return parsed


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedJson(f"The body is not valid JSON: {name} is not a JSON value.")


def _find_surrogate(value: object, path: list[str | int]) -> None:
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise InvalidInput(
                [
                    {
                        "pointer": pointer(path),
                        "detail": "A text has half of a surrogate pair, which is no character.",
                    }
                ]
            )
    elif isinstance(value, dict):
        for key, item in value.items():
            _find_surrogate(key, path)
            _find_surrogate(item, [*path, key])
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _find_surrogate(item, [*path, index])
