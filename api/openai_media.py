"""Speech and images: OpenAI's requests, asked of a model. `model` is the one that the path names, if it
does; then the body's does not count."""

from __future__ import annotations

import base64
import re
import time
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from api.body import check_coding, read_body
from api.deps import Parts
from api.errors import InvalidInput, UnsupportedMediaType
from api.inference_calls import found, run
from api.media import MediaLimit, mime_of
from api.openai_schemas import ImageBody, SpeechBody, asked_at
from api.openai_text import as_json
from api.openai_transcripts import FORMATS, Span, plain, sentences, spans, srt, verbose, vtt
from api.outcomes import all_done
from api.pages import refuse_query
from goatherd.contracts.inference_tasks import Media, Task, Transcript
from goatherd.contracts.inference_work import ModelEntry, WorkItem
from goatherd.contracts.model import Json
from goatherd.errors import Invalid, ModelNotFound

_FIELDS = {
    "transcribe": {
        "file",
        "model",
        "language",
        "prompt",
        "response_format",
        "temperature",
        "timestamp_granularities",
        "stream",
        "chunking_strategy",
    },
    "translate": {"file", "model", "prompt", "response_format", "temperature"},
}
_NEUTRAL = {"stream": "false", "chunking_strategy": "auto"}
_STOCK_VOICES = frozenset(
    {"alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage"}
    | {"shimmer", "verse"}
)
"""Voices that only OpenAI's own models have, one of which its clients have to name."""
_SIZE = re.compile(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})")


