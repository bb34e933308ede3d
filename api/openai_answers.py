"""Generated text as OpenAI's clients read it, whole and while it is made.

Source of the shapes: openai 3.54, `types/chat/chat_completion*.py` and `types/completion*.py`.

What a provider gave besides (`passed_on`) belongs to the message, or to a piece's delta, but for
`finish_reason` and `logprobs`, which belong to the choice.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import orjson
from starlette.types import Scope

from api.errors import error_body
from api.inference_calls import Talk
from api.outcomes import usage_of
from goatherd.contracts.deltas import merge, missing
from goatherd.contracts.inference import Token
from goatherd.contracts.inference_work import Outcome, Piece, WorkItem
from goatherd.contracts.model import Json
from goatherd.errors import GoatherdError
from goatherd.telemetry import get_logger

log = get_logger(__name__)

_OF_THE_CHOICE = ("finish_reason", "logprobs")
_DONE = b"data: [DONE]\n\n"


class Head:
    """What all parts of one answer have in common."""

    def __init__(self, model: str, kind: str, prefix: str) -> None:
        self._fields = {
            "id": f"{prefix}-{secrets.token_hex(16)}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }

    def __call__(self, choices: list[Json], **more: Any) -> Json:
        return {**self._fields, "choices": choices, **more}


def chat_completion(model: str, outcome: Outcome, *, logprobs: bool) -> Json:
    besides = outcome.passed_on or {}
    message: Json = {
        "role": "assistant",
        "content": outcome.output["generated_text"],
        "refusal": None,
        **_message(besides),
    }
    if calls := message.get("tool_calls"):
        # Only pieces of them are numbered.
        message["tool_calls"] = [
            {name: value for name, value in call.items() if name != "index"} for call in calls
        ]
        message["content"] = message["content"] or None
    choice = {
        "index": 0,
        "message": message,
        "logprobs": besides.get("logprobs") or (_logprobs(outcome.tokens or ()) if logprobs else None),
        "finish_reason": _reason(outcome),
    }
    return Head(model, "chat.completion", "chatcmpl")([choice], usage=_usage([outcome]))


async def chat_chunks(
    scope: Scope, talk: Talk, model: str, *, logprobs: bool, usage: bool
) -> AsyncGenerator[bytes]:
    head = Head(model, "chat.completion.chunk", "chatcmpl")
    more = {"usage": None} if usage else {}
    sent = 0
    told: Json = {}

    def chunk(delta: Json, *, reason: str | None = None, logprobs: Any = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return _event(head([choice], **more))

    try:
        yield chunk({"role": "assistant", "content": ""})
        async for one in talk:
            besides = one.passed_on or {}
            if isinstance(one, Piece):
                sent += len(one.text)
                merge(told, besides)
                delta = {**({"content": one.text} if one.text else {}), **_message(besides)}
                likely = besides.get("logprobs") or (_logprobs(one.tokens or ()) if logprobs else None)
                if delta or likely:
                    yield chunk(delta, logprobs=likely)
                continue
            # What no piece had: the answer has it all.
            if rest := one.output["generated_text"][sent:]:
                yield chunk({"content": rest})
            missed = missing(besides, told)
            if (delta := _message(missed)) or missed.get("logprobs"):
                yield chunk(delta, logprobs=missed.get("logprobs"))
            yield chunk({}, reason=_reason(one))
            if usage:
                yield _event(head([], usage=_usage([one])))
        yield _DONE
    except GoatherdError as error:
        yield _event(error_body(scope, error))
    except Exception:
        log.exception("stream failed")
        yield _event(error_body(scope, GoatherdError("unforeseen")))


def completion(
    model: str, items: Sequence[WorkItem], outcomes: Sequence[Outcome], *, echo: bool, logprobs: bool
) -> Json:
    choices = []
    for index, (item, outcome) in enumerate(zip(items, outcomes, strict=True)):
        prompt = item.inputs if echo else ""
        likely = _old_logprobs(outcome.tokens or (), len(prompt)) if logprobs else None
        text = prompt + outcome.output["generated_text"]
        choices.append({"index": index, "text": text, "logprobs": likely, "finish_reason": _reason(outcome)})
    return Head(model, "text_completion", "cmpl")(choices, usage=_usage(outcomes))


async def completion_chunks(
    scope: Scope, talk: Talk, model: str, *, echo: str, logprobs: bool, usage: bool
) -> AsyncGenerator[bytes]:
    """`echo` is what stands before the text."""
    head = Head(model, "text_completion", "cmpl")
    more = {"usage": None} if usage else {}
    sent = 0

    def chunk(text: str, *, reason: str | None = None, logprobs: Any = None) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return _event(head([choice], **more))

    try:
        if echo:
            yield chunk(echo)
        async for one in talk:
            if isinstance(one, Piece):
                likely = _old_logprobs(one.tokens or (), len(echo) + sent) if logprobs else None
                sent += len(one.text)
                if one.text or likely:
                    yield chunk(one.text, logprobs=likely)
                continue
            yield chunk(one.output["generated_text"][sent:], reason=_reason(one))
            if usage:
                yield _event(head([], usage=_usage([one])))
        yield _DONE
    except GoatherdError as error:
        yield _event(error_body(scope, error))
    except Exception:
        log.exception("stream failed")
        yield _event(error_body(scope, GoatherdError("unforeseen")))


def _message(besides: Json) -> Json:
    return {name: value for name, value in besides.items() if name not in _OF_THE_CHOICE}


def _reason(outcome: Outcome) -> str:
    given = (outcome.passed_on or {}).get("finish_reason")
    if given:
        return str(given)
    return outcome.finish.reason if outcome.finish is not None else "stop"


def _usage(outcomes: Sequence[Outcome]) -> Json:
    counts = [usage_of(outcome) for outcome in outcomes]
    read, made = sum(one.input_tokens for one in counts), sum(one.output_tokens for one in counts)
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def _logprobs(tokens: Sequence[Token]) -> Json:
    content = [
        {
            "token": token.text,
            "logprob": token.logprob,
            "bytes": list(token.text.encode()),
            "top_logprobs": [],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _old_logprobs(tokens: Sequence[Token], start: int) -> Json:
    offsets, at = [], start
    for token in tokens:
        offsets.append(at)
        at += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": None,
        "text_offset": offsets,
    }


def _event(content: Json) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(content)
