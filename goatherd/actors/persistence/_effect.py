"""What a command comes to: events to persist, and what to do when they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Generic, TypeVar, overload

from goatherd.actors._message import Request
from goatherd.errors import GoatherdError

E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)
Answer = TypeVar("Answer")


class Verdict(Enum):
    """What becomes of the command itself."""

    HANDLED = "handled"
    STASHED = "stashed"
    UNHANDLED = "unhandled"


@dataclass(frozen=True, slots=True)
class Run:
    act: Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Reply:
    request: Request[Any]
    answer: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Refuse:
    request: Request[Any]
    error: GoatherdError


class Then(Enum):
    STOP = "stop"
    UNSTASH_ALL = "unstash_all"


Step = Run | Reply | Refuse | Then


@dataclass(frozen=True, slots=True)
class Effect(Generic[E_co]):
    """The one effect of a command. Its steps run in their order, with the state after its events, once the
    journal has confirmed these: never if it has not, and never at recovery."""

    events: tuple[E_co, ...] = ()
    verdict: Verdict = Verdict.HANDLED
    steps: tuple[Step, ...] = ()

    def then_run(self, act: Callable[[Any], object]) -> Effect[E_co]:
        """Calls `act(state)`. What it raises is this actor's failure; the events stay."""
        return self._then(Run(act))

    def then_reply(self, request: Request[Answer], answer: Callable[[Any], Answer]) -> Effect[E_co]:
        """Answers the command with `answer(state)`."""
        return self._then(Reply(request, answer))

    def then_stop(self) -> Effect[E_co]:
        """Stops the actor, after all other steps."""
        return self._then(Then.STOP)

    def then_unstash_all(self) -> Effect[E_co]:
        """What was stashed comes next, in its order."""
        return self._then(Then.UNSTASH_ALL)

    def _then(self, step: Step) -> Effect[E_co]:
        return replace(self, steps=(*self.steps, step))


@overload
def persist(events: list[E] | tuple[E, ...]) -> Effect[E]: ...
@overload
def persist(events: E) -> Effect[E]: ...
def persist(events: Any) -> Effect[Any]:
    """Writes an event; a list or tuple of them: all or none. Of an empty one, nothing is written."""
    if isinstance(events, list | tuple):
        return Effect(tuple(events))
    return Effect((events,))


def none() -> Effect[Any]:
    """No event."""
    return Effect()


def reply(request: Request[Answer], answer: Answer) -> Effect[Any]:
    """No event; answers the command."""
    return Effect(steps=(Reply(request, lambda _: answer),))


def refuse(request: Request[Any], error: GoatherdError) -> Effect[Any]:
    """No event; answers the command with an error, which is raised at the asker."""
    return Effect(steps=(Refuse(request, error),))


def stash() -> Effect[Any]:
    """Puts the command aside, with its asker, until `then_unstash_all`. Full: the actor fails."""
    return Effect(verdict=Verdict.STASHED)


def stop() -> Effect[Any]:
    """No event; the actor stops."""
    return Effect(steps=(Then.STOP,))


unhandled: Effect[Any] = Effect(verdict=Verdict.UNHANDLED)
"""No event; the command is reported as unhandled, and its asker told so."""
