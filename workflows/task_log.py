"""A task's sequence, as its actor keeps it: numbers, and events that may not be in the store yet."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from goatherd.contracts.model import Json, rfc3339
from goatherd.contracts.task import TaskEventType
from goatherd.contracts.task_messages import Range

MOST_HANDED = 200
MOST_HANDED_BYTES = 128 * 1024
"""Of an answer's events. A request that has done more leaves the rest to the actor's own writes."""
_USUAL_BYTES = 400
_LEASE_BYTES = 250


def moment(seconds: float) -> datetime:
    """A time, of seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


@lru_cache(maxsize=1_024)
def written_moment(seconds: float) -> str:
    """The same, as it is on the wire."""
    return rfc3339(moment(seconds))


class TaskLog:
    """Gives every event the next number, and keeps it until it is known to be in the store.

    Events are kept as they travel: each a `TaskEvent` as JSON. A field of an actor's state. Confirmations
    come in any order: callers write side by side.
    """

    def __init__(self, task: str, seq: int = 0, events: Sequence[tuple[float, Json]] = ()) -> None:
        """`events`: each with when it was made."""
        self.task = task
        self.seq = seq
        self._events: dict[int, tuple[float, Json, int]] = {}
        for at, event in events:
            self._keep(at, event)

    def emit(
        self,
        kind: TaskEventType,
        now: float,
        *,
        subtask: str | None = None,
        state: Json | None = None,
        data: Json | None = None,
    ) -> None:
        """The next event. `state`, if given, a `SubtaskState` without what follows from the event."""
        self.seq += 1
        event: Json = {
            "seq": self.seq,
            "type": kind.value,
            "task": self.task,
            "ts": written_moment(now),
        }
        if data:
            event["data"] = data
        if subtask is not None:
            event["subtask"] = subtask
            event["state"] = state
        self._keep(now, event)

    def _keep(self, at: float, event: Json) -> None:
        self._events[event["seq"]] = (at, event, _weight(event))

    # -- what the store may lack

    def __len__(self) -> int:
        return len(self._events)

    def confirm(self, ranges: Sequence[Range]) -> None:
        """These events are in the store."""
        if not self._events:
            return
        oldest = next(iter(self._events))
        for first, last in ranges:
            for seq in range(max(first, oldest), min(last, self.seq) + 1):
                self._events.pop(seq, None)

    def since(self, seq: int) -> tuple[list[Json], bool]:
        """Events after a number, for a caller to write; and whether these are all of them."""
        handed: list[Json] = []
        size = 0
        for number in range(seq + 1, self.seq + 1):
            _, event, weight = self._events[number]
            size += weight
            if len(handed) == MOST_HANDED or size > MOST_HANDED_BYTES:
                return handed, False
            handed.append(event)
        return handed, True

    def oldest(self, limit: int, most_bytes: int, before: float) -> list[Json]:
        """Events not confirmed that were made before a time (seconds since 1970), oldest first: as many as
        may travel together."""
        found: list[Json] = []
        size = 0
        for at, event, weight in self._events.values():
            size += weight
            if at > before or len(found) == limit or (found and size > most_bytes):
                break
            found.append(event)
        return found

    def has_up_to(self, seq: int) -> bool:
        """Whether an event up to this number is not confirmed."""
        return next(iter(self._events), seq + 1) <= seq

    @property
    def first_at(self) -> float | None:
        """When the oldest event was made that nobody has confirmed."""
        for at, _, _ in self._events.values():
            return at
        return None

    # -- for the next run

    def written(self) -> Json:
        """The events packed: they are much alike, and under load there are thousands."""
        events = [[at, event] for at, event, _ in self._events.values()]
        packed = zlib.compress(json.dumps(events, separators=(",", ":")).encode(), 1)
        return {"task": self.task, "seq": self.seq, "events": base64.b64encode(packed).decode()}

    @classmethod
    def read(cls, written: Json) -> TaskLog:
        events = json.loads(zlib.decompress(base64.b64decode(written["events"])))
        return cls(written["task"], written["seq"], [(at, event) for at, event in events])

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: Any) -> TaskLog:
            return value if isinstance(value, TaskLog) else cls.read(value)

        return core_schema.no_info_plain_validator_function(
            read, serialization=core_schema.plain_serializer_function_ser_schema(lambda log: log.written())
        )


def _weight(event: Json) -> int:
    """The event's bytes as a payload, about."""
    data, state = event.get("data", ()), event.get("state")
    size = _USUAL_BYTES
    if state is not None:
        size += _LEASE_BYTES * len(state.get("leases", ()))
        if "error" in state:
            size += len(json.dumps(state["error"]))
    if "answer" in data or "subtasks" in data or "info" in data:
        size += len(json.dumps(data))
    return size
