"""OpenAI's routes for text: chats, completions, vectors."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from api import inference_docs as docs
from api import openai_text
from api.deps import All, LeanRoute

router = APIRouter(tags=["OpenAI"], route_class=LeanRoute)


@router.post(
    "/v1/chat/completions",
    operation_id="createChatCompletion",
    summary="Chat with a model",
    response_description="The reply, or chunks of it.",
    responses=docs.CHAT_ANSWERS,
    openapi_extra=docs.CHAT_BODY,
)
async def chat(request: Request, parts: All) -> Response:
    """Nothing of it is kept: a conversation that is, is a session (`POST /chat`).

    A client that goes away ends the work. Tools, response formats and images are for models of the provider
    `openai`, to which they are passed on.
    """
    return await openai_text.chat(request, parts)


@router.post(
    "/v1/completions",
    operation_id="createCompletion",
    summary="Go on from a text",
    response_description="The text that follows, or chunks of it.",
    responses=docs.COMPLETION_ANSWERS,
    openapi_extra=docs.COMPLETION_BODY,
)
async def complete(request: Request, parts: All) -> Response:
    """The older way: without roles, and without a template."""
    return await openai_text.complete(request, parts)


@router.post(
    "/v1/embeddings",
    operation_id="createEmbedding",
    summary="Make vectors of texts",
    response_description="A vector for each text.",
    responses=docs.EMBEDDING_ANSWERS,
    openapi_extra=docs.EMBEDDING_BODY,
)
async def embed(request: Request, parts: All) -> Response:
    """Of models for feature extraction or sentence similarity."""
    return await openai_text.embed(request, parts)
