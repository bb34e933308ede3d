"""The window of message ids: what was asked or told lately, and what was answered. Each counts once.

Temporal remembers the ids of a run's updates only; this goes along to the next run.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from goatherd.actors._errors import NotDurable
from goatherd.actors._wire import Json, read, read_error, write, write_error
from goatherd.errors import GoatherdError

IDS = 1_000
ROOM = 256_000
"""Bytes of answers that go along to the next run."""
ANSWERS = 50
"""So many of the newest answers are kept too: whoever asks again wants one of these."""


@dataclass(slots=True)
class Seen:
    """One message. While it is `open`, its answer goes to the address `promise`.

    `awaited`: its asker was told that the answer comes later, and has not had it yet.
    """

    id: str
    open: bool = False
    promise: str | None = None
    kept: bool = True
    awaited: bool = False
    value: Any = None
    error: GoatherdError | None = None


@dataclass(slots=True)
class Window:
    """The newest `IDS` messages. State in, state out."""

    _seen: dict[str, Seen] = field(default_factory=dict)
    _answered: deque[Seen] = field(default_factory=deque)

    def get(self, message_id: str | None) -> Seen | None:
        return None if message_id is None else self._seen.get(message_id)

    def add(self, message_id: str) -> Seen:
        if len(self._seen) >= IDS:
            self._drop_oldest()
        seen = self._seen[message_id] = Seen(message_id)
        return seen

    def answer(self, seen: Seen, value: Any, error: GoatherdError | None) -> None:
        seen.open, seen.promise = False, None
        seen.value, seen.error = value, error
        if not seen.awaited:
            self._answered.append(seen)

    def put_off(self, seen: Seen) -> None:
        """Its asker is told that the answer comes later, although it is there: so it has to be kept."""
        if not seen.awaited and not seen.open:
            seen.awaited = True
            if seen in self._answered:
                self._answered.remove(seen)

    def collected(self, seen: Seen) -> None:
        """Its asker has the answer."""
        if seen.awaited and not seen.open:
            seen.awaited = False
            self._answered.append(seen)

    def trim(self) -> None:
        """Drops old answers. Not while somebody is about to read them: a delivery may have more at once."""
        while len(self._answered) > ANSWERS:
            old = self._answered.popleft()
            old.kept, old.value, old.error = False, None, None

    @property
    def open(self) -> list[Seen]:
        return [seen for seen in self._seen.values() if seen.open]

    def _drop_oldest(self) -> None:
        # Not one that is still open: its answer has to find it. Those are few. One whose answer somebody is
        # to fetch only if all others are such: that somebody may be no more.
        oldest = next((seen for seen in self._seen.values() if not seen.open and not seen.awaited), None)
        if oldest is None:
            oldest = next((seen for seen in self._seen.values() if not seen.open), None)
        if oldest is not None:
            del self._seen[oldest.id]

    def written(self) -> Json:
        """Answers as far as there is room, the newest first: all has to fit one payload."""
        room = ROOM
        written = []
        for seen in reversed(self._seen.values()):
            one = _written(seen)
            if (size := len(to_json(one.get("value")))) > room:
                one = {"id": seen.id}
            room -= size if "value" in one else 0
            written.append(one)
        return written[::-1]

    @classmethod
    def read(cls, written: Json) -> Window:
        window = cls()
        for one in written:
            seen = window.add(one["id"])
            seen.awaited = one.get("awaited", False)
            if "promise" in one:
                seen.open, seen.promise = True, one["promise"]
            elif "value" in one or "error" in one:
                error = read_error(one["error"]) if "error" in one else None
                window.answer(seen, read(one["value"]) if error is None else None, error)
            else:
                seen.kept = False
        return window


def _written(seen: Seen) -> Json:
    written: dict[str, Any] = {"id": seen.id}
    if seen.awaited:
        written["awaited"] = True
    if seen.open:
        written["promise"] = seen.promise
    elif seen.error is not None:
        written["error"] = write_error(seen.error)
    elif seen.kept:
        try:
            written["value"] = write(seen.value)
        except NotDurable as error:  # Its asker has been told so.
            written["error"] = write_error(error)
    return written
