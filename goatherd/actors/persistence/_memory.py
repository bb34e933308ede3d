"""The journal in memory: the fake, under the same contract tests as the real one."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from goatherd.actors._wire import Json
from goatherd.actors.persistence._errors import EventsRejected
from goatherd.actors.persistence._journal import Entry, Snapshot
from goatherd.errors import Fenced, Invalid


@dataclass(slots=True)
class _Batch:
    first: int
    last: int
    writer: str
    events: list[str]


class MemoryJournal:
    """`Journal` in memory: it lives as long as this object, over any number of systems.

    It keeps JSON texts, so that nothing but JSON goes through it, and nobody can change it from outside.
    """

    def __init__(self) -> None:
        self._batches: defaultdict[str, list[_Batch]] = defaultdict(list)
        self._snapshots: defaultdict[str, dict[int, str]] = defaultdict(dict)

    async def append(
        self, persistence_id: str, first_seq: int, events: Sequence[Json], *, writer: str
    ) -> None:
        try:
            written = [json.dumps(event) for event in events]
        except (TypeError, ValueError) as error:
            raise EventsRejected(f"An event of {persistence_id!r} is no JSON: {error}") from error
        batches = self._batches[persistence_id]
        if first_seq != self._highest(persistence_id) + 1:
            if any(batch.first == first_seq and batch.writer == writer for batch in batches):
                return
            raise Fenced(f"Another writer was first to write event {first_seq} of {persistence_id!r}.")
        if written:
            batches.append(_Batch(first_seq, first_seq + len(written) - 1, writer, written))

    async def read(self, persistence_id: str, *, after: int = 0, limit: int = 1_000) -> AsyncIterator[Entry]:
        left = limit
        for batch in list(self._batches[persistence_id]):
            for seq, event in enumerate(list(batch.events), batch.first):
                if left <= 0:
                    return
                if seq > after:
                    left -= 1
                    yield Entry(seq, json.loads(event))

    async def highest(self, persistence_id: str) -> int:
        return self._highest(persistence_id)

    def _highest(self, persistence_id: str) -> int:
        batches = self._batches[persistence_id]
        return batches[-1].last if batches else 0

    async def save_snapshot(self, persistence_id: str, seq: int, state: Json) -> None:
        try:
            self._snapshots[persistence_id][seq] = json.dumps(state)
        except (TypeError, ValueError) as error:
            raise Invalid(f"The state of {persistence_id!r} is no JSON: {error}") from error

    async def load_snapshot(self, persistence_id: str) -> Snapshot | None:
        kept = self._snapshots[persistence_id]
        if not kept:
            return None
        latest = max(kept)
        return Snapshot(latest, json.loads(kept[latest]))

    async def delete_events(self, persistence_id: str, upto: int) -> None:
        for batch in self._batches[persistence_id]:
            if batch.last <= upto:
                batch.events.clear()

    async def delete_snapshots(self, persistence_id: str, *, keep: int) -> int:
        kept = self._snapshots[persistence_id]
        for seq in sorted(kept, reverse=True)[keep:]:
            del kept[seq]
        return min(kept) if kept and len(kept) >= keep else 0
