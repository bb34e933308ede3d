"""The models themselves over HTTP: which there are, what is loaded where."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api import openapi
from api.body import read_body
from api.deps import All
from api.etags import JSON
from api.model_admin import ModelDocument, ModelList
from api.model_schemas import LoadQuery, RegisterModel
from api.pages import refuse_query

router = APIRouter(tags=["Models"])
one = APIRouter(tags=["Models"])
"""Paths that match whatever is below /models: to be mounted after those with a word at their end."""

ModelPath = Annotated[str, Path(description="The model's name.", examples=["tiny"])]


@router.get(
    "/models",
    operation_id="listModels",
    summary="List models",
    responses={200: {"model": ModelList}, **openapi.errors(403, 422, 500, 503)},
)
async def list_models(request: Request, parts: All) -> Response:
    """All that can be asked for, with where they are loaded as far as the workers have told."""
    refuse_query(request)
    return Response((await parts.models.all()).model_dump_json(), media_type=JSON)


@router.post(
    "/models",
    status_code=201,
    operation_id="registerModel",
    summary="Register a model",
    responses={
        201: {"model": ModelDocument, "headers": openapi.LOCATION},
        **openapi.errors(400, 403, 409, 413, 415, 422, 500, 503),
    },
    openapi_extra=openapi.body(
        RegisterModel,
        required=True,
        examples={
            "from the hub": {
                "name": "minilm",
                "source": "sentence-transformers/all-MiniLM-L6-v2",
                "task": "feature-extraction",
            },
            "a server that speaks OpenAI's API": {
                "name": "local-llm",
                "provider": "openai",
                "source": "qwen3",
                "options": {"base_url": "http://127.0.0.1:11434/v1", "api_key": None},
            },
        },
    ),
)
async def register_model(request: Request, parts: All) -> Response:
    """For all processes, within a second. The same again is no error; another model of that name is 409."""
    refuse_query(request)
    body, _ = await read_body(request, RegisterModel)
    document = await parts.models.register(body.name, body, owner=parts.principal.id)
    headers = {"location": f"/models/{body.name}"}
    return Response(document.model_dump_json(), 201, headers=headers, media_type=JSON)


@router.post(
    "/models/{model_id:path}/load",
    operation_id="loadModel",
    summary="Load a model",
    responses={200: {"model": ModelDocument}, **openapi.errors(403, 404, 422, 500, 503)},
)
async def load_model(parts: All, model_id: ModelPath, query: Annotated[LoadQuery, Query()]) -> Response:
    """Has a worker load it before anybody asks for it; it goes on when the answer does not wait."""
    document = await parts.models.load(model_id, wait_s=query.wait_s)
    return Response(document.model_dump_json(), media_type=JSON)


@router.post(
    "/models/{model_id:path}/unload",
    operation_id="unloadModel",
    summary="Unload a model",
    responses={200: {"model": ModelDocument}, **openapi.errors(403, 404, 422, 500, 503, 504)},
)
async def unload_model(request: Request, parts: All, model_id: ModelPath) -> Response:
    """Out of all workers' memory. It is loaded again when it is asked for."""
    refuse_query(request)
    return Response((await parts.models.unload(model_id)).model_dump_json(), media_type=JSON)


@one.get(
    "/models/{model_id:path}",
    operation_id="getModel",
    summary="Get a model",
    responses={200: {"model": ModelDocument}, **openapi.errors(403, 404, 422, 500, 503)},
)
async def get_model(request: Request, parts: All, model_id: ModelPath) -> Response:
    """One, with where it is loaded."""
    refuse_query(request)
    return Response((await parts.models.one(model_id)).model_dump_json(), media_type=JSON)


@one.delete(
    "/models/{model_id:path}",
    status_code=204,
    operation_id="removeModel",
    summary="Remove a model",
    response_class=Response,
    responses=openapi.errors(403, 404, 409, 422, 500, 503, 504),
)
async def remove_model(request: Request, parts: All, model_id: ModelPath) -> Response:
    """One that was registered by a request. Calls and jobs that were made before go on; a chat that is of
    this model has failed replies from now on, unless its messages name another."""
    refuse_query(request)
    await parts.models.remove(model_id)
    return Response(status_code=204)
