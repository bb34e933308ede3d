"""What clients that follow a session are sent: events, deltas and passing things, in their wire form.

An event is made bytes once in a process, however many clients it goes to. `Cursor` says how much of a session
a client has seen; its text is the SSE id, and the `since` of whoever comes back (docs/adr/0003).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from goatherd.contracts.chat import Delta, Ephemeral, Event
from goatherd.contracts.ids import is_message_id
from goatherd.contracts.model import Json, rfc3339
from goatherd.contracts.task import TaskEvent
from goatherd.errors import MalformedCursor

DELTA = "message.delta"
PING = "ping"
_NOT_SHOWN = frozenset({"answer", "batch"})

_CURSOR = re.compile(r"([0-9]{1,15})(?::([a-z0-9_]{1,64}):([0-9]{1,10}))?")


@dataclass(frozen=True, slots=True)
class Cursor:
    """`SEQ`, the last durable event seen, or `SEQ:MESSAGE:OFFSET`: also, how many code points of one reply
    in progress. One reply is enough: a session's actor has one made at a time."""

    seq: int
    message: str | None = None
    offset: int = 0

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises `MalformedCursor`."""
        found = _CURSOR.fullmatch(text)
        if found is None or (found[2] is not None and not is_message_id(found[2])):
            raise MalformedCursor(
                f"A cursor is SEQ or SEQ:MESSAGE:OFFSET, as you were sent with events, not {text[:80]!r}."
            )
        return cls(int(found[1]), found[2], int(found[3] or 0))

    def __str__(self) -> str:
        return str(self.seq) if self.message is None else f"{self.seq}:{self.message}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Wire:
    """A change and its JSON, shared by all who are sent it. A ping has no item."""

    type: str
    item: Event | Delta | Ephemeral | TaskEvent | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """A change as one client is sent it: `cursor` is what it has seen then. What passes by has none."""

    wire: Wire
    cursor: Cursor | None = None


def wire_form(item: Event | Delta | Ephemeral) -> Wire:
    match item:
        case Event():
            fields = item.model_dump(mode="json", exclude={"message", "parent"})
            optional = {"message": item.message, "parent": item.parent}
            fields.update({name: value for name, value in optional.items() if value is not None})
            kind = item.type.value
        case Delta():
            kind = DELTA
            fields = _fields(kind, item.session, item.ts, {"offset": item.offset, "text": item.text})
            fields.update(id=f"{item.message}:{item.n}", message=item.message)
        case Ephemeral():
            kind = item.type
            fields = _fields(kind, item.session, item.ts, item.data)
    return Wire(kind, item, orjson.dumps(fields))


def task_wire(event: TaskEvent) -> Wire:
    """Without what was answered: of several workers, none is to know that of the others before the end."""
    fields = event.model_dump(mode="json")
    if event.subtask is None:
        del fields["subtask"], fields["state"]
    fields["data"] = {name: value for name, value in fields["data"].items() if name not in _NOT_SHOWN}
    return Wire(event.type.value, event, orjson.dumps(fields))


def ping(session: str) -> Frame:
    """Says that the line is alive, where nothing else says so."""
    return Frame(Wire(PING, None, orjson.dumps(_fields(PING, session, datetime.now(UTC), {}))))


COMMENT = Frame(Wire(PING, None, b""))
"""The same, of a stream that has nothing but durable events: no event, and nothing in it."""


def _fields(kind: str, session: str, ts: datetime, data: Json) -> Json:
    return {"v": 1, "type": kind, "session": session, "ts": rfc3339(ts), "data": data}
