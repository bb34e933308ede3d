"""Chats, completions and vectors: OpenAI's requests, asked of a model. `model` is the one that the path
names, if it does; then the body's does not count."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from api.body import read_body
from api.deps import Parts
from api.inference_calls import found, run, stream
from api.openai_answers import chat_chunks, chat_completion, completion, completion_chunks
from api.openai_requests import chat_item, completion_items, texts
from api.openai_schemas import ChatBody, CompletionBody, EmbeddingBody, StreamOptions, asked_at
from api.outcomes import all_done, usage_of
from api.pages import refuse_query
from api.sse import DataStream
from api.vectors import base64_text, numbers
from goatherd.contracts.inference_tasks import Task, Vectors
from goatherd.contracts.inference_work import WorkItem
from goatherd.contracts.model import Json
from goatherd.errors import Invalid, WrongTask


async def chat(request: Request, parts: Parts, model: str | None = None) -> Response:
    refuse_query(request)
    body, _ = await read_body(request, asked_at(ChatBody, model))
    entry = found(parts, model or body.model)
    item = chat_item(entry, body)
    wants_usage = _wants_usage(body.stream, body.stream_options)
    if body.stream:
        talk = await stream(request, parts, entry, Task.CONVERSATIONAL, item)
        chunks = chat_chunks(request.scope, talk, entry.name, logprobs=bool(body.logprobs), usage=wants_usage)
        return DataStream(chunks, talk)
    outcomes = await run(request, parts, entry, Task.CONVERSATIONAL, [item])
    (outcome,) = all_done(outcomes)
    return as_json(chat_completion(entry.name, outcome, logprobs=bool(body.logprobs)))


async def complete(request: Request, parts: Parts, model: str | None = None) -> Response:
    refuse_query(request)
    body, _ = await read_body(request, asked_at(CompletionBody, model))
    entry = found(parts, model or body.model)
    items = completion_items(body)
    echo, logprobs = bool(body.echo), body.logprobs is not None
    wants_usage = _wants_usage(body.stream, body.stream_options)
    if body.stream:
        talk = await stream(request, parts, entry, Task.TEXT_GENERATION, items[0])
        before = items[0].inputs if echo else ""
        chunks = completion_chunks(
            request.scope, talk, entry.name, echo=before, logprobs=logprobs, usage=wants_usage
        )
        return DataStream(chunks, talk)
    outcomes = all_done(
        await run(request, parts, entry, Task.TEXT_GENERATION, items),
        many=None if isinstance(body.prompt, str) else "/prompt",
    )
    return as_json(completion(entry.name, items, outcomes, echo=echo, logprobs=logprobs))


async def embed(request: Request, parts: Parts, model: str | None = None) -> Response:
    refuse_query(request)
    body, _ = await read_body(request, asked_at(EmbeddingBody, model))
    entry = found(parts, model or body.model)
    parameters: Json = {} if body.dimensions is None else {"dimensions": body.dimensions}
    items = [WorkItem(inputs=text, parameters=parameters) for text in texts(body.input, "/input")]
    outcomes = all_done(
        await run(request, parts, entry, Task.FEATURE_EXTRACTION, items),
        many=None if isinstance(body.input, str) else "/input",
    )
    data, read = [], 0
    for index, outcome in enumerate(outcomes):
        vectors = Vectors.model_validate(outcome.output)
        if len(vectors.shape) != 1:
            raise WrongTask(f"The model {entry.name!r} gives a vector for each token, not for each text.")
        vector: Any = base64_text(vectors) if body.encoding_format == "base64" else numbers(vectors)
        data.append({"object": "embedding", "index": index, "embedding": vector})
        read += usage_of(outcome).input_tokens or vectors.tokens
    usage = {"prompt_tokens": read, "total_tokens": read}
    return as_json({"object": "list", "data": data, "model": entry.name, "usage": usage})


def as_json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


def _wants_usage(streams: bool | None, options: StreamOptions | None) -> bool:
    if options is not None and not streams:
        raise Invalid("Only with `stream`.", pointer="/stream_options")
    return options is not None and bool(options.include_usage)
