"""Actors: typed, supervised, and the same code in plain asyncio, in tests and durably in Temporal.

The semantics are those of Pekko Typed where docs/actors.md does not say otherwise.
"""

from __future__ import annotations

from goatherd.actors._activity import Activity, activity
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
    AnswerTooLarge,
    AskTimeout,
    DeathPact,
    MailboxFull,
    MessageTooLarge,
    NameTaken,
    NotAChild,
    NotDurable,
    Refused,
    StashFull,
    StateTooLarge,
    Unhandled,
)
from goatherd.actors._local import LocalSystem
from goatherd.actors._message import Request, message
from goatherd.actors._receptionist import (
    Deregister,
    Deregistered,
    Find,
    Listing,
    ReceptionistMessage,
    Register,
    Registered,
    ServiceKey,
    Subscribe,
)
from goatherd.actors._ref import Ref, nobody
from goatherd.actors._routers import (
    Broadcast,
    at_random,
    consistent_hashing,
    group,
    pool,
    round_robin,
)
from goatherd.actors._signals import CancelRequested, ChildFailed, PostStop, PreRestart, Signal, Terminated
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
    "Activity",
    "ActorError",
    "ActorFailed",
    "ActorStopped",
    "AnswerTooLarge",
    "AskTimeout",
    "Behavior",
    "Broadcast",
    "CancelRequested",
    "ChildFailed",
    "Context",
    "DeadLetter",
    "DeathPact",
    "Deregister",
    "Deregistered",
    "Duration",
    "Find",
    "Listing",
    "LocalSystem",
    "MailboxFull",
    "MessageTooLarge",
    "NameTaken",
    "NotAChild",
    "NotDurable",
    "PostStop",
    "PreRestart",
    "ReceptionistMessage",
    "Ref",
    "Refused",
    "Register",
    "Registered",
    "Request",
    "ServiceKey",
    "Signal",
    "StashFull",
    "StateTooLarge",
    "Subscribe",
    "Supervised",
    "Terminated",
    "Timers",
    "Unhandled",
    "activity",
    "at_random",
    "behavior",
    "consistent_hashing",
    "empty",
    "group",
    "ignore",
    "message",
    "nobody",
    "on",
    "pool",
    "receive",
    "receive_signal",
    "restart",
    "restart_with_backoff",
    "resume",
    "round_robin",
    "same",
    "setup",
    "stop",
    "stopped",
    "supervise",
    "unhandled",
]
