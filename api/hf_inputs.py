"""What Hugging Face's clients send, as items of a task.

Source of the shapes: huggingface_hub 2.4, `inference/_providers/hf_inference.py` and
`inference/_generated/types`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from pydantic import Field, TypeAdapter, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from api.body import check_coding, parse_body
from api.errors import InvalidInput, MalformedJson, UnsupportedMediaType, invalid_fields
from api.media import MediaLimit
from api.schemas import Body
from api.task_json import AnyJson
from goatherd.contracts.inference_tasks import SHAPES, GenerateParameters, Media, Task
from goatherd.contracts.inference_work import WorkItem
from goatherd.contracts.model import Json
from goatherd.errors import Invalid, WrongTask

MOST_INPUTS = 2_048
"""Of one request."""

_MEDIA_TYPE = re.compile(r"(image|audio|video)/.+|application/octet-stream")
_OBJECT: TypeAdapter[Json] = TypeAdapter(dict[str, AnyJson])
_PARTS = ("inputs", "file", "image", "audio")
_FULL_TEXT = "return_full_text"
_NO_DEFAULTS: Json = {}


class CallOptions(Body):
    """Of the older API, for its clients: a call always waits for the model, and nothing is cached."""

    use_cache: bool | None = None
    use_gpu: bool | None = None
    wait_for_model: bool | None = None


class ModelCall(Body):
    """What a model is asked. Inputs and parameters are those of the task; a list of inputs gives a list of
    results. Images and sounds are base64."""

    inputs: AnyJson = Field(description="As the task has them: a text, an object, base64, or a list of such.")
    parameters: dict[str, AnyJson] | None = Field(None, description="Of the task. Unknown ones are refused.")
    stream: bool | None = Field(None, description="Of generated text: as Server-Sent Events.")
    options: CallOptions | None = None
    normalize: bool | None = Field(None, description="Of feature extraction, as are those below.")
    prompt_name: str | None = None
    truncate: bool | None = None
    truncation_direction: Literal["left", "right"] | None = None
    pooling: str | None = None
    dimensions: int | None = Field(None, ge=1, le=2**31)
    encoding_format: Literal["float", "base64"] | None = None


_AT_ROOT = (
    "normalize",
    "prompt_name",
    "truncate",
    "truncation_direction",
    "pooling",
    "dimensions",
    "encoding_format",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as items. `many`: a list was given, and is the answer."""

    items: list[WorkItem]
    many: bool
    parameters: Json
    stream: bool = False
    base64: bool = False
    """Whether vectors are to be base64."""


