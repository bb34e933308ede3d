"""Sessions and the events that actors make of them, for tests of stores."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from goatherd.contracts.chat import Delta, Event, EventType, Message, MessageStatus, Session
from goatherd.contracts.ids import new_id

BEGAN = datetime.now(UTC).replace(microsecond=0)


def make_session(**fields: Any) -> Session:
    defaults = {"id": new_id("chat"), "owner": "ann", "agent": "assistant", "model": "m", "created_at": BEGAN}
    return Session.model_validate(defaults | fields)


def make_delta(message: str, n: int, *, session: str, text: str = "word ") -> Delta:
    return Delta(session=session, message=message, n=n, offset=n * len(text), text=text, ts=BEGAN)


class Script:
    """Makes one session's events in order, as its actor does."""

    def __init__(self, session: str | None = None, *, last_seq: int = 0) -> None:
        self.session = session or new_id("chat")
        self.events: list[Event] = []
        self._seq = last_seq

    def add(self, kind: EventType, of: str | None = None, /, **data: Any) -> Event:
        self._seq += 1
        event = Event(
            seq=self._seq,
            id=new_id("evt"),
            type=kind,
            session=self.session,
            message=of,
            ts=BEGAN + timedelta(milliseconds=self._seq),
            data=data,
        )
        self.events.append(event)
        return event

    def create(
        self,
        content: str = "hello",
        *,
        role: Literal["user", "assistant", "system"] = "user",
        parent: str | None = None,
        client_id: str | None = None,
        status: MessageStatus = MessageStatus.COMPLETED,
        **fields: Any,
    ) -> str:
        """A message of its own; gives its id."""
        at = BEGAN + timedelta(milliseconds=self._seq + 1)
        message = Message(
            id=new_id("msg"),
            session=self.session,
            seq=self._seq + 1,
            version=self._seq + 1,
            role=role,
            content=content,
            status=status,
            parent=parent,
            client_id=client_id,
            created_at=at,
            updated_at=at,
            **fields,
        )
        self.add(EventType.MESSAGE_CREATED, message.id, message=message.model_dump(mode="json"))
        return message.id

    def reply(self, parent: str, *, content: str | None = "an answer") -> str:
        """A reply to `parent`, completed unless `content` is none."""
        reply = self.create("", role="assistant", parent=parent, status=MessageStatus.QUEUED, model="m")
        if content is not None:
            self.start(reply)
            self.complete(reply, content)
        return reply

    def start(self, reply: str) -> Event:
        return self.add(EventType.RUN_STARTED, reply, model="m")

    def complete(self, reply: str, content: str = "an answer") -> Event:
        usage = {"prompt_tokens": 3, "completion_tokens": 2}
        return self.add(
            EventType.MESSAGE_COMPLETED, reply, content=content, finish_reason="stop", usage=usage
        )
