"""Actors: typed, supervised, and the same code in plain asyncio, in tests and durably in Temporal.

The semantics are those of Pekko Typed where docs/actors.md does not say otherwise.
"""

from __future__ import annotations

from goatherd.actors._behavior import (
    Behavior,
    behavior,
    empty,
    ignore,
    receive,
    receive_signal,
    same,
    setup,
    stopped,
    unhandled,
)
from goatherd.actors._context import Context, Timers
from goatherd.actors._duration import Duration
from goatherd.actors._environment import DeadLetter
from goatherd.actors._errors import (
    ActorError,
    ActorFailed,
    ActorStopped,
    AskTimeout,
    DeathPact,
    MailboxFull,
    NameTaken,
    NotAChild,
    NotDurable,
    Refused,
    StashFull,
    Unhandled,
)
from goatherd.actors._local import LocalSystem
from goatherd.actors._message import Request, message
from goatherd.actors._ref import Ref, nobody
from goatherd.actors._signals import ChildFailed, PostStop, PreRestart, Signal, Terminated
from goatherd.actors._supervision import (
    Supervised,
    on,
    restart,
    restart_with_backoff,
    resume,
    stop,
    supervise,
)

__all__ = [
    "ActorError",
    "ActorFailed",
    "ActorStopped",
    "AskTimeout",
    "Behavior",
    "ChildFailed",
    "Context",
    "DeadLetter",
    "DeathPact",
    "Duration",
    "LocalSystem",
    "MailboxFull",
    "NameTaken",
    "NotAChild",
    "NotDurable",
    "PostStop",
    "PreRestart",
    "Ref",
    "Refused",
    "Request",
    "Signal",
    "StashFull",
    "Supervised",
    "Terminated",
    "Timers",
    "Unhandled",
    "behavior",
    "empty",
    "ignore",
    "message",
    "nobody",
    "on",
    "receive",
    "receive_signal",
    "restart",
    "restart_with_backoff",
    "resume",
    "same",
    "setup",
    "stop",
    "stopped",
    "supervise",
    "unhandled",
]
