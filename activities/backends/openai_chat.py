"""`ChatModel` by an API of OpenAI's kind."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from openai import AsyncOpenAI, AsyncStream

from activities.backends.chat_completions import (
    Reading,
    chat_body,
    check,
    completion_body,
    left_of,
    may_go,
    messages_of,
    prefix_tokens,
)
from activities.backends.openai_errors import translated
from activities.ports import ChatRequest
from goatherd.contracts.inference import Chunk, Finish, Usage
from goatherd.contracts.model import Json
from goatherd.contracts.providers import OpenAIOptions
from goatherd.errors import Invalid, Unavailable


class OpenAIChatModel:
    """Replies as a server streams them.

    Nobody here knows the other side's tokenizer. So what a prefix took of `max_tokens` is guessed by its
    length, and the oldest turns are left out when the server says that they are too long, a half of them at a
    time. A reply is gone on from as `options.resume` says: with `ask` it is as seamless as the model is able,
    and what it repeats of the prefix's beginning is not shown.
    """

    def __init__(self, client: AsyncOpenAI, name: str, model: str, options: OpenAIOptions) -> None:
        """`name`: for messages; `model`: as the server knows it."""
        self._client = client
        self._name = name
        self._model = model
        self._options = options

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk | Finish]:
        """See `ChatModel.stream`. Closed, it closes the connection, by which servers know to stop."""
        check(request)
        if request.prompt_tokens is not None:
            raise Invalid(
                "the provider openai can't count tokens to cut them", pointer="/parameters/truncate"
            )
        if left_of(request) == 0:
            yield Finish(reason="length", usage=Usage(completion_tokens=prefix_tokens(request)))
            return
        skip = 0
        while True:
            try:
                async with aclosing(self._reply(request, skip)) as reply:
                    async for one in reply:
                        yield one
                return
            except Invalid as error:
                # It comes before any text, or not at all.
                left = len(may_go(messages_of(request, resume="continue_final_message"))) - skip
                if error.code != "too-long" or left <= 0:
                    raise
                skip += -(-left // 2)

    async def _reply(self, request: ChatRequest, skip: int) -> AsyncGenerator[Chunk | Finish]:
        reading = Reading(request)
        with translated(self._name, self._options):
            path, body = self._asked(request, skip)
            async with await self._client.post(
                path,
                cast_to=object,
                body={"model": self._model, **body},
                stream=True,
                stream_cls=AsyncStream[object],
            ) as events:
                async for event in events:
                    for chunk in reading.event(cast(Json, event)):
                        yield chunk
        if not reading.complete:
            raise Unavailable(f"model {self._name!r}: the server's stream ended before the reply did")
        for one in reading.end():
            yield one

    def _asked(self, request: ChatRequest, skip: int) -> tuple[str, Json]:
        options = self._options
        if request.prompt is not None and options.generate == "completions":
            return "/completions", completion_body(request, usage=options.stream_usage)
        return "/chat/completions", chat_body(
            request,
            resume=options.resume,
            max_tokens_as=options.max_tokens_as,
            usage=options.stream_usage,
            skip=skip,
        )
