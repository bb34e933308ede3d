"""OpenAI's routes for speech and images."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from api import inference_docs as docs
from api import openai_media
from api.deps import All, LeanRoute

router = APIRouter(tags=["OpenAI"], route_class=LeanRoute)


@router.post(
    "/v1/audio/transcriptions",
    operation_id="createTranscription",
    summary="Write down what is said",
    response_description="The text, in the format that was asked for.",
    responses=docs.HEARD,
    openapi_extra=docs.TRANSCRIPTION_FORM,
)
async def transcribe(request: Request, parts: All) -> Response:
    """Of models for automatic speech recognition. With words and segments both, segments are sentences."""
    return await openai_media.hear(request, parts, "transcribe")


@router.post(
    "/v1/audio/translations",
    operation_id="createTranslation",
    summary="Write down in English what is said",
    response_description="The text, in the format that was asked for.",
    responses=docs.HEARD,
    openapi_extra=docs.TRANSLATION_FORM,
)
async def translate(request: Request, parts: All) -> Response:
    """Of models for automatic speech recognition that know several languages."""
    return await openai_media.hear(request, parts, "translate")


@router.post(
    "/v1/audio/speech",
    operation_id="createSpeech",
    summary="Say a text",
    response_description="The sound, in the format that was asked for.",
    responses=docs.SAID,
    openapi_extra=docs.SPEECH_BODY,
)
async def say(request: Request, parts: All) -> Response:
    """Of models for text-to-speech. OpenAI's own voices stand for the model's default one."""
    return await openai_media.say(request, parts)


@router.post(
    "/v1/images/generations",
    operation_id="createImage",
    summary="Make images",
    response_description="Images, as PNG in base64.",
    responses=docs.DRAWN,
    openapi_extra=docs.IMAGE_BODY,
)
async def draw(request: Request, parts: All) -> Response:
    """Of models for text-to-image."""
    return await openai_media.draw(request, parts)
