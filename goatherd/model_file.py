"""The file of models (`GOATHERD_MODELS_FILE`): JSON or TOML, each public name with its spec."""

from __future__ import annotations

import difflib
import json
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from goatherd.contracts.inference import Generation, Limits, ModelName, ModelSpec, ModelWish
from goatherd.contracts.providers import check_task, options_of
from goatherd.errors import Invalid

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
        check_fields(name, entry)
        spec = ModelSpec.model_validate(entry)
        check_options(name, spec)
        return spec
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join([name, *map(str, first["loc"])])
        raise ValueError(f"in {path}, at {at}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
    except ValueError as error:
        raise ValueError(f"in {path}, {error}") from None


_INSIDE: dict[str, type[BaseModel]] = {"generation": Generation, "limits": Limits}


def check_fields(name: str, entry: Any) -> None:
    """Raises ValueError if an entry that somebody wrote has a field that specs don't have: contracts ignore
    those, but a person would not know that it has no effect."""
    if not isinstance(entry, dict):
        return
    _check_known(name, ModelWish, {field: value for field, value in entry.items() if not _ours(field, value)})
    for field, kind in _INSIDE.items():
        if isinstance(entry.get(field), dict):
            _check_known(f"{name}.{field}", kind, entry[field])


def _ours(field: str, value: object) -> bool:
    """What processes that are started with our settings are given besides."""
    return field == "bounds" and value is None


def _check_known(at: str, kind: type[BaseModel], entry: dict[str, Any]) -> None:
    known = list(kind.model_fields)
    for field in entry:
        if field not in known:
            near = difflib.get_close_matches(field, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"at {at}: there is no field {field!r}; {hint}")


def check_options(name: str, spec: ModelSpec) -> None:
    """Raises ValueError if an option of the provider's is unknown or wrong, or the task is none of its tasks.
    What was given is not quoted: it may be a secret in place of its reference."""
    try:
        check_task(spec)
        options_of(spec)
    except Invalid as error:
        raise ValueError(f"at {name}: {error.message}") from None
