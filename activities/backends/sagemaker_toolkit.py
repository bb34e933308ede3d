"""What Hugging Face's inference toolkit takes and gives for each task: JSON, and files as they are.

Source: sagemaker-huggingface-inference-toolkit: `{"inputs": …, "parameters": …}` to the task's pipeline, and
what that gives back, sometimes in one list more.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from pydantic import ValidationError

from activities.backends.media.kinds import seen
from activities.backends.sagemaker_endpoint import Body
from activities.backends.vectors import Numbers, packed, shaped
from activities.inference_ports import Item, Made
from goatherd.contracts.inference_tasks import (
    SHAPES,
    FeatureParameters,
    Media,
    Task,
    TextToImageParameters,
    TextToSpeechParameters,
)
from goatherd.errors import GoatherdError, Invalid

JSON = "application/json"
_SOUNDS = {"wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg", "opus": "audio/ogg"}
_POOLED_HERE = frozenset(("normalize", "pooling", "dimensions", "truncate", "truncation_direction"))
_WRAPPED = (Task.SUMMARIZATION, Task.TRANSLATION, Task.TEXT2TEXT_GENERATION, Task.TABLE_QUESTION_ANSWERING)


def request_of(task: Task, item: Item, *, content_type: str | None) -> tuple[Body, str]:
    """The body, and what is accepted for an answer.

    A file goes as it is; with parameters, as base64 in JSON: so the toolkit takes both."""
    parameters = item.parameters.model_dump(mode="json", exclude_unset=True)
    if isinstance(item.inputs, Media) and not parameters:
        return Body(item.inputs.data, content_type or _mime_of(item.inputs)), JSON
    inputs: Any = item.inputs
    if isinstance(inputs, Media):
        inputs = base64.b64encode(inputs.data).decode("ascii")
    else:
        inputs = SHAPES[task].read_inputs.dump_python(inputs, mode="json")
    if task is Task.FEATURE_EXTRACTION:
        parameters = {name: value for name, value in parameters.items() if name not in _POOLED_HERE}
    body: dict[str, Any] = {"inputs": inputs}
    if parameters:
        body["parameters"] = parameters
    return Body(json.dumps(body).encode(), JSON), _accepted(task, item)


def _accepted(task: Task, item: Item) -> str:
    if isinstance(item.parameters, TextToImageParameters):
        return "image/png"
    if isinstance(item.parameters, TextToSpeechParameters):
        return _SOUNDS.get(item.parameters.format, "audio/wav")
    return JSON


def _mime_of(media: Media) -> str:
    """What the sender says, or what the file looks like."""
    if media.mime and "/" in media.mime:
        return media.mime
    look = seen(media.data)
    kinds = {"PNG": "image/png", "JPEG": "image/jpeg", "WebP": "image/webp", "WAV": "audio/wav"}
    kinds |= {"FLAC": "audio/flac", "MP3": "audio/mpeg", "Ogg": "audio/ogg"}
    return next((mime for name, mime in kinds.items() if f" {name} " in look), "application/octet-stream")


def made_of(task: Task, item: Item, answer: Body) -> Made:
    """The task's output. Raises GoatherdError if the answer is none."""
    shape = SHAPES[task]
    if shape.output is Media:
        return Made(_media(answer))
    try:
        given = json.loads(answer.data)
    except ValueError:
        raise GoatherdError(f"the endpoint answered what is no JSON: {seen(answer.data)}") from None
    if isinstance(given, dict) and "error" in given:
        raise Invalid(f"the endpoint answered: {str(given['error'])[:500]}")
    try:
        if task is Task.FEATURE_EXTRACTION:
            assert isinstance(item.parameters, FeatureParameters)
            return Made(_vectors(given, item.parameters))
        return Made(shape.read_output.validate_python(_plain(task, given)))
    except (ValidationError, ValueError, TypeError, KeyError, AttributeError):
        raise GoatherdError(
            f"the endpoint's answer is none of {task}: {answer.data[:200].decode('utf-8', 'replace')!r}"
        ) from None


def _plain(task: Task, given: Any) -> Any:
    """Without the list that a pipeline puts around the result of one input."""
    if task is Task.ZERO_SHOT_CLASSIFICATION and isinstance(given, dict) and "labels" in given:
        pairs = zip(given["labels"], given["scores"], strict=True)
        return [{"label": label, "score": score} for label, score in pairs]
    if task is Task.QUESTION_ANSWERING and isinstance(given, dict):
        return [given]
    if task in _WRAPPED and isinstance(given, list):
        return given[0]
    if task is Task.SENTENCE_SIMILARITY and isinstance(given, dict):
        return given["similarities"]
    nested = isinstance(given, list) and len(given) == 1 and isinstance(given[0], list)
    if nested and task is not Task.FILL_MASK:
        return given[0]
    return given


def _vectors(given: Any, wish: FeatureParameters) -> Any:
    if isinstance(given, dict):
        given = given.get("vectors", given.get("embeddings", given.get("embedding")))
    numbers = np.asarray(given, dtype=np.float32)
    while numbers.ndim > 2 and numbers.shape[0] == 1:
        numbers = numbers[0]
    if numbers.ndim not in (1, 2) or not numbers.size:
        raise ValueError("no vectors")
    if numbers.ndim == 2:
        return packed(shaped(_pooled(numbers, wish.pooling or "mean"), wish), len(numbers))
    if wish.pooling is not None:
        raise Invalid("the endpoint pools by itself", pointer="/parameters/pooling")
    return packed(shaped(numbers, wish))


def _pooled(tokens: Numbers, pooling: str) -> Numbers:
    match pooling:
        case "cls":
            return np.asarray(tokens[0])
        case "last":
            return np.asarray(tokens[-1])
        case "max":
            return np.asarray(tokens.max(axis=0))
        case "mean":
            return np.asarray(tokens.mean(axis=0), dtype=np.float32)
        case _:
            return tokens


def _media(answer: Body) -> Media:
    """A file, or JSON with one as base64: by whatever name."""
    if not answer.content_type.startswith(JSON):
        return Media(data=answer.data, mime=answer.content_type.partition(";")[0] or None)
    try:
        given = json.loads(answer.data)
        given = given[0] if isinstance(given, list) else given
        if isinstance(given, dict):
            given = next(value for value in given.values() if isinstance(value, str))
        data = base64.b64decode(given, validate=True)
    except (ValueError, TypeError, StopIteration, IndexError):
        raise GoatherdError("the endpoint's answer has no file in it") from None
    return Media(data=data)
