"""What an event-sourced actor is told about its journal. They come to its `on_signal`, as others do."""

from __future__ import annotations

from dataclasses import dataclass

from goatherd.actors._signals import Signal


@dataclass(frozen=True, slots=True)
class RecoveryCompleted(Signal):
    """The state is what the journal says: once at each start, also a restart or a new run, before the first
    command, and also if the journal is empty. The place to take up again what was left."""


@dataclass(frozen=True, slots=True)
class RecoveryFailed(Signal):
    """The state can't be recovered. After this the actor fails with a `RecoveryError`."""

    cause: BaseException


@dataclass(frozen=True, slots=True)
class PersistRejected(Signal):
    """The journal did not take the events of a command. The asker was refused; the state is as before."""

    cause: BaseException


@dataclass(frozen=True, slots=True)
class SnapshotCompleted(Signal):
    """The state after event number `seq` is kept."""

    seq: int


@dataclass(frozen=True, slots=True)
class SnapshotFailed(Signal):
    """It is not. Nothing is lost: recovery takes an earlier one, and more events."""

    seq: int
    cause: BaseException


@dataclass(frozen=True, slots=True)
class DeleteSnapshotsCompleted(Signal):
    """Snapshots before `oldest` are gone; 0: there were not more than are to be kept."""

    oldest: int


@dataclass(frozen=True, slots=True)
class DeleteSnapshotsFailed(Signal):
    """Too many are kept, until after the next snapshot."""

    cause: BaseException


@dataclass(frozen=True, slots=True)
class DeleteEventsCompleted(Signal):
    """Events up to number `upto` are gone."""

    upto: int


@dataclass(frozen=True, slots=True)
class DeleteEventsFailed(Signal):
    """More are kept than needed, until after the next snapshot."""

    cause: BaseException
