"""Generated text: what a caller asks as a model takes it, and its pieces on their way while it is made."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, Self, cast

from activities.inference_ports import Item, Made
from activities.model_ports import PieceFeed
from activities.ports import ChatModel, ChatRequest
from goatherd.contracts.inference import Chunk, Finish, Generation, ModelSpec, Token
from goatherd.contracts.inference_tasks import (
    Conversation,
    ConversationParameters,
    GeneratedText,
    TextGenerationParameters,
)
from goatherd.contracts.inference_work import Piece, TextUsage
from goatherd.contracts.model import Json
from goatherd.errors import GoatherdError, Unavailable
from goatherd.waiting import put_down

GATHER_S = 0.04
"""How long text gathers before it is shown, after the first piece."""

_log = logging.getLogger(__name__)


def request_of(item: Item, spec: ModelSpec) -> ChatRequest:
    """What a chat model is asked for an item of `conversational` or `text-generation`."""
    wish = item.parameters
    if isinstance(wish, ConversationParameters):
        conversation: Conversation = item.inputs
        return ChatRequest(
            turns=conversation.messages,
            generation=_generation(spec, wish, max_tokens=wish.max_tokens, stop=wish.stop),
            details=wish.logprobs,
            passed_on={**_penalties(wish), **wish.passed_on},
        )
    assert isinstance(wish, TextGenerationParameters)
    stop = wish.stop if wish.stop is not None else wish.stop_sequences
    generation = _generation(spec, wish, max_tokens=wish.max_new_tokens, stop=stop)
    if wish.do_sample is False:
        generation = generation.model_copy(update={"temperature": 0.0})
    elif wish.do_sample and not generation.temperature:
        generation = generation.model_copy(update={"temperature": 1.0})
    return ChatRequest(
        turns=(),
        generation=generation,
        prompt=item.inputs,
        prompt_tokens=wish.truncate,
        details=wish.details,
        passed_on=_penalties(wish),
    )


def _generation(
    spec: ModelSpec,
    wish: ConversationParameters | TextGenerationParameters,
    **renamed: Any,
) -> Generation:
    given = {name: getattr(wish, name, None) for name in Generation.model_fields} | renamed
    return spec.generation.model_copy(
        update={name: value for name, value in given.items() if value is not None}
    )


def _penalties(wish: ConversationParameters | TextGenerationParameters) -> Json:
    names = ("frequency_penalty", "presence_penalty")
    return {name: value for name in names if (value := getattr(wish, name, None))}


async def generate(model: ChatModel, request: ChatRequest, pieces: PieceWriter) -> Made:
    """The whole text; its pieces go to `pieces`. Raises what `ChatModel.stream` does."""
    text: list[str] = []
    tokens: list[Token] = []
    finish: Finish | None = None
    async with aclosing(cast(AsyncGenerator[Chunk | Finish], model.stream(request))) as made:
        async for one in made:
            if isinstance(one, Finish):
                finish = one
                break
            text.append(one.text)
            tokens += one.tokens or ()
            pieces.add(one.text, one.tokens, one.passed_on)
    if finish is None:
        raise Unavailable("The model stopped without an end.")
    return Made(
        # Without the prompt, whatever `return_full_text` says: pieces are counted by the text that is made,
        # and whoever answers the caller has the prompt.
        GeneratedText(generated_text="".join(text)),
        usage=TextUsage(
            input_tokens=finish.usage.prompt_tokens, output_tokens=finish.usage.completion_tokens
        ),
        finish=finish,
        tokens=tokens if request.details else None,
        passed_on=finish.passed_on,
    )


class PieceWriter:
    """Shows a growing text: the first piece at once, then what has gathered every `GATHER_S`.

    A piece that can't be shown is not shown: the text comes whole at the end, with the answer.
    """

    def __init__(self, feed: PieceFeed | None, stream: str | None) -> None:
        """Without either, nobody watches."""
        self._feed = feed
        self._stream = stream
        self._n = 0
        self._offset = 0
        self._text: list[str] = []
        self._tokens: list[Token] = []
        self._passed_on: list[Json] = []
        self._more = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._feed is not None and self._stream is not None:
            self._task = asyncio.create_task(self._keep_showing(self._feed, self._stream))
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        if self._task is None:
            return
        if error is None:
            self._closing.set()
            self._more.set()
            await self._task
        else:
            await put_down(self._task)

    def add(self, text: str, tokens: list[Token] | None, passed_on: Json | None = None) -> None:
        if self._task is None:
            return
        self._text.append(text)
        self._tokens += tokens or ()
        if passed_on:
            self._passed_on.append(passed_on)
        self._more.set()

    async def _keep_showing(self, feed: PieceFeed, stream: str) -> None:
        while not self._closing.is_set() or self._text:
            await self._more.wait()
            self._more.clear()
            if pieces := self._gathered(stream):
                try:
                    await feed.publish(pieces)
                except GoatherdError as error:
                    _log.warning("a piece of text could not be shown: %s", error.message)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), GATHER_S)

    def _gathered(self, stream: str) -> list[Piece]:
        text, tokens = "".join(self._text), self._tokens
        # What is passed on is not ours to merge: each in a piece of its own, the text before the first.
        besides: list[Json | None] = [*self._passed_on] or [None]
        self._text, self._tokens, self._passed_on = [], [], []
        if not text and not tokens and besides == [None]:
            return []
        pieces = []
        for passed_on in besides:
            piece = Piece(
                stream=stream,
                n=self._n,
                offset=self._offset,
                text=text,
                tokens=tokens or None,
                passed_on=passed_on,
            )
            pieces.append(piece)
            self._n += 1
            self._offset += len(text)
            text, tokens = "", []
        return pieces
