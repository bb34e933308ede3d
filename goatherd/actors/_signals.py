"""What the system tells an actor about itself and those it watches, apart from its messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from goatherd.actors._ref import Ref


class Signal:
    """Base of all signals; comes to `Behavior.on_signal`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class PreRestart(Signal):
    """The behavior is about to be replaced by a new one. Comes instead of `PostStop`."""


@dataclass(frozen=True, slots=True)
class PostStop(Signal):
    """The last thing an actor gets. All of its descendants have stopped."""


@dataclass(frozen=True, slots=True)
class Terminated(Signal):
    """A watched actor has stopped: it has had its `PostStop`. Not handled, it stops the watcher too."""

    ref: Ref[Any]


@dataclass(frozen=True, slots=True)
class ChildFailed(Terminated):
    """A watched child has stopped because of `cause`. Only its parent is told why."""

    cause: BaseException


@dataclass(frozen=True, slots=True)
class CancelRequested(Signal):
    """Somebody asks the actor to end: an operator has cancelled its workflow. Not handled, it stops."""


CANCEL_REQUESTED = CancelRequested()
PRE_RESTART = PreRestart()
POST_STOP = PostStop()
