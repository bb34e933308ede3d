"""Behaviors: what an actor does with its next message, and which behavior it has after that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from typing_extensions import dataclass_transform

if TYPE_CHECKING:
    from goatherd.actors._context import Context
    from goatherd.actors._signals import Signal

M = TypeVar("M")
Class = TypeVar("Class", bound="type[Behavior[Any]]")


class Behavior(Generic[M]):
    """Base of behaviors. A subclass with `@behavior("name")` is data: it survives continue-as-new.

    Its methods run to their end, one at a time in an actor, and never wait: what takes time goes through
    `Context.pipe_to_self`, `Context.ask` or a timer. Each returns the next behavior; None is `same`.
    """

    __slots__ = ()

    def on_start(self, ctx: Context[M]) -> Behavior[M] | None:
        """The actor starts, or starts anew: spawn children, start timers. Not called when a behavior is
        merely returned."""
        return None

    def receive(self, ctx: Context[M], message: M) -> Behavior[M] | None:
        """A message has come."""
        return unhandled

    def on_signal(self, ctx: Context[M], signal: Signal) -> Behavior[M] | None:
        """The system says something; `PreRestart` and `PostStop` can't change the behavior any more."""
        return unhandled

    def check(self, message: M) -> None:
        """Asked from outside, before a request is taken: raise a `GoatherdError` to refuse it.

        It must change nothing. A durable actor's refusal leaves no event in its history.
        """


class _Said(Behavior[Any]):
    """A behavior that stands for a decision."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def __deepcopy__(self, memo: object) -> Self:
        return self  # It is told by what it is, not by what it holds.


class _Ignoring(_Said):
    __slots__ = ()

    def receive(self, ctx: Context[Any], message: Any) -> Behavior[Any] | None:
        return None

    def on_signal(self, ctx: Context[Any], signal: Signal) -> Behavior[Any] | None:
        return None


same: Behavior[Any] = _Said("same")
"""Goes on as it is."""
stopped: Behavior[Any] = _Said("stopped")
"""Takes no more messages; its children stop, then it does."""
unhandled: Behavior[Any] = _Said("unhandled")
"""As `same`, and the message is reported as unhandled; an unhandled `Terminated` is a `DeathPact`."""
empty: Behavior[Any] = _Said("empty")
"""Handles nothing: every message is unhandled."""
ignore: Behavior[Any] = _Ignoring("ignore")
"""Takes every message and signal, and does nothing."""

Receiver = Callable[["Context[M]", M], "Behavior[M] | None"]
SignalReceiver = Callable[["Context[M]", "Signal"], "Behavior[M] | None"]


class _Receive(Behavior[M]):
    """A behavior of functions: for tests and plain asyncio. Closures don't go through continue-as-new."""

    __slots__ = ("_on_message", "_on_signal")

    def __init__(self, on_message: Receiver[M], on_signal: SignalReceiver[M] | None) -> None:
        self._on_message = on_message
        self._on_signal = on_signal

    def receive(self, ctx: Context[M], message: M) -> Behavior[M] | None:
        return self._on_message(ctx, message)

    def on_signal(self, ctx: Context[M], signal: Signal) -> Behavior[M] | None:
        return unhandled if self._on_signal is None else self._on_signal(ctx, signal)


class Setup(Behavior[M]):
    """A behavior that is still to be made."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[Context[M]], Behavior[M]]) -> None:
        self.make = make


def receive(on_message: Receiver[M], on_signal: SignalReceiver[M] | None = None) -> Behavior[M]:
    """A behavior of one or two functions."""
    return _Receive(on_message, on_signal)


def receive_signal(on_signal: SignalReceiver[M]) -> Behavior[M]:
    """A behavior that handles signals, and no message."""
    return _Receive(lambda ctx, message: unhandled, on_signal)


def setup(make: Callable[[Context[M]], Behavior[M]]) -> Behavior[M]:
    """A behavior made when the actor starts (and at each restart), or as soon as it is returned."""
    return Setup(make)


_registered: dict[str, type[Behavior[Any]]] = {}
_names: dict[type[Behavior[Any]], str] = {}


@dataclass_transform(field_specifiers=())
def behavior(name: str) -> Callable[[Class], Class]:
    """Makes a dataclass of a `Behavior`, registered by a name that must not change while its data lives.

    Its fields are its state: anything that pydantic can write as JSON and read again, refs included.

    Raises:
        ValueError: another class has the name.
    """

    def register(cls: Class) -> Class:
        made = cast("Class", dataclass(eq=False)(cls))
        other = _registered.get(name)
        if other is not None and _full_name(other) != _full_name(made):
            raise ValueError(f"The behavior name {name!r} is {other.__qualname__}'s already.")
        _registered[name] = made
        _names[made] = name
        return made

    return register


def _full_name(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def name_of(one: Behavior[Any]) -> str | None:
    """The registered name of a behavior's class; None if it has none."""
    if isinstance(one, _Said):
        return repr(one)
    return _names.get(type(one))


def class_of(name: str) -> type[Behavior[Any]] | None:
    """The class that is registered by a name."""
    return _registered.get(name)


def said(name: str) -> Behavior[Any] | None:
    """`empty` and the like, by name."""
    return {repr(one): one for one in (same, stopped, unhandled, empty, ignore)}.get(name)
