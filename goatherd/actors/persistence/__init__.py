"""Event-sourced actors: what happened is kept, and the state follows from it. See docs/persistence.md."""

from __future__ import annotations

from goatherd.actors._wire import Json
from goatherd.actors._wire import write as written
from goatherd.actors.persistence._effect import (
    Effect,
    none,
    persist,
    refuse,
    reply,
    stash,
    stop,
    unhandled,
)
from goatherd.actors.persistence._errors import (
    EventsRejected,
    JournalFailed,
    PersistenceError,
    RecoveryError,
)
from goatherd.actors.persistence._event_sourced import EventSourced, event_sourced
from goatherd.actors.persistence._journal import Entry, Journal, Snapshot
from goatherd.actors.persistence._memory import MemoryJournal
from goatherd.actors.persistence._retention import Retention, every, when
from goatherd.actors.persistence._running import resume
from goatherd.actors.persistence._signals import (
    DeleteEventsCompleted,
    DeleteEventsFailed,
    DeleteSnapshotsCompleted,
    DeleteSnapshotsFailed,
    PersistRejected,
    RecoveryCompleted,
    RecoveryFailed,
    SnapshotCompleted,
    SnapshotFailed,
)

__all__ = [
    "DeleteEventsCompleted",
    "DeleteEventsFailed",
    "DeleteSnapshotsCompleted",
    "DeleteSnapshotsFailed",
    "Effect",
    "Entry",
    "EventSourced",
    "EventsRejected",
    "Journal",
    "JournalFailed",
    "Json",
    "MemoryJournal",
    "PersistRejected",
    "PersistenceError",
    "RecoveryCompleted",
    "RecoveryError",
    "RecoveryFailed",
    "Retention",
    "Snapshot",
    "SnapshotCompleted",
    "SnapshotFailed",
    "event_sourced",
    "every",
    "none",
    "persist",
    "refuse",
    "reply",
    "resume",
    "stash",
    "stop",
    "unhandled",
    "when",
    "written",
]
