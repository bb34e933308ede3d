"""Messages, behaviors and functions as JSON, and back: for continue-as-new, and between actors."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, PydanticUserError, TypeAdapter
from pydantic_core import PydanticSerializationError

from goatherd.actors._behavior import Behavior, class_of, name_of, said
from goatherd.actors._errors import ActorFailed, NotDurable
from goatherd.errors import GoatherdError, from_code

Json = Any
"""What `json.dumps` takes."""


def adapter(kind: Any) -> TypeAdapter[Any]:
    """Made once a type: that takes longer than anything it is used for."""
    made = _adapters.get(kind)
    if made is None:
        made = _adapters[kind] = TypeAdapter(kind)
    return made


_adapters: dict[Any, TypeAdapter[Any]] = {}


# -- classes and functions, by name


def written_name(thing: Callable[..., Any]) -> str:
    """`module:qualname` of a class or function of a module.

    Raises:
        NotDurable: it is a lambda, or lives inside of a function.
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not module or not name or "<" in name:
        raise NotDurable(f"{thing!r} can't be written down: use a class, or a function of a module.")
    return f"{module}:{name}"


@cache
def read_name(written: str) -> Any:
    """The class or function of a written name.

    Raises:
        NotDurable: there is none any more.
    """
    module, _, name = written.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise NotDurable(f"There is no {written!r} any more, which something stored refers to.") from error
    return found


# -- messages


def write(message: Any) -> Json:
    """Any message, with its type."""
    kind = type(message)
    if kind in _PLAIN:
        return {"value": message}
    return {"type": written_name(kind), "value": _json(message)}


def _json(value: Any) -> Json:
    try:
        return adapter(type(value)).dump_python(value, mode="json")
    except (PydanticSerializationError, PydanticUserError) as error:
        raise NotDurable(f"A {type(value).__name__} can't be written down: {error}.") from error


def read(written: Json) -> Any:
    kind = written.get("type")
    if kind is None:
        return written["value"]
    return adapter(read_name(kind)).validate_python(written["value"])


_PLAIN = frozenset({str, int, float, bool, type(None)})


# -- errors


def write_error(error: BaseException) -> Json:
    """An error as another run is told of it: of ours with its code, of others the kind."""
    if isinstance(error, GoatherdError):
        written: Json = {"code": error.code, "message": error.message}
        return written if error.pointer is None else {**written, "pointer": error.pointer}
    return {"code": ActorFailed.code, "message": f"{type(error).__name__}: {error}"}


def read_error(written: Json) -> GoatherdError:
    error = from_code(written["code"], written["message"])
    error.pointer = written.get("pointer")
    return error


# -- behaviors


def write_behavior(behavior: Behavior[Any]) -> Json:
    """A registered behavior with its state.

    Raises:
        NotDurable: it is a function's, or not registered.
    """
    name = name_of(behavior)
    if name is None:
        raise NotDurable(
            f"{type(behavior).__name__} can't be written down: only a class with @behavior(name) lives on."
        )
    if said(name) is behavior:
        return {"name": name}
    return {"name": name, "state": _json(behavior)}


def read_behavior(written: Json) -> Behavior[Any]:
    name = written["name"]
    constant = said(name)
    if constant is not None:
        return constant
    cls = class_of(name)
    if cls is None:
        raise NotDurable(f"There is no behavior {name!r} any more, which a stored actor has.")
    read_state: Behavior[Any] = adapter(cls).validate_python(written["state"])
    return read_state


Written = Annotated[Any, PlainSerializer(write, when_used="json"), PlainValidator(read)]
"""The type of a field that holds any message: on the wire, it is there with its type."""
