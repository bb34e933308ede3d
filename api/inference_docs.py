"""What the document says of the routes of inference: bodies with examples, answers, errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from api import openapi
from api.hf_inputs import ModelCall
from api.inference_calls import TIMEOUT
from api.inference_schemas import (
    ChatCompletion,
    Embeddings,
    MadeImages,
    TextCompletion,
)
from api.openai_schemas import ChatBody, CompletionBody, EmbeddingBody, ImageBody, SpeechBody
from api.openai_transcripts import FORMATS
from api.schemas import Schema
from goatherd.contracts.inference_tasks import MODEL_TASKS

TASKS = tuple(task.value for task in MODEL_TASKS)

READ_ERRORS = (403, 404, 422, 500)
CALL_ERRORS = (400, 403, 404, 409, 413, 415, 422, 429, 500, 503, 504)

_TIMEOUT: Schema = {
    "name": TIMEOUT,
    "in": "header",
    "required": False,
    "description": "Seconds that you give it: 504 after that. Default: the model's own limit.",
    "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 3600},
    "example": 60,
}
_BYTES: Schema = {"schema": {"type": "string", "format": "binary"}}
_DIALOGUE = [{"role": "user", "content": "What do goats eat?"}]


def _asked(body: Schema) -> Schema:
    return {"parameters": [_TIMEOUT], **body}


def _json(model: type[BaseModel], examples: Mapping[str, Any]) -> Schema:
    return _asked(openapi.body(model, required=True, examples=examples))


def _form(fields: Schema) -> Schema:
    schema: Schema = {
        "type": "object",
        "properties": fields,
        "required": ["file", "model"],
        "additionalProperties": False,
    }
    return _asked({"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}})


def _streamed(model: type[BaseModel], data: str) -> openapi.Responses:
    events = {
        "schema": {
            "description": "With `stream`: Server-Sent Events. `data: [DONE]` is the last; an error that "
            "comes late is one with `error`.",
        },
        "example": f"data: {data}\n\ndata: [DONE]\n\n",
    }
    return {200: {"model": model, "content": {"text/event-stream": events}}}


_CALL = _json(
    ModelCall,
    {
        "a text": {"inputs": "Goats are wonderful."},
        "several, with parameters": {
            "inputs": ["Goats are wonderful.", "It rains."],
            "parameters": {"top_k": 2},
        },
        "a stream": {"inputs": "Goats can", "parameters": {"max_new_tokens": 20}, "stream": True},
        "tensors: base64 of the numbers, little-endian, row by row": {
            "inputs": {"tensors": {"x": {"dtype": "float32", "shape": [1, 2], "data": "AACAPwAAAEA="}}}
        },
    },
)
_CALL["requestBody"]["content"] |= {"application/octet-stream": _BYTES}
CALL_BODY = _CALL
_RESULT = {"schema": {}, "example": [[{"label": "POSITIVE", "score": 0.99}]]}
CALL_ANSWERS: openapi.Responses = {
    200: {
        "content": {
            "application/json": _RESULT,
            "image/png": _BYTES,
            "audio/wav": _BYTES,
            "text/event-stream": {
                "schema": {"description": "Server-Sent Events, one for each token."},
                "example": 'data:{"index":1,"token":{"id":1,"text":" climb","logprob":-0.5,"special":false},'
                '"generated_text":null,"details":null}\n\n',
            },
        }
    },
    **openapi.errors(*CALL_ERRORS),
}

_CHAT_EXAMPLES = {
    "a question": {"model": "smollm2-135m-instruct", "messages": _DIALOGUE},
    "a stream": {
        "model": "smollm2-135m-instruct",
        "messages": _DIALOGUE,
        "stream": True,
        "stream_options": {"include_usage": True},
    },
}
CHAT_BODY = _json(ChatBody, _CHAT_EXAMPLES)
_CHAT = _streamed(
    ChatCompletion,
    '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny","choices":[{"index":0,'
    '"delta":{"content":"Grass"},"logprobs":null,"finish_reason":null}]}',
)
CHAT_ANSWERS = {**_CHAT, **openapi.errors(*CALL_ERRORS)}
COMPLETION_BODY = _json(
    CompletionBody, {"a text": {"model": "smollm2-135m-instruct", "prompt": "Goats can", "max_tokens": 20}}
)
COMPLETION_ANSWERS = {
    **_streamed(
        TextCompletion,
        '{"id":"cmpl-1","object":"text_completion","created":1,"model":"tiny","choices":[{"index":0,'
        '"text":" climb","logprobs":null,"finish_reason":null}]}',
    ),
    **openapi.errors(*CALL_ERRORS),
}
EMBEDDING_BODY = _json(
    EmbeddingBody,
    {
        "a text": {"model": "all-minilm-l6-v2", "input": "A goat."},
        "several": {"model": "all-minilm-l6-v2", "input": ["A goat.", "A sheep."], "dimensions": 64},
    },
)
EMBEDDING_ANSWERS: openapi.Responses = {200: {"model": Embeddings}, **openapi.errors(*CALL_ERRORS)}
SPEECH_BODY = _json(
    SpeechBody,
    {
        "a text": {
            "model": "piper-lessac",
            "input": "Goats climb.",
            "voice": "alloy",
            "response_format": "wav",
        }
    },
)
SAID: openapi.Responses = {
    200: {
        "content": dict.fromkeys(("audio/mpeg", "audio/ogg", "audio/flac", "audio/wav", "audio/pcm"), _BYTES)
    },
    **openapi.errors(*CALL_ERRORS),
}
IMAGE_BODY = _json(
    ImageBody, {"an image": {"model": "tiny-diffusion", "prompt": "A goat on a rock.", "size": "64x64"}}
)
DRAWN: openapi.Responses = {200: {"model": MadeImages}, **openapi.errors(*CALL_ERRORS)}

_TEXT: Schema = {"type": "string"}
_HEARING: Schema = {
    "file": {"type": "string", "format": "binary", "description": "The sound."},
    "model": {"type": "string", "minLength": 1, "examples": ["whisper-tiny"]},
    "prompt": _TEXT,
    "response_format": {"type": "string", "enum": list(FORMATS), "default": "json"},
    "temperature": {"type": "number", "minimum": 0, "maximum": 1},
}
TRANSLATION_FORM = _form(_HEARING)
TRANSCRIPTION_FORM = _form(
    {
        **_HEARING,
        "language": _TEXT,
        "timestamp_granularities[]": {
            "type": "array",
            "items": {"type": "string", "enum": ["word", "segment"]},
            "description": "Of `verbose_json`. Default: segment.",
        },
    }
)
HEARD: openapi.Responses = {
    200: {
        "content": {
            "application/json": {"schema": {"type": "object"}, "example": {"text": "Goats climb."}},
            "text/plain": {"schema": _TEXT, "example": "Goats climb.\n"},
            "application/x-subrip": {"schema": _TEXT},
            "text/vtt": {"schema": _TEXT},
        }
    },
    **openapi.errors(*CALL_ERRORS),
}
