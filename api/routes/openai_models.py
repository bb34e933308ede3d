"""Models as OpenAI's clients list them; and OpenAI's API of one model, below the model's own address."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api import inference_docs as docs
from api import openai_media, openai_text, openapi
from api.deps import All, LeanRoute, Parts
from api.inference_calls import found
from api.inference_schemas import OpenAIModel, OpenAIModels
from api.openai_text import as_json
from api.pages import refuse_query
from goatherd.contracts.inference_work import ModelEntry
from goatherd.contracts.model import Json

router = APIRouter(tags=["OpenAI"], route_class=LeanRoute)

ModelPath = Annotated[str, Path(description="The model's name.", examples=["smollm2-135m-instruct"])]


@router.get(
    "/v1/models",
    operation_id="listOpenAIModels",
    summary="List models",
    response_description="All that may be asked, by name.",
    responses={200: {"model": OpenAIModels}, **openapi.errors(403, 422, 500)},
)
async def list_models(request: Request, parts: All) -> Response:
    """Of any task."""
    refuse_query(request)
    entries = sorted(parts.inference.entries(), key=lambda entry: entry.name)
    return _listed(entries)


@router.get(
    "/v1/models/{model_id:path}",
    operation_id="getOpenAIModel",
    summary="Read a model",
    response_description="The model.",
    responses={200: {"model": OpenAIModel}, **openapi.errors(*docs.READ_ERRORS)},
)
async def get_model(request: Request, parts: All, model_id: ModelPath) -> Response:
    """Its name, and what it is for."""
    refuse_query(request)
    return as_json(_shown(found(parts, model_id)))


@router.get(
    "/models/{model_id:path}/v1/models",
    operation_id="listOpenAIModelsOfModel",
    summary="List the only model",
    response_description="The model that the path names.",
    responses={200: {"model": OpenAIModels}, **openapi.errors(*docs.READ_ERRORS)},
)
async def list_one(request: Request, parts: All, model_id: ModelPath) -> Response:
    """For clients that ask what there is."""
    refuse_query(request)
    return _listed([found(parts, model_id)])


@router.post(
    "/models/{model_id:path}/v1/chat/completions",
    operation_id="chatWithModel",
    summary="Chat with a model at its address",
    response_description="The reply, or chunks of it.",
    responses=docs.CHAT_ANSWERS,
    openapi_extra=docs.CHAT_BODY,
)
async def chat(request: Request, parts: All, model_id: ModelPath) -> Response:
    """As `/v1/chat/completions`; the body's `model` does not count. The other routes of `/v1` are here
    too."""
    return await openai_text.chat(request, parts, model_id)


Handler = Callable[[Request, Parts, str], Coroutine[Any, Any, Response]]


def _at_address(path: str, handler: Handler) -> None:
    async def ask(request: Request, parts: All, model_id: ModelPath) -> Response:
        return await handler(request, parts, model_id)

    router.post(f"/models/{{model_id:path}}/v1/{path}", include_in_schema=False)(ask)


async def _transcribe(request: Request, parts: Parts, model: str) -> Response:
    return await openai_media.hear(request, parts, "transcribe", model)


async def _translate(request: Request, parts: Parts, model: str) -> Response:
    return await openai_media.hear(request, parts, "translate", model)


_at_address("completions", openai_text.complete)
_at_address("embeddings", openai_text.embed)
_at_address("audio/transcriptions", _transcribe)
_at_address("audio/translations", _translate)
_at_address("audio/speech", openai_media.say)
_at_address("images/generations", openai_media.draw)


def _listed(entries: list[ModelEntry]) -> Response:
    return as_json({"object": "list", "data": [_shown(entry) for entry in entries]})


def _shown(entry: ModelEntry) -> Json:
    created = int(entry.created_at.timestamp()) if entry.created_at else 0
    return {
        "id": entry.name,
        "object": "model",
        "created": created,
        "owned_by": entry.owner or "goatherd",
        "task": entry.spec.task.value,
    }
