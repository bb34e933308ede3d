"""The file of models (`GOATHERD_MODELS_FILE`): JSON or TOML, each public name with its spec."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from goatherd.contracts.inference import ModelName, ModelSpec

_NAME: TypeAdapter[str] = TypeAdapter(ModelName)


def read_models(path: Path) -> dict[str, ModelSpec]:
    """The models of a file, by name.

    Raises:
        ValueError: it can't be read, or an entry is not valid: the message says which one, and where.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8")
        entries: Any = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror})") from error
    except ValueError as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise ValueError(f"{path} is no {kind} ({error})") from error
    if not isinstance(entries, dict):
        raise ValueError(f"{path} has to be an object: each model's name with its spec")
    return {name: _entry(path, name, entry) for name, entry in entries.items()}


def _entry(path: Path, name: str, entry: Any) -> ModelSpec:
    try:
        _NAME.validate_python(name)
    except ValidationError as error:
        raise ValueError(f"in {path}, {name!r} is no name for a model") from error
    try:
        return ModelSpec.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join([name, *map(str, first["loc"])])
        raise ValueError(f"in {path}, at {at}: {first['msg'][:1].lower()}{first['msg'][1:]}") from error
