"""Tests of actors, on the same runtime that they run on: one behavior by hand, a system with its clock, or
inside of a workflow.

See docs/testing-actors.md. Nothing here is part of a running program.
"""

from __future__ import annotations

from goatherd.actors.testkit._actor_kit import ActorTestKit
from goatherd.actors.testkit._behavior_kit import BehaviorTestKit, Reply
from goatherd.actors.testkit._durable_kit import DurableProbe, DurableTestKit
from goatherd.actors.testkit._effects import (
    Adapted,
    Asked,
    Effect,
    Piped,
    Spawned,
    Started,
    Stashed,
    Stopped,
    TimerCancelled,
    TimerStarted,
    Unstashed,
    Unwatched,
    Watched,
    WatchedWith,
)
from goatherd.actors.testkit._inbox import TestInbox
from goatherd.actors.testkit._kit import AnyKit, AnyProbe
from goatherd.actors.testkit._log import LogEntry
from goatherd.actors.testkit._probe import Probe
from goatherd.actors.testkit._time import ManualTime, RealTime

__all__ = [
    "ActorTestKit",
    "Adapted",
    "AnyKit",
    "AnyProbe",
    "Asked",
    "BehaviorTestKit",
    "DurableProbe",
    "DurableTestKit",
    "Effect",
    "LogEntry",
    "ManualTime",
    "Piped",
    "Probe",
    "RealTime",
    "Reply",
    "Spawned",
    "Started",
    "Stashed",
    "Stopped",
    "TestInbox",
    "TimerCancelled",
    "TimerStarted",
    "Unstashed",
    "Unwatched",
    "Watched",
    "WatchedWith",
]
