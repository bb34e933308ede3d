"""How a session's events become message documents: the one pure place that says so.

A document is a message as the store keeps it: the contract's fields with `_id` for `id`, and what the
projection itself needs. Its parts that events change are two, and each remembers which event it is from:
the state (`state_seq`) and the feedback (`feedback_seq`). A part takes a change only from a later event, so
that events may come in any order, twice, or in pieces, and give the same document.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from goatherd.contracts.chat import Event, EventType, Message, MessageStatus

Document = dict[str, Any]
Part = Literal["state", "feedback"]

UNFINISHED = (MessageStatus.QUEUED, MessageStatus.IN_PROGRESS)

_ENDS = {
    EventType.MESSAGE_COMPLETED: MessageStatus.COMPLETED,
    EventType.MESSAGE_FAILED: MessageStatus.FAILED,
    EventType.MESSAGE_CANCELLED: MessageStatus.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Change:
    """What one event does to one part of a message that is there already."""

    session: str
    message: str
    seq: int
    at: datetime
    part: Part
    fields: Document
    only_if_queued: bool = False

    @property
    def clock(self) -> str:
        """The field with the number of the event that the part is from."""
        return f"{self.part}_seq"

    @property
    def finishes(self) -> bool:
        return self.part == "state" and self.fields["status"] not in UNFINISHED


def created(event: Event) -> Document | None:
    """The document that the event creates; `None` if it creates none."""
    if event.type is not EventType.MESSAGE_CREATED:
        return None
    document: Document = dict(event.data["message"])
    document["_id"] = document.pop("id")
    for name in ("created_at", "updated_at"):
        if isinstance(document[name], str):
            document[name] = datetime.fromisoformat(document[name])
    document["state_seq"] = document["feedback_seq"] = event.seq
    if document["status"] in UNFINISHED:
        document["unfinished"] = True
    return document


def change(event: Event) -> Change | None:
    """What the event does to its message; `None` if it creates it or leaves messages alone."""
    if event.message is None:
        return None
    fields: Document
    part: Part = "state"
    if event.type in _ENDS:
        fields = {
            "status": _ENDS[event.type].value,
            "finish_reason": event.data.get("finish_reason"),
            "usage": event.data.get("usage"),
            "error": event.data.get("error"),
        }
        if "content" in event.data:
            fields["content"] = event.data["content"]
    elif event.type is EventType.MESSAGE_DELETED:
        # All of the state, so that a later event never mixes with what an earlier one had set.
        fields = {
            "status": MessageStatus.DELETED.value,
            "content": "",
            "finish_reason": None,
            "usage": None,
            "error": None,
        }
    elif event.type is EventType.RUN_STARTED:
        fields = {"status": MessageStatus.IN_PROGRESS.value}
    elif event.type is EventType.MESSAGE_UPDATED:
        part, fields = "feedback", {"feedback": event.data.get("feedback")}
    else:
        return None
    return Change(
        session=event.session,
        message=event.message,
        seq=event.seq,
        at=event.ts,
        part=part,
        fields=fields,
        only_if_queued=event.type is EventType.RUN_STARTED,
    )


def applies(document: Document, change: Change) -> bool:
    """Whether the document has not had this change, or a later one of the same part."""
    if change.only_if_queued and document["status"] != MessageStatus.QUEUED:
        return False
    return bool(document[change.clock] < change.seq)


def apply(document: Document, change: Change) -> Document:
    """The document after the change: itself if it does not apply."""
    if not applies(document, change):
        return document
    changed = {**document, **change.fields, change.clock: change.seq}
    changed["version"] = max(document["version"], change.seq)
    changed["updated_at"] = max(document["updated_at"], change.at)
    if change.finishes:
        changed.pop("unfinished", None)
    return changed


def latest(changes: Iterable[Change]) -> list[Change]:
    """Those of one message's changes that are not overtaken by a later one of the same part."""
    kept: dict[Part, Change] = {}
    for item in sorted(changes, key=lambda one: one.seq):
        if not (item.only_if_queued and item.part in kept):
            kept[item.part] = item
    return list(kept.values())


def fold(events: Sequence[Event]) -> Document | None:
    """The document that one message's events make, in whatever order; `None` without the creating one."""
    document = next((one for event in events if (one := created(event)) is not None), None)
    if document is not None:
        for item in latest(found for event in events if (found := change(event)) is not None):
            document = apply(document, item)
    return document


def to_message(document: Document) -> Message:
    """The contract's view of a document."""
    return Message.model_validate({**document, "id": document["_id"]})
