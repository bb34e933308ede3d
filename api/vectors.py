"""Vectors as lists of numbers or base64, without any library for numbers."""

from __future__ import annotations

import base64
import sys
from array import array
from typing import Any

from goatherd.contracts.inference_tasks import Vectors


def numbers(vectors: Vectors) -> list[Any]:
    """Nested as the shape says."""
    flat = array("f")
    flat.frombytes(vectors.data)
    if sys.byteorder == "big":
        flat.byteswap()
    nested: list[Any] = flat.tolist()
    for width in reversed(vectors.shape[1:]):
        nested = [nested[start : start + width] for start in range(0, len(nested), width)] if width else []
    return nested


def base64_text(vectors: Vectors) -> str:
    """Little-endian float32, as they lie in memory."""
    return base64.b64encode(vectors.data).decode()