async def hear(request: Request, parts: Parts, what: str, model: str | None = None) -> Response:
    """`what` is `transcribe` or `translate` (to English)."""
    refuse_query(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise UnsupportedMediaType(
            f"The body has to be a form, multipart/form-data; the header says {kind!r}."
        )
    check_coding(request.headers.get("content-encoding"))
    limit = MediaLimit(parts.settings.max_media_bytes)
    async with request.form(max_files=1, max_fields=32) as form:
        given = _fields(form, what)
        entry = found(parts, model or _required(given, "model"))
        format = given.get("response_format", "json")
        if format not in FORMATS:
            raise Invalid(f"Has to be one of: {', '.join(FORMATS)}.", pointer="/response_format")
        granularities = _granularities(form, format)
        parameters = _hearing(given, what, format, granularities)
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Invalid("Has to be a file.", pointer="/file")
        limit.check(file.size or 0)
        media = limit.from_raw(await file.read(), file.content_type, pointer="/file")
    item = WorkItem(inputs=media, parameters=parameters)
    outcomes = await run(request, parts, entry, Task.AUTOMATIC_SPEECH_RECOGNITION, [item])
    (outcome,) = all_done(outcomes)
    heard = Transcript.model_validate(outcome.output)
    return _told(heard, format, what, given, granularities)


def _fields(form: FormData, what: str) -> dict[str, str]:
    """Those that are texts, checked by name. Raises `InvalidInput`, `Invalid`."""
    names = [name.removesuffix("[]") for name in form]
    unknown = sorted({name for name in names if name not in _FIELDS[what]})
    if unknown:
        raise InvalidInput(
            [{"pointer": f"/{name}", "detail": "Unknown; check the spelling."} for name in unknown]
        )
    given = {name: value for name, value in form.items() if isinstance(value, str) and name[-2:] != "[]"}
    for name, only in _NEUTRAL.items():
        if given.get(name, only).lower() != only:
            raise Invalid(f"{name!r} has to be {only}: it is answered when all is heard.", pointer=f"/{name}")
    return given


def _required(given: dict[str, str], name: str) -> str:
    if not given.get(name):
        raise Invalid("Is missing.", pointer=f"/{name}")
    return given[name]


def _granularities(form: FormData, format: str) -> set[str]:
    name = "timestamp_granularities"
    wanted = {str(one) for one in (*form.getlist(name), *form.getlist(f"{name}[]"))}
    if wanted - {"word", "segment"}:
        raise Invalid("Has to be 'word' or 'segment'.", pointer=f"/{name}")
    if wanted and format != "verbose_json":
        raise Invalid("Only with the response_format verbose_json.", pointer=f"/{name}")
    return wanted or {"segment"}


def _hearing(given: dict[str, str], what: str, format: str, granularities: set[str]) -> Json:
    parameters: Json = {name: given[name] for name in ("language", "prompt") if given.get(name)}
    if given.get("temperature"):
        try:
            parameters["temperature"] = float(given["temperature"])
        except ValueError:
            parameters["temperature"] = -1.0
        if not 0 <= parameters["temperature"] <= 1:
            raise Invalid("Has to be a number from 0 to 1.", pointer="/temperature")
    if what == "translate":
        parameters["task"] = what
    if format not in ("json", "text"):
        parameters["return_timestamps"] = "word" if "word" in granularities else True
    return parameters


def _told(
    heard: Transcript, format: str, what: str, given: dict[str, str], granularities: set[str]
) -> Response:
    if format == "json":
        return as_json(plain(heard))
    if format == "text":
        return PlainTextResponse(f"{heard.text}\n")
    found = spans(heard)
    if format == "srt":
        return PlainTextResponse(srt(found), media_type="application/x-subrip")
    if format == "vtt":
        return PlainTextResponse(vtt(found), media_type="text/vtt")
    words: list[Span] | None = None
    segments: list[Span] | None = found
    if "word" in granularities:
        words = found
        segments = sentences(found) if "segment" in granularities else None
    told = verbose(
        heard,
        task=what,
        language=given.get("language"),
        temperature=float(given.get("temperature") or 0),
        segments=segments,
        words=words,
    )
    return as_json(told)


async def say(request: Request, parts: Parts, model: str | None = None) -> Response:
    refuse_query(request)
    body, _ = await read_body(request, asked_at(SpeechBody, model))
    entry = found(parts, model or body.model)
    format = body.response_format or "mp3"
    parameters: Json = {"format": format}
    if body.speed is not None:
        parameters["speed"] = body.speed
    if body.seed is not None:
        parameters["seed"] = body.seed
    voice = body.voice if isinstance(body.voice, str) or body.voice is None else body.voice.id
    if voice and (entry.spec.provider == "openai" or voice not in _STOCK_VOICES):
        parameters["voice"] = voice
    item = WorkItem(inputs=body.input, parameters=parameters)
    (outcome,) = all_done(await run(request, parts, entry, Task.TEXT_TO_SPEECH, [item]))
    said = Media.model_validate(outcome.output)
    return Response(said.data, media_type=mime_of(said, format))


async def draw(request: Request, parts: Parts, model: str | None = None) -> Response:
    refuse_query(request)
    body, _ = await read_body(request, asked_at(ImageBody, model))
    if body.stream:
        raise Invalid("'stream' has to be false: images come when they are done.", pointer="/stream")
    name = model or body.model
    entry = found(parts, name) if name else _first(parts, Task.TEXT_TO_IMAGE)
    names = ("negative_prompt", "num_inference_steps", "guidance_scale")
    parameters: Json = {name: value for name in names if (value := getattr(body, name)) is not None}
    parameters |= _size(body.size)
    items = []
    for index in range(body.n or 1):
        seed = {} if body.seed is None else {"seed": (body.seed + index) % 2**63}
        items.append(WorkItem(inputs=body.prompt, parameters={**parameters, **seed}))
    outcomes = all_done(await run(request, parts, entry, Task.TEXT_TO_IMAGE, items))
    made = [Media.model_validate(one.output) for one in outcomes]
    data: list[Any] = [{"b64_json": base64.b64encode(one.data).decode()} for one in made]
    return as_json({"created": int(time.time()), "data": data, "output_format": "png"})


def _size(text: str | None) -> Json:
    if text is None or text == "auto":
        return {}
    size = _SIZE.fullmatch(text)
    width, height = (int(size[1]), int(size[2])) if size else (0, 0)
    if not (8 <= width <= 2_048 and 8 <= height <= 2_048):
        raise Invalid("Has to be `auto`, or width and height from 8 to 2048: `512x512`.", pointer="/size")
    return {"width": width, "height": height}


def _first(parts: Parts, task: Task) -> ModelEntry:
    for entry in parts.inference.entries():
        if entry.spec.task is task:
            return entry
    raise ModelNotFound(f"There is no model for {task.value}.", pointer="/model")
