"""Messages: plain frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, cast

from typing_extensions import dataclass_transform

from goatherd.contracts.request import Request, answer_type

Class = TypeVar("Class", bound=type)


@dataclass_transform(frozen_default=True)
def message(cls: Class) -> Class:
    """Makes a message of a class: a frozen dataclass with slots. Pydantic models are messages as they are."""
    return cast("Class", dataclass(frozen=True, slots=True)(cls))


def display(value: object) -> str:
    """A message as logs show it: its name, never its content."""
    return type(value).__name__


__all__ = ["Request", "answer_type", "display", "message"]
