"""Where events are kept: a port.

Events and states are plain JSON, as `goatherd.actors` writes messages: `{"type": ..., "value": ...}`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from goatherd.actors._wire import Json


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of the journal. Numbers begin at 1 and have no gaps."""

    seq: int
    event: Json


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after event number `seq`."""

    seq: int
    state: Json


class Journal(Protocol):
    """Events by persistence id, in order; and snapshots of what they come to.

    Each raises `Unavailable` if it can't be reached. Of one id, only writers that do not know of each other
    append at the same time.
    """

    async def append(
        self, persistence_id: str, first_seq: int, events: Sequence[Json], *, writer: str
    ) -> None:
        """Writes all of `events`, numbered from `first_seq`, or none.

        The same call again by the same `writer` does nothing: it may be retried.

        Raises:
            Fenced: an event with this number is there, or was, from another writer.
            EventsRejected: these events can't be kept.
        """
        ...

    def read(self, persistence_id: str, *, after: int = 0, limit: int = 1_000) -> AsyncIterator[Entry]:
        """Up to `limit` events with numbers above `after`, in order."""
        ...

    async def highest(self, persistence_id: str) -> int:
        """The number of the last event that was ever written, deleted or not; 0: there was none."""
        ...

    async def save_snapshot(self, persistence_id: str, seq: int, state: Json) -> None:
        """Keeps the state after event `seq`, in the place of any other of that number.

        Raises:
            GoatherdError: it is too large, for one.
        """
        ...

    async def load_snapshot(self, persistence_id: str) -> Snapshot | None:
        """The latest one."""
        ...

    async def delete_events(self, persistence_id: str, upto: int) -> None:
        """Deletes what was appended whole by number `upto`. Its numbers stay taken."""
        ...

    async def delete_snapshots(self, persistence_id: str, *, keep: int) -> int:
        """Deletes all but the latest `keep`; the number of the oldest left, or 0 if fewer are there."""
        ...
