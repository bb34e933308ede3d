"""The journal of durable actors: what they ask of it is an activity each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from temporalio import activity as temporal_activity
from temporalio import workflow

from goatherd.actors._activity import Activity, activity
from goatherd.actors._mail import Piped
from goatherd.actors._wire import Json
from goatherd.actors.persistence import _calls as calls
from goatherd.actors.persistence._errors import EventsRejected
from goatherd.actors.persistence._journal import Entry, Journal
from goatherd.contracts.model import Contract
from goatherd.errors import GoatherdError, Invalid
from goatherd.payloads import carries_large
from goatherd.temporal import failure

if TYPE_CHECKING:
    from goatherd.actors.durable._host import Host

MOST_BYTES = 1_000_000
"""Of events that are read together, and of what is sent at once; Temporal refuses 2 MB."""
_TIMEOUT_S = 5.0
"""Of what an actor waits for: so long a worker that has died with it in hand holds it up."""
_SNAPSHOT_ATTEMPTS = 5
"""An actor that has to wait for its events waits as long as it takes; a snapshot it can do without."""


class JournalCall(Contract):
    persistence_id: str


class Begin(JournalCall):
    pass


class ReadEvents(JournalCall):
    after: int


class AppendEvents(JournalCall):
    first_seq: int
    events: list[Any]
    writer: str


class SaveSnapshot(JournalCall):
    seq: int
    state: Any


class DeleteSnapshots(JournalCall):
    keep: int


class DeleteEvents(JournalCall):
    upto: int


class JournalActivities:
    """To be given to the workers of actor types that keep a journal: `all`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    @property
    def all(self) -> list[Any]:
        return [
            self.begin, self.read, self.append, self.save, self.delete_snapshots, self.delete_events,
        ]  # fmt: skip

    @temporal_activity.defn(name="actor.journal.begin")
    async def begin(self, call: Begin) -> calls.Began:
        """A snapshot that is too large to travel is left out: its events tell the same, if they are there."""
        with _failures():
            began = await calls.begin(self._journal, call.persistence_id)
        if began.snapshot is not None and not _travels(began.snapshot.state):
            return calls.Began(None, began.highest)
        return began

    @temporal_activity.defn(name="actor.journal.read")
    async def read(self, call: ReadEvents) -> calls.Read:
        """Of the events that there are, as many as can travel together: one at least."""
        entries: list[Entry] = []
        left = MOST_BYTES
        with _failures():
            async for entry in self._journal.read(call.persistence_id, after=call.after, limit=calls.CHUNK):
                left -= _size(entry.event)
                if left < 0 and entries:
                    break
                entries.append(entry)
        return calls.Read(entries)

    @temporal_activity.defn(name="actor.journal.append")
    async def append(self, call: AppendEvents) -> calls.Appended:
        """May be repeated: it is the same writer's."""
        with _failures():
            return await calls.append(
                self._journal, call.persistence_id, call.first_seq, call.events, call.writer
            )

    @temporal_activity.defn(name="actor.journal.save_snapshot")
    async def save(self, call: SaveSnapshot) -> calls.Saved:
        with _failures():
            return await calls.save(self._journal, call.persistence_id, call.seq, call.state)

    @temporal_activity.defn(name="actor.journal.delete_snapshots")
    async def delete_snapshots(self, call: DeleteSnapshots) -> calls.SnapshotsDeleted:
        with _failures():
            return await calls.delete_snapshots(self._journal, call.persistence_id, call.keep)

    @temporal_activity.defn(name="actor.journal.delete_events")
    async def delete_events(self, call: DeleteEvents) -> calls.EventsDeleted:
        with _failures():
            return await calls.delete_events(self._journal, call.persistence_id, call.upto)


@contextmanager
def _failures() -> Iterator[None]:
    """Errors of ours keep their kind, and Temporal retries those that pass."""
    try:
        yield
    except GoatherdError as error:
        raise failure(error) from error


def _travels(value: Json) -> bool:
    return _size(value) <= MOST_BYTES or carries_large(temporal_activity.payload_converter())


def _size(value: Json) -> int:
    return len(json.dumps(value))


def is_of_journal(piped: Piped) -> bool:
    """Whether what is under way for an actor is a call of its journal, or waits for one."""
    return piped.work is None or (
        isinstance(piped.work, Activity) and isinstance(piped.work.argument, JournalCall)
    )


class JournalCalls(calls.Calls):
    """Inside of a workflow: each call is an activity. One a run."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._large = 0

    @property
    def is_closing(self) -> bool:
        return self._host.is_closing

    def begin(self, persistence_id: str) -> Activity[calls.Began]:
        return activity(
            JournalActivities.begin,
            Begin(persistence_id=persistence_id),
            timeout=_TIMEOUT_S,
            summary="recovery begins",
        )

    def read(self, persistence_id: str, after: int) -> Activity[calls.Read]:
        return activity(
            JournalActivities.read,
            ReadEvents(persistence_id=persistence_id, after=after),
            timeout=_TIMEOUT_S,
            summary=f"events after {after}",
        )

    def append(
        self, persistence_id: str, first_seq: int, events: Sequence[Json], writer: str
    ) -> Activity[calls.Appended]:
        if not self._travels(events):
            raise EventsRejected(f"The events have more than {MOST_BYTES} bytes together.")
        return activity(
            JournalActivities.append,
            AppendEvents(
                persistence_id=persistence_id,
                first_seq=first_seq,
                events=list(events),
                # Of this run: one that was reset does again, and may do otherwise, what it did as another.
                writer=f"{writer}@{workflow.info().run_id}",
            ),
            timeout=_TIMEOUT_S,
            summary=f"event {first_seq}",
        )

    def save(self, persistence_id: str, seq: int, state: Json) -> Activity[calls.Saved]:
        if not self._travels(state):
            raise Invalid(
                f"The state has more than {MOST_BYTES} bytes: that needs a store for large payloads."
            )
        return activity(
            JournalActivities.save,
            SaveSnapshot(persistence_id=persistence_id, seq=seq, state=state),
            attempts=_SNAPSHOT_ATTEMPTS,
            summary=f"snapshot {seq}",
        )

    def delete_snapshots(self, persistence_id: str, keep: int) -> Activity[calls.SnapshotsDeleted]:
        return activity(
            JournalActivities.delete_snapshots,
            DeleteSnapshots(persistence_id=persistence_id, keep=keep),
            attempts=_SNAPSHOT_ATTEMPTS,
        )

    def delete_events(self, persistence_id: str, upto: int) -> Activity[calls.EventsDeleted]:
        return activity(
            JournalActivities.delete_events,
            DeleteEvents(persistence_id=persistence_id, upto=upto),
            attempts=_SNAPSHOT_ATTEMPTS,
        )

    def _travels(self, value: Json) -> bool:
        """Whether it is small enough to be sent to an activity, or this worker has a store for the rest."""
        if _size(value) <= MOST_BYTES:
            return True
        self._large += 1
        if not workflow.unsafe.is_replaying() and not carries_large(workflow.payload_converter()):
            return False
        # True in a replay if it was so then; and if it was not, this run never asks under that name again.
        return workflow.patched(f"goatherd.journal.large.{self._large}")
