"""Vectors that people bring, and those that models make of texts: little-endian float32."""

from __future__ import annotations

import binascii
import math
import struct
from array import array
from base64 import b64decode
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from api.inference_port import Inference
from api.outcomes import error_of
from goatherd.contracts.inference import fingerprint
from goatherd.contracts.inference_tasks import Task, Vectors
from goatherd.contracts.inference_work import WorkItem
from goatherd.contracts.retrieval import ANOTHER_MODEL, MOST_DIMENSIONS, IndexSpec
from goatherd.errors import Conflict, Invalid

_MOST_NUMBER = 1e15
"""Of a vector that is not made of length 1: products of greater ones leave float32."""
_BASE64 = "is neither a list of numbers nor base64 of little-endian float32"


def _packed(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        if len(value) > 4 * (MOST_DIMENSIONS * 4 // 3 + 2):
            raise ValueError(f"has more than {MOST_DIMENSIONS} numbers")
        try:
            data = b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(_BASE64) from None
        if len(data) % 4 or not data:
            raise ValueError(_BASE64)
        return data
    if not isinstance(value, list) or not {type(one) for one in value} <= {int, float} or not value:
        raise ValueError(_BASE64)
    if len(value) > MOST_DIMENSIONS:
        raise ValueError(f"has more than {MOST_DIMENSIONS} numbers")
    try:
        return struct.pack(f"<{len(value)}f", *value)
    except (OverflowError, struct.error):
        raise ValueError("has a number that no float32 holds") from None


VectorText = Annotated[
    bytes,
    PlainValidator(_packed),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "number"}, "minItems": 1},
                {"type": "string", "contentEncoding": "base64", "minLength": 8},
            ]
        }
    ),
]
"""A list of numbers, or base64 of little-endian float32."""


def numbers_of(vector: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))


def check_vector(vector: bytes, spec: IndexSpec, *, pointer: str = "/vector") -> None:
    """Raises `Invalid` unless the index can keep it, or look for it."""
    count = len(vector) // 4
    if count != spec.dimensions:
        raise Invalid(f"Has {count} numbers; the index has {spec.dimensions} dimensions.", pointer=pointer)
    numbers = array("d", numbers_of(vector))
    if not all(map(math.isfinite, numbers)):
        raise Invalid("Has a number that is not finite.", pointer=pointer)
    if spec.metric == "cosine":
        if not any(numbers):
            raise Invalid("Has only zeros: such a vector has no direction, so no cosine.", pointer=pointer)
    elif max(map(abs, numbers)) > _MOST_NUMBER:
        raise Invalid(f"Has a number beyond {_MOST_NUMBER:g}: send smaller ones.", pointer=pointer)


async def embed(
    inference: Inference,
    model: str,
    text: str,
    *,
    caller: str,
    timeout_s: float | None,
    expected: str | None = None,
) -> bytes:
    """The vector that the model makes of the text. `expected`: the model's `fingerprint`.

    Raises what `Inference.run` raises; `Invalid` if the model gives no single vector; `Conflict`
    (`another-model`) if it is not the one that is expected.
    """
    entry = inference.entry(model)
    if expected not in (None, fingerprint(entry.spec)):
        raise Conflict(ANOTHER_MODEL.format(model), code="another-model")
    (outcome,) = await inference.run(
        entry, Task.FEATURE_EXTRACTION, [WorkItem(inputs=text)], caller=caller, timeout_s=timeout_s
    )
    if outcome.problem is not None:
        raise error_of(outcome.problem, at="/text")
    vectors = Vectors.model_validate(outcome.output)
    if len(vectors.shape) != 1:
        raise Invalid(
            f"{model!r} gives a vector for each token, not one for a text: register it without "
            "`pooling: none`.",
            pointer="/model",
        )
    return vectors.data
