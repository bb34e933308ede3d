"""What lies in a mailbox besides messages, and what is under way for an actor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from goatherd.actors._environment import Work
from goatherd.actors._ref import Ref
from goatherd.actors._signals import Signal
from goatherd.actors._timers import Timer

Envelope = tuple[Any, Ref[Any] | None]
"""A message, or one of those below, and where its answer goes."""


class Rang:
    """In a mailbox: a timer's message. Counts only if the timer is still the one of its key."""

    __slots__ = ("timer",)

    def __init__(self, timer: Timer) -> None:
        self.timer = timer


class Adapted:
    """In a mailbox: something that becomes a message by `adapt`, in the actor's own turn."""

    __slots__ = ("adapt", "value")

    def __init__(self, adapt: Callable[[Any], Any] | None, value: Any) -> None:
        self.adapt = adapt
        self.value = value


class Stopped:
    """In a mailbox: a watched actor has stopped. Counts only if it is still watched."""

    __slots__ = ("cause", "ref")

    def __init__(self, ref: Ref[Any], cause: BaseException | None) -> None:
        self.ref = ref
        self.cause = cause


class Notice:
    """In a mailbox: a signal from outside of the runtime. Not handled, it stops the actor."""

    __slots__ = ("signal",)

    def __init__(self, signal: Signal) -> None:
        self.signal = signal


INTERNAL = frozenset({Rang, Adapted, Stopped, Notice})


class Piped(NamedTuple):
    """Work that is under way for an actor, and what becomes of its result."""

    handle: Work
    work: Any
    ok: Callable[[Any], Any]
    err: Callable[[BaseException], Any] | None
    key: str | None = None
