"""What the tests of real models have in common: what they ask, and how numbers are compared."""

from __future__ import annotations

import base64
import re
from typing import Any

import numpy as np
import pytest

QUIET = (
    # Of Hugging Face's asynchronous client, which sends files so, and of diffusers.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers"),
)
ODD = [
    "   x",
    "🐐 a family 👨‍👩‍👧‍👦 in 🇨🇭!",
    "الماعز تأكل العشب",
    "你好,世界。",
    "naïve\u0000œuvre",
    "goat " * 5_000,
]
"""Texts of other alphabets, and a long one."""
SENTENCE = "The quick brown fox jumps over the lazy dog."


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def close(got: Any, wanted: Any) -> bool:
    return bool(np.allclose(got, wanted, atol=1e-4))


def tensors_call(**arrays: Any) -> Any:
    return {
        "inputs": {
            "tensors": {
                name: {
                    "dtype": array.dtype.name,
                    "shape": list(array.shape),
                    "data": base64.b64encode(array.tobytes()).decode(),
                }
                for name, array in arrays.items()
            }
        }
    }


def array_of(tensor: Any) -> Any:
    return np.frombuffer(base64.b64decode(tensor["data"]), tensor["dtype"]).reshape(tensor["shape"])
