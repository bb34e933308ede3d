"""What an event-sourced actor asks of its journal, and the messages that the answers come as.

All of them are classes and functions of this module, so that an answer in a mailbox can be written down.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
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


class Calls(ABC):
    """A journal as its actors see it: each call is work for `Context.pipe_to_self`."""

    @property
    def is_closing(self) -> bool:
        """Whether what comes now is for the actor's next run: nothing more is to be written in this one."""
        return False

    @abstractmethod
    def begin(self, persistence_id: str) -> Awaitable[Began]: ...

    @abstractmethod
    def read(self, persistence_id: str, after: int) -> Awaitable[Read]:
        """The events after number `after`, one at least if there are any."""

    @abstractmethod
    def append(
        self, persistence_id: str, first_seq: int, events: Sequence[Json], writer: str
    ) -> Awaitable[Appended]:
        """Raises `EventsRejected` at once if these can't be sent to the journal."""

    @abstractmethod
    def save(self, persistence_id: str, seq: int, state: Json) -> Awaitable[Saved]:
        """Raises a `GoatherdError` at once if this can't be sent to the journal."""

    @abstractmethod
    def delete_snapshots(self, persistence_id: str, keep: int) -> Awaitable[SnapshotsDeleted]: ...

    @abstractmethod
    def delete_events(self, persistence_id: str, upto: int) -> Awaitable[EventsDeleted]: ...


class Direct(Calls):
    """Of a journal that is called from this process."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def begin(self, persistence_id: str) -> Awaitable[Began]:
        return begin(self._journal, persistence_id)

    def read(self, persistence_id: str, after: int) -> Awaitable[Read]:
        return read(self._journal, persistence_id, after)

    def append(
        self, persistence_id: str, first_seq: int, events: Sequence[Json], writer: str
    ) -> Awaitable[Appended]:
        return append(self._journal, persistence_id, first_seq, events, writer)

    def save(self, persistence_id: str, seq: int, state: Json) -> Awaitable[Saved]:
        return save(self._journal, persistence_id, seq, state)

    def delete_snapshots(self, persistence_id: str, keep: int) -> Awaitable[SnapshotsDeleted]:
        return delete_snapshots(self._journal, persistence_id, keep)

    def delete_events(self, persistence_id: str, upto: int) -> Awaitable[EventsDeleted]:
        return delete_events(self._journal, persistence_id, upto)


def calls_of(journal: Journal | Calls) -> Calls:
    return journal if isinstance(journal, Calls) else Direct(journal)


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
