"""What an event-sourced actor asks of its journal, and the messages that the answers come as.

All of them are classes and functions of this module, so that an answer in a mailbox can be written down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from goatherd.actors._wire import Json
from goatherd.actors.persistence._journal import Entry, Journal, Snapshot

CHUNK = 1_000
"""Events read at once, so that a long history is never in memory whole."""


class Answer:
    """Base of what comes back from the journal."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Began(Answer):
    snapshot: Snapshot | None
    highest: int


@dataclass(frozen=True, slots=True)
class Read(Answer):
    entries: list[Entry]


@dataclass(frozen=True, slots=True)
class Appended(Answer):
    pass


@dataclass(frozen=True, slots=True)
class Saved(Answer):
    pass


@dataclass(frozen=True, slots=True)
class SnapshotsDeleted(Answer):
    oldest: int


@dataclass(frozen=True, slots=True)
class EventsDeleted(Answer):
    upto: int


@dataclass(frozen=True, slots=True)
class Failed(Answer):
    """Base of what comes back instead."""

    error: BaseException


class ReadFailed(Failed):
    __slots__ = ()


class AppendFailed(Failed):
    __slots__ = ()


class SaveFailed(Failed):
    __slots__ = ()


class SnapshotsNotDeleted(Failed):
    __slots__ = ()


class EventsNotDeleted(Failed):
    __slots__ = ()


def as_it_is(answer: Answer) -> Answer:
    return answer


async def begin(journal: Journal, persistence_id: str) -> Began:
    # In this order: what is written in between is read, not missed.
    snapshot = await journal.load_snapshot(persistence_id)
    return Began(snapshot, await journal.highest(persistence_id))


async def read(journal: Journal, persistence_id: str, after: int) -> Read:
    return Read([entry async for entry in journal.read(persistence_id, after=after, limit=CHUNK)])


async def append(
    journal: Journal, persistence_id: str, first_seq: int, events: Sequence[Json], writer: str
) -> Appended:
    await journal.append(persistence_id, first_seq, events, writer=writer)
    return Appended()


async def save(journal: Journal, persistence_id: str, seq: int, state: Json) -> Saved:
    await journal.save_snapshot(persistence_id, seq, state)
    return Saved()


async def delete_snapshots(journal: Journal, persistence_id: str, keep: int) -> SnapshotsDeleted:
    return SnapshotsDeleted(await journal.delete_snapshots(persistence_id, keep=keep))


async def delete_events(journal: Journal, persistence_id: str, upto: int) -> EventsDeleted:
    await journal.delete_events(persistence_id, upto)
    return EventsDeleted(upto)
