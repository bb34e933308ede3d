"""What a behavior did through its context, as data. Two are equal if what a test would write down is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from goatherd.actors._behavior import Behavior, empty
from goatherd.actors._ref import Ref, nobody
from goatherd.actors._supervision import Rule
from goatherd.errors import GoatherdError

ByHand = Callable[[Any, BaseException | None], None]
"""Ends something that was under way: with a value, or with an error."""


def _expected_only(value: Any, error: BaseException | None) -> None:
    raise AssertionError("This effect was written by hand: use the one that `expect` returns.")


class Effect:
    """Base of all effects. Only what changed something is one: cancelling no timer is none."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Spawned(Effect):
    """A child was spawned: inert, with an inbox in place of its behavior. Equal by its name."""

    name: str
    behavior: Behavior[Any] = field(default=empty, compare=False)
    ref: Ref[Any] = field(default=nobody, compare=False)
    supervise: tuple[Rule, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Started(Effect):
    """A durable child was started. What it got is in the kit's `inbox` of its id."""

    kind: Any
    child_id: str
    start: Any = None


@dataclass(frozen=True, slots=True)
class Stopped(Effect):
    """A living child was told to stop. That it has stopped comes to its watcher as ever."""

    name: str


@dataclass(frozen=True, slots=True)
class Watched(Effect):
    ref: Ref[Any]


@dataclass(frozen=True, slots=True)
class WatchedWith(Effect):
    ref: Ref[Any]
    message: Any


@dataclass(frozen=True, slots=True)
class Unwatched(Effect):
    ref: Ref[Any]


@dataclass(frozen=True, slots=True)
class TimerStarted(Effect):
    """A timer, which rings after `delay_s` seconds, and then every `interval_s` if that is not None."""

    key: str
    message: Any
    delay_s: float
    interval_s: float | None = None
    fixed_rate: bool = False


@dataclass(frozen=True, slots=True)
class TimerCancelled(Effect):
    """A timer was cancelled by the behavior; those that end with the actor are not told of."""

    key: str


@dataclass(frozen=True, slots=True)
class Asked(Effect):
    """Another actor was asked. Equal by whom and what."""

    ref: Ref[Any]
    request: Any
    timeout_s: float = field(default=0.0, compare=False)
    by_hand: ByHand = field(default=_expected_only, compare=False, repr=False)

    def answer(self, value: Any) -> None:
        """The answer comes, and what it becomes is handled at once."""
        self.by_hand(value, None)

    def fail(self, error: GoatherdError) -> None:
        """An error comes instead: `AskTimeout`, `ActorStopped`, or a refusal."""
        self.by_hand(None, error)


@dataclass(frozen=True, slots=True)
class Piped(Effect):
    """Work was piped to the actor, and is not run. Equal by `work`, the name of what was called.

    `awaitable`: the work itself, such as an `Activity` with its argument. A coroutine is closed.
    """

    work: str
    awaitable: Any = field(default=None, compare=False, repr=False)
    by_hand: ByHand = field(default=_expected_only, compare=False, repr=False)

    def succeed(self, value: Any) -> None:
        """The work has this result, and the message that it becomes is handled at once."""
        self.by_hand(value, None)

    def fail(self, error: BaseException) -> None:
        """The work has raised."""
        self.by_hand(None, error)


@dataclass(frozen=True, slots=True)
class Stashed(Effect):
    message: Any


@dataclass(frozen=True, slots=True)
class Unstashed(Effect):
    """So many messages are next in the mailbox: `run_one` or `run_all` has them handled."""

    count: int


@dataclass(frozen=True, slots=True)
class Adapted(Effect):
    """An address for another protocol was made, or given out again."""

    adapt: Callable[[Any], Any]
    ref: Ref[Any] = field(default=nobody, compare=False)
