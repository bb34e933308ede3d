"""Items of an order as their task's types, and results as they cross: JSON in, JSON out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from activities.inference_ports import Item
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import SHAPES, Media, Parameters, Task
from goatherd.contracts.inference_work import Problem, WorkItem
from goatherd.contracts.model import Json
from goatherd.errors import GoatherdError, Invalid, TooManyRequests, Unavailable

_BINARY = {Task.TENSORS}
"""Besides media: tasks whose inputs hold bytes, in base64."""


class ItemReader:
    """Reads the items of one order. Items mostly have the same parameters: these are read once."""

    def __init__(self, task: Task, spec: ModelSpec) -> None:
        self._shape = SHAPES[task]
        self._binary = self._shape.media or task in _BINARY
        # What another task of the model has as a default says nothing about this one.
        known = self._shape.parameters.model_fields
        own = task == spec.task
        self._defaults: Json = {
            name: value for name, value in spec.parameters.items() if own or name in known
        }
        self._read: dict[str, Parameters] = {}

    def read(self, item: WorkItem) -> Item:
        """Raises `Invalid`; its pointer begins with `/inputs` or `/parameters`."""
        return Item(self._inputs(item.inputs), self._parameters(item.parameters))

    def _inputs(self, inputs: Any) -> Any:
        adapter = self._shape.read_inputs
        try:
            if isinstance(inputs, Media):
                return inputs
            if self._binary:  # only JSON knows base64
                return adapter.validate_json(json.dumps(inputs))
            return adapter.validate_python(inputs)
        except ValidationError as error:
            raise _invalid(error, "/inputs") from error

    def _parameters(self, given: Mapping[str, Any]) -> Parameters:
        key = json.dumps(given, sort_keys=True, default=repr)
        if key not in self._read:
            try:
                self._read[key] = self._shape.parameters.model_validate({**self._defaults, **given})
            except ValidationError as error:
                raise _invalid(error, "/parameters") from error
        return self._read[key]


def problem(error: GoatherdError) -> Problem:
    """An error of one item, as it crosses."""
    return Problem(
        code=error.code,
        message=error.message,
        pointer=error.pointer,
        retry_after_s=error.retry_after_s if isinstance(error, Unavailable | TooManyRequests) else None,
    )


def _invalid(error: ValidationError, root: str) -> Invalid:
    first = error.errors(include_url=False, include_input=False)[0]
    # A union's own steps are in its place, too: only keys and indices are in the input.
    place = "".join(f"/{_escaped(step)}" for step in first["loc"])
    return Invalid(f"{first['msg'][:1].upper()}{first['msg'][1:]}.", pointer=root + place)


def _escaped(step: int | str) -> str:
    return str(step).replace("~", "~0").replace("/", "~1")
