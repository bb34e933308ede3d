"""JSON of any shape that people send along: checked at the door, written, and told apart.

What nobody can keep is refused: numbers of more than 64 bits, and nesting that the store does not take.
"""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator

MOST_DEPTH = 64
_LEAST_INT, _MOST_INT = -(2**63), 2**63 - 1


def dumps(value: Any) -> bytes:
    return orjson.dumps(value)


def digest(value: Any) -> str:
    """The same for values that are equal as JSON, however they were written."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _check(value: Any) -> Any:
    if isinstance(value, dict | list):
        _check_in(value)
    else:
        _check_one(value)
    return value


def _check_one(value: Any) -> None:
    if isinstance(value, int):
        if not _LEAST_INT <= value <= _MOST_INT:
            raise ValueError("a number has more than 64 bits: send it as a text")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is too large: send it as a text")


def _check_in(value: dict[str, Any] | list[Any]) -> None:
    level: list[dict[str, Any] | list[Any]] = [value]
    for _ in range(MOST_DEPTH):
        below: list[dict[str, Any] | list[Any]] = []
        for node in level:
            for child in node.values() if isinstance(node, dict) else node:
                if isinstance(child, dict | list):
                    below.append(child)
                elif isinstance(child, int | float):
                    _check_one(child)
        if not below:
            return
        level = below
    raise ValueError(f"it is nested more than {MOST_DEPTH} deep")


AnyJson = Annotated[Any, AfterValidator(_check)]
"""Any JSON value that can be kept as it is."""


def at_most(size: int, what: str) -> AfterValidator:
    """A bound on how many bytes a value has as JSON."""

    def check(value: Any) -> Any:
        if isinstance(value, str | dict | list) and len(orjson.dumps(value)) > size:
            raise ValueError(f"{what} has at most {size} bytes as JSON")
        return value

    return AfterValidator(check)