async def read_call(request: Request, limit: MediaLimit, *, media: bool) -> ModelCall | tuple[Media, Json]:
    """The body: a call in JSON, or an image or sound (as input and parameters) if the task has such.

    Raises `InvalidInput`, `MalformedJson`, `UnsupportedMediaType`, `BodyTooLarge`, `Invalid`.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    check_coding(request.headers.get("content-encoding"))
    if kind == "multipart/form-data":
        if not media:
            raise UnsupportedMediaType("The model takes no files; send JSON with 'inputs'.")
        return await _form(request, limit)
    raw = await request.body()
    # No image or sound begins so, and `curl -d` declares what it sends as a form.
    if kind == "application/json" or (not _MEDIA_TYPE.fullmatch(kind) and raw.lstrip()[:1] == b"{"):
        return parse_body(raw, ModelCall)
    if media:
        return limit.from_raw(raw, kind if _MEDIA_TYPE.fullmatch(kind) else None), {}
    if not raw:
        return parse_body(b"{}", ModelCall)
    if kind in ("", "application/x-www-form-urlencoded"):
        raise MalformedJson("The body has to be a JSON object with 'inputs'.")
    raise UnsupportedMediaType(
        f"The body has to be JSON, sent with 'Content-Type: application/json'; the header says {kind!r}."
    )


async def _form(request: Request, limit: MediaLimit) -> tuple[Media, Json]:
    async with request.form(max_files=1, max_fields=8) as form:
        unknown = [name for name in form if name not in (*_PARTS, "parameters")]
        if unknown:
            raise InvalidInput(
                [{"pointer": f"/{name}", "detail": "Unknown; check the spelling."} for name in unknown]
            )
        file = next((form[name] for name in _PARTS if name in form), None)
        given = form.get("parameters", "{}")
        if not isinstance(file, UploadFile) or not isinstance(given, str):
            raise Invalid(
                "The form needs a file `inputs`, and may have a text `parameters`.", pointer="/inputs"
            )
        limit.check(file.size or 0)
        media = limit.from_raw(await file.read(), file.content_type, pointer="/inputs")
    try:
        parameters = _OBJECT.validate_json(given)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        if errors[0]["type"] == "value_error":
            raise invalid_fields(errors, under="/parameters") from None
        raise Invalid("Has to be a JSON object.", pointer="/parameters") from None
    return media, parameters


def task_of(registered: Task, call: ModelCall | tuple[Media, Json]) -> Task:
    """What is asked of a model at its own address: a model for conversations goes on from a mere text, and
    one for vectors compares sentences if it is given such."""
    if registered is Task.CONVERSATIONAL and isinstance(call, ModelCall):
        first = call.inputs[0] if isinstance(call.inputs, list) and call.inputs else call.inputs
        if not isinstance(first, dict):
            return Task.TEXT_GENERATION
    if registered is Task.FEATURE_EXTRACTION and isinstance(call, ModelCall):
        first = call.inputs[0] if isinstance(call.inputs, list) and call.inputs else call.inputs
        if isinstance(first, dict) and "source_sentence" in first:
            return Task.SENTENCE_SIMILARITY
    return registered


def asked(
    task: Task, call: ModelCall | tuple[Media, Json], limit: MediaLimit, defaults: Json = _NO_DEFAULTS
) -> Asked:
    """The call as items of the task. `defaults` are those that the model has of parameters: the worker knows
    them, but for what is done here. Raises `InvalidInput`, `Invalid`, `WrongTask`, `BodyTooLarge`."""
    if not isinstance(call, ModelCall):
        media, given = call
        parameters = _parameters(task, given)
        return Asked([WorkItem(inputs=media, parameters=parameters)], False, parameters)
    given = {name: value for name, value in (call.parameters or {}).items() if value is not None}
    if task is Task.FEATURE_EXTRACTION:
        given |= {name: value for name in _AT_ROOT if (value := getattr(call, name)) is not None}
    else:
        wrong = [name for name in _AT_ROOT if getattr(call, name) is not None]
        if wrong:
            detail = f"Not of {task.value}."
            raise InvalidInput([{"pointer": f"/{name}", "detail": detail} for name in wrong])
    as_base64 = task is Task.FEATURE_EXTRACTION and given.pop("encoding_format", "float") == "base64"
    parameters = _parameters(task, given)
    many = isinstance(call.inputs, list)
    inputs = call.inputs if many else [call.inputs]
    if not 0 < len(inputs) <= MOST_INPUTS:
        raise Invalid(f"Has to have 1 to {MOST_INPUTS} inputs.", pointer="/inputs")
    if call.stream and task is not Task.TEXT_GENERATION:
        raise WrongTask(f"Only generated text can be streamed, not {task.value}.", pointer="/stream")
    if call.stream and many:
        raise Invalid("Only one text can be streamed.", pointer="/inputs")
    sent = parameters
    if task is Task.TEXT_GENERATION:
        # The prompt is put before the text here; what is streamed, is so by tokens.
        sent = {name: value for name, value in parameters.items() if name != _FULL_TEXT}
        if _FULL_TEXT in defaults:
            parameters = {_FULL_TEXT: defaults[_FULL_TEXT], **parameters}
        if call.stream:
            sent["details"] = True
    items = [
        WorkItem(inputs=_input(task, one, f"/inputs/{index}" if many else "/inputs", limit), parameters=sent)
        for index, one in enumerate(inputs)
    ]
    return Asked(items, many, parameters, bool(call.stream), as_base64)


def _input(task: Task, value: Any, pointer: str, limit: MediaLimit) -> Any:
    shape = SHAPES[task]
    if shape.media:
        return limit.from_text(value, pointer=pointer)
    try:
        checked = shape.read_inputs.validate_json(orjson.dumps(value), strict=True)
    except ValidationError as error:
        raise invalid_fields(error.errors(include_url=False, include_input=False), under=pointer) from None
    return shape.read_inputs.dump_python(checked, mode="json")


def _parameters(task: Task, given: Json) -> Json:
    """Checked; only what was given, so that the model's own defaults stand."""
    given = dict(given)
    if task is Task.TABLE_QUESTION_ANSWERING:
        # The client sends its own argument along.
        given.pop("model", None)
    if task is Task.TEXT_TO_SPEECH:
        _gather(given)
    try:
        SHAPES[task].parameters.model_validate_json(orjson.dumps(given), strict=True)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        raise invalid_fields(errors, under="/parameters") from None
    return given


def _gather(given: Json) -> None:
    """How the sequence is made: the client has these flat, the task in an object of their own."""
    names = [name for name in given if name in GenerateParameters.model_fields and name != "seed"]
    if names:
        flat = {name: given.pop(name) for name in names}
        given["generation_parameters"] = {**flat, **(given.get("generation_parameters") or {})}
