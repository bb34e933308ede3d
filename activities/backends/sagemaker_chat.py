"""`ChatModel` by a SageMaker endpoint: a container of text-generation-inference, or one of OpenAI's kind."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from activities.backends._text import StopFilter
from activities.backends.chat_completions import Reading, chat_body, check, left_of, prefix_tokens
from activities.backends.sagemaker_endpoint import Body, Endpoint
from activities.backends.sagemaker_toolkit import JSON
from activities.ports import ChatRequest
from goatherd.contracts.inference import Chunk, Finish, Token, Usage
from goatherd.contracts.model import Json
from goatherd.contracts.providers import SageMakerOptions
from goatherd.errors import GoatherdError, Invalid, TooManyRequests, Unavailable


class SageMakerChatModel:
    """Text as the container streams it, or all at once where it can't.

    A prompt is gone on from as it is, the text that there is already behind it. What a prefix took of
    `max_tokens` is guessed by its length, as nobody here knows the container's tokenizer.
    """

    def __init__(self, endpoint: Endpoint, name: str, options: SageMakerOptions) -> None:
        """`name`: for messages."""
        self._endpoint = endpoint
        self._name = name
        self._options = options

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk | Finish]:
        """See `ChatModel.stream`."""
        check(request)
        if left_of(request) == 0:
            yield Finish(reason="length", usage=Usage(completion_tokens=prefix_tokens(request)))
            return
        streamed = self._options.stream and self._options.asynchronous is None
        reading: Reading | _Generation
        if self._options.format == "openai":
            if request.prompt_tokens is not None:
                raise Invalid("the container can't cut by tokens", pointer="/parameters/truncate")
            reading = Reading(request)
            body = chat_body(request, usage=streamed) | {"stream": streamed}
        else:
            if request.prompt is None:
                raise Invalid("a conversation needs a container that speaks OpenAI's: options.format")
            reading = _Generation(self._name, request)
            body = _generate_body(request) | {"stream": streamed}
        sent = Body(json.dumps(body).encode(), JSON)
        if not streamed:
            answer = await self._endpoint.invoke(sent, accept=JSON)
            for chunk in reading.event(_whole(self._name, answer.data)):
                yield chunk
        else:
            lines = Lines()
            async with aclosing(self._endpoint.stream(sent, accept="text/event-stream")) as parts:
                async for part in parts:
                    for event in lines.push(part):
                        for chunk in reading.event(_known(self._name, event)):
                            yield chunk
            for event in lines.flush():
                for chunk in reading.event(_known(self._name, event)):
                    yield chunk
        if not reading.complete:
            raise Unavailable(f"model {self._name!r}: the endpoint's stream ended before the reply did")
        for one in reading.end():
            yield one


class Lines:
    """Events of a stream, of parts that are cut anywhere: inside a line, or a character.

    Each is a line of JSON, behind `data:` if they are server-sent events."""

    def __init__(self) -> None:
        self._rest = b""

    def push(self, part: bytes) -> Iterator[Json]:
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            yield from _event(line)

    def flush(self) -> Iterator[Json]:
        rest, self._rest = self._rest, b""
        yield from _event(rest)


def _event(line: bytes) -> Iterator[Json]:
    line = line.strip().removeprefix(b"data:").strip()
    if not line.startswith(b"{"):
        return  # `[DONE]`, a comment, the name of an event, nothing
    try:
        yield json.loads(line)
    except ValueError:
        raise Unavailable("the endpoint's stream has what is no JSON") from None


def _known(name: str, event: Json) -> Json:
    """The event, unless it says that something went wrong."""
    if error := event.get("error"):
        message = str(error.get("message") if isinstance(error, dict) else error)[:500]
        kind = event.get("error_type") or (error.get("type") if isinstance(error, dict) else "")
        if kind == "validation":
            raise Invalid(f"model {name!r}: {message}")
        if kind == "overloaded":
            raise TooManyRequests(f"model {name!r}: {message}")
        raise Unavailable(f"model {name!r}: its container failed: {message}")
    return event


def _whole(name: str, data: bytes) -> Json:
    try:
        given: Any = json.loads(data)
        given = given[0] if isinstance(given, list) else given
        if not isinstance(given, dict):
            raise ValueError
    except (ValueError, IndexError):
        raise GoatherdError(f"model {name!r}: the endpoint's answer is no generated text") from None
    return _known(name, given)


def _generate_body(request: ChatRequest) -> Json:
    wish = request.generation
    parameters = {
        "max_new_tokens": left_of(request),
        "temperature": wish.temperature or None,
        "do_sample": None if wish.temperature is None else wish.temperature > 0,
        "top_p": wish.top_p if wish.top_p != 1 else None,
        "top_k": wish.top_k or None,
        "repetition_penalty": wish.repetition_penalty,
        "stop": [stop for stop in wish.stop or [] if stop] or None,
        "seed": wish.seed,
        "truncate": request.prompt_tokens,
        "return_full_text": False,
        "details": True,
        **request.passed_on,
    }
    return {
        "inputs": f"{request.prompt}{request.prefix}",
        "parameters": {name: value for name, value in parameters.items() if value is not None},
    }


class _Generation:
    """Makes chunks of text-generation-inference's events: a token each, the last with the details of all.

    Without a stream there is one event, with the whole text. Stop texts, which are in it, are cut off.
    """

    def __init__(self, name: str, request: ChatRequest) -> None:
        self._name = name
        self._request = request
        self._stops = StopFilter(request.generation.stop or [])
        self._stopped = False
        self._count = 0
        self._details: Json | None = None

    @property
    def complete(self) -> bool:
        return self._details is not None

    def event(self, event: Json) -> Iterator[Chunk]:
        token = event.get("token")
        whole = event.get("generated_text")
        if whole is not None:
            self._details = event.get("details") or {}
        if token is not None:
            self._count += 1
            special = bool(token.get("special"))
            made = Token(
                id=token.get("id", -1),
                text=token["text"],
                logprob=token.get("logprob") or 0.0,
                special=special,
            )
            yield from self._shown("" if special else token["text"], [made])
        elif whole is not None:
            yield from self._shown(whole, [])

    def _shown(self, text: str, tokens: list[Token]) -> Iterator[Chunk]:
        shown = ""
        if text and not self._stopped:
            shown, self._stopped = self._stops.push(text)
        details = tokens if self._request.details and tokens else None
        if shown or details:
            yield Chunk(text=shown, tokens=details)

    def end(self) -> Iterator[Chunk | Finish]:
        if not self._stopped and (rest := self._stops.flush()):
            yield Chunk(text=rest)
        details = self._details or {}
        length = details.get("finish_reason") == "length" and not self._stopped
        made = details.get("generated_tokens", self._count)
        yield Finish(
            reason="length" if length else "stop",
            usage=Usage(
                prompt_tokens=details.get("input_length") or len(details.get("prefill") or ()),
                completion_tokens=made + prefix_tokens(self._request),
            ),
            at_stop_text=self._stopped or details.get("finish_reason") == "stop_sequence",
        )
