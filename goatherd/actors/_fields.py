"""Types of fields for state and messages that hold what pydantic can't write alone: other behaviors,
messages of any kind, functions. Written as in a snapshot, and read with the refs of the system that reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from goatherd.actors._snapshot import _dump_rule, _read_rule
from goatherd.actors._supervision import Supervised
from goatherd.actors._wire import (
    Json,
    read,
    read_behavior,
    read_name,
    write,
    write_behavior,
    written_name,
)


class _Written:
    """Has a field written and read by two functions, whatever its type says."""

    __slots__ = ("_read", "_write")

    def __init__(self, write: Callable[[Any], Json], read: Callable[[Json], Any]) -> None:
        self._write = write
        self._read = read

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._read,
            serialization=core_schema.plain_serializer_function_ser_schema(self._write, when_used="json"),
        )


def _write_supervised(one: Supervised[Any]) -> Json:
    return {"behavior": write_behavior(one.behavior), "rules": [_dump_rule(rule) for rule in one.rules]}


def _read_supervised(written: Json) -> Supervised[Any]:
    return Supervised(
        read_behavior(written["behavior"]), tuple(_read_rule(rule) for rule in written["rules"])
    )


AnySupervised = Annotated[Supervised[Any], _Written(_write_supervised, _read_supervised)]
"""A behavior that is still to be spawned, with its rules."""
as_message = _Written(write, read)
"""In `Annotated`: a message, with its type."""
AnyFunction = Annotated[Callable[..., Any], _Written(written_name, read_name)]
"""A function of a module, or a method of a class, by name."""
