"""Messages: plain frozen data. One that wants an answer says of which type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, get_args, get_origin

from typing_extensions import dataclass_transform

Answer_co = TypeVar("Answer_co", covariant=True)
Class = TypeVar("Class", bound=type)


class Request(Generic[Answer_co]):
    """Base of messages that want an answer of type `Answer_co`; asking and replying are typed by it.

    The address of the asker is not a field: it travels beside the message, so that a message is what a
    person would write by hand. `Context.reply_to` gives it, to answer later or from another actor.
    """

    __slots__ = ()


@dataclass_transform(frozen_default=True)
def message(cls: Class) -> Class:
    """Makes a message of a class: a frozen dataclass with slots. Pydantic models are messages as they are."""
    return cast("Class", dataclass(frozen=True, slots=True)(cls))


def answer_type(request: type[Any]) -> Any:
    """The `Answer_co` of a subclass of `Request`, for reading an answer that comes over the wire.

    Raises:
        TypeError: the class is no request, or does not say of what.
    """
    for cls in request.__mro__:
        for base in getattr(cls, "__orig_bases__", ()):
            if get_origin(base) is Request:
                return get_args(base)[0]
    raise TypeError(f"{request.__name__} must be a Request[...] of some type to be asked.")


def display(value: object) -> str:
    """A message as logs show it: its name, never its content."""
    return type(value).__name__
