"""What wants an answer, and of which type: the base of requests to actors."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, get_args, get_origin

# Invariant: else a wrong answer would only make the checker think of a wider type.
Answer = TypeVar("Answer")


class Request(Generic[Answer]):
    """Base of messages that want an answer of type `Answer`; asking and replying are typed by it.

    The address of the asker is not a field: it travels beside the message, so that a message is what a
    person would write by hand. `Context.reply_to` gives it, to answer later or from another actor.
    """

    __slots__ = ()


def answer_type(request: type[Any]) -> Any:
    """The `Answer` of a subclass of `Request`, for reading an answer that comes over the wire.

    Raises:
        TypeError: the class is no request, or does not say of what.
    """
    for cls in request.__mro__:
        for base in getattr(cls, "__orig_bases__", ()):
            if get_origin(base) is Request:
                return get_args(base)[0]
    raise TypeError(f"{request.__name__} must be a Request[...] of some type to be asked.")
