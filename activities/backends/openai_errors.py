"""What goes wrong at an API of OpenAI's kind, as errors of ours. The key is in none of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2
import openai

from goatherd.contracts.providers import OpenAIOptions
from goatherd.errors import GoatherdError, Invalid, TooManyRequests, Unavailable

_MOST_CHARS = 500
_TOO_LONG = ("context_length_exceeded", "maximum context length", "string_above_max_length")
_DEFAULT_WAIT_S = 5.0


@contextmanager
def translated(name: str, options: OpenAIOptions) -> Iterator[None]:
    """`name`: the model's public name, for messages."""
    try:
        yield
    except openai.APIStatusError as error:
        raise _of_status(name, options, error) from None
    except openai.APITimeoutError:
        raise Unavailable(f"model {name!r}: the server did not answer in {options.timeout_s:g} s") from None
    except openai.APIConnectionError as error:
        cause = error.__cause__ or error
        if isinstance(cause, GoatherdError):
            raise cause from None
        raise Unavailable(
            f"model {name!r}: no connection to {options.base_url} ({cause or 'it broke off'})"
        ) from None
    except openai.APIError as error:
        # In the middle of a stream, where there is no status any more.
        raise Unavailable(f"model {name!r}: the server failed ({error.message[:_MOST_CHARS]})") from None
    except httpx2.HTTPError as error:
        raise Unavailable(f"model {name!r}: the connection broke off ({error})") from None
    except json.JSONDecodeError:
        raise Unavailable(f"model {name!r}: the server sent what is no JSON") from None


def _of_status(name: str, options: OpenAIOptions, error: openai.APIStatusError) -> GoatherdError:
    status = error.status_code
    said = _said(error)
    match status:
        case _ if status < 400:
            return Unavailable(
                f"model {name!r} is unavailable: {options.base_url} answers with a redirect ({status}), "
                "which is not followed; set base_url to where it leads",
                code="model-unavailable",
                retry_after_s=60,
            )
        case 401 | 403:
            # What the server says of it may quote the key, so it is left out.
            key = f"the key of {options.api_key}" if options.api_key else "a request without a key"
            return Unavailable(
                f"model {name!r} is unavailable: {options.base_url} refused {key} ({status}); "
                "check it, and what it may be used for",
                code="model-unavailable",
                retry_after_s=60,
            )
        case 429:
            return TooManyRequests(f"model {name!r}: {said}", retry_after_s=_wait_s(error.response))
        case 408 | 409 | 425:
            return Unavailable(f"model {name!r}: {said}", retry_after_s=1)
        case _ if status < 500:
            long = any(sign in f"{error.code} {error.message}" for sign in _TOO_LONG)
            return Invalid(f"model {name!r}: {said}", code="too-long" if long else None)
        case _:
            return Unavailable(f"model {name!r}: {said}", retry_after_s=_wait_s(error.response, 1.0))


def _said(error: openai.APIStatusError) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return f"the server said {error.status_code}: {str(message or error.message)[:_MOST_CHARS]}"


def _wait_s(response: httpx2.Response, default: float = _DEFAULT_WAIT_S) -> float:
    """By `retry-after-ms`, or `retry-after` in seconds or as a date."""
    try:
        if millis := response.headers.get("retry-after-ms"):
            return max(0.0, float(millis) / 1000)
        given = response.headers.get("retry-after", "")
        if given.replace(".", "", 1).isdigit():
            return float(given)
        return max(0.0, (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return default
