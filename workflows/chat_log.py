"""A session's sequence, as its actor keeps it: numbers, what the store may lack, and what was answered."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from itertools import islice
from random import Random  # noqa: TID251 - the type only
from typing import Any, Protocol

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from goatherd.contracts.chat import Event, EventType, Message, Receipt, SessionState
from goatherd.contracts.ids import Kind, make_id
from goatherd.contracts.model import Json

RECEIPTS = 1_000


class Clock(Protocol):
    """What ids and times are made of: an actor's context, so that a replay makes the same."""

    @property
    def random(self) -> Random: ...

    def now(self) -> float: ...


class SessionLog:
    """Gives every event the next number, and remembers events until they are known to be in the store.

    A field of an actor's state: it is written as its `SessionState`.
    """

    def __init__(self, prior: SessionState) -> None:
        self.session = prior.session
        self.last_seq = prior.last_seq
        self.leaf = prior.leaf
        self.posts = prior.posts
        self._unflushed: deque[tuple[Event, int]] = deque()
        self.bytes = 0
        for event in prior.unflushed:
            self._append(event)
        self.forgot = prior.forgot
        self._receipts: deque[Receipt] = deque()
        self._by_message: dict[str, Receipt] = {}
        self._by_client_id: dict[str, Receipt] = {}
        for receipt in prior.receipts:
            self.keep(receipt)

    def state(self) -> SessionState:
        return SessionState(
            session=self.session,
            last_seq=self.last_seq,
            leaf=self.leaf,
            posts=self.posts,
            unflushed=self.unflushed(),
            forgot=self.forgot,
            receipts=list(self._receipts),
        )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: Any) -> SessionLog:
            return value if isinstance(value, SessionLog) else cls(SessionState.model_validate(value))

        return core_schema.no_info_plain_validator_function(
            read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda log: log.state().model_dump(mode="json")
            ),
        )

    def new_id(self, clock: Clock, kind: Kind) -> str:
        return make_id(kind, millis=int(clock.now() * 1000), entropy=clock.random.getrandbits(80))

    def emit(
        self,
        clock: Clock,
        kind: EventType,
        *,
        message: str | None = None,
        parent: str | None = None,
        data: Json | None = None,
    ) -> Event:
        """Appends an event."""
        self.last_seq += 1
        event = Event(
            seq=self.last_seq,
            id=self.new_id(clock, "evt"),
            type=kind,
            session=self.session,
            message=message,
            parent=parent,
            ts=moment(clock),
            data=data or {},
        )
        self._append(event)
        return event

    def _append(self, event: Event) -> None:
        weight = len(event.model_dump_json())
        self._unflushed.append((event, weight))
        self.bytes += weight

    def create(self, clock: Clock, message: Message) -> None:
        """Appends `message.created`; the message, whose `seq` must be the next number, becomes the newest."""
        self.emit(
            clock,
            EventType.MESSAGE_CREATED,
            message=message.id,
            parent=message.parent,
            data={"message": message.model_dump(mode="json", exclude_none=True)},
        )
        self.leaf = message.id

    # -- what the store may lack

    @property
    def stored(self) -> int:
        """Events up to this number are known to be in the store."""
        return self.last_seq - len(self._unflushed)

    def unflushed(self, limit: int | None = None, *, after: int = 0) -> list[Event]:
        """Events not known to be in the store, oldest first; of these, what comes after a number."""
        newest = self.last_seq - max(after, self.stored)
        found = [event for event, _ in islice(reversed(self._unflushed), max(newest, 0))]
        return found[::-1][:limit]

    def bytes_after(self, seq: int) -> int:
        """The bytes of what is unflushed, if events up to `seq` are in the store after all."""
        known = islice(self._unflushed, max(seq - self.stored, 0))
        return self.bytes - sum(weight for _, weight in known)

    @property
    def is_flushed(self) -> bool:
        return not self._unflushed

    def awaits(self, seq: int) -> bool:
        """Whether an event up to this number may be missing in the store."""
        return bool(self._unflushed) and self._unflushed[0][0].seq <= seq

    def agrees(self, seq: int, event: str | None) -> bool:
        """Whether the store's event of this number can be of this run's past; if not, the run was reset."""
        if seq > self.last_seq:
            return False
        if event is None or seq <= self.stored:
            return True
        return self._unflushed[seq - self.stored - 1][0].id == event

    def confirm(self, seq: int) -> None:
        """Events up to `seq` are in the store."""
        while self._unflushed and self._unflushed[0][0].seq <= seq:
            _, weight = self._unflushed.popleft()
            self.bytes -= weight

    # -- what was answered

    def keep(self, receipt: Receipt) -> None:
        if len(self._receipts) == RECEIPTS:
            oldest = self._receipts.popleft()
            self.forgot = True
            self._by_message.pop(oldest.message, None)
            if oldest.client_id is not None:
                self._by_client_id.pop(oldest.client_id, None)
        self._receipts.append(receipt)
        self._by_message[receipt.message] = receipt
        if receipt.client_id is not None:
            self._by_client_id[receipt.client_id] = receipt

    def receipt(self, message: str | None, client_id: str | None) -> Receipt | None:
        """What a post with this id or client id was answered, if it was one of the last `RECEIPTS`."""
        found = self._by_message.get(message) if message is not None else None
        if found is None and client_id is not None:
            found = self._by_client_id.get(client_id)
        return found


def moment(clock: Clock) -> datetime:
    return datetime.fromtimestamp(clock.now(), UTC)
