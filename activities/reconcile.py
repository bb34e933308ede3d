"""Brings the read side in line with an actor whose workflow is gone; here a session, and what all share.

An operator may terminate, cancel or reset a workflow, or Temporal's data may be lost. The session is then
ended for its readers: replies that nobody makes any more are failed, and `session.ended` closes the
sequence. Everything here may run many times and in many processes at once, and counts once.

A reset undoes what readers have seen, so a reset session is ended too: fork it to go on from any message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from activities.ports import ChatStore
from goatherd.contracts.chat import Delta, Event, EventType, Failure, Message, Session
from goatherd.contracts.ids import derived_id
from goatherd.contracts.model import Json
from goatherd.errors import Fenced
from goatherd.telemetry import get_logger
from goatherd.temporal import is_gone, translate

_REASONS = {
    WorkflowExecutionStatus.TERMINATED: "terminated",
    WorkflowExecutionStatus.CANCELED: "cancelled",
    WorkflowExecutionStatus.FAILED: "failed",
    WorkflowExecutionStatus.TIMED_OUT: "timed-out",
}
_ROUNDS = 20
_RPC_TIMEOUT = timedelta(seconds=5)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """Why a workflow is closed. `outcome`: its result, if it has ended by itself."""

    reason: str
    outcome: Json | None = None


class ReadSide(Protocol):
    """What the store has of one type of workflow, whose ids are the documents'."""

    workflow_type: str
    document: type[Any]
    """What the query `Document` gives."""
    grace: timedelta
    """So long after a workflow has closed, others may still be writing what it did."""

    async def open(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that the store has and that have not ended there."""

    async def has(self, id: str) -> bool: ...

    async def put(self, document: Any) -> None: ...

    async def end(self, id: str, ended: Ended) -> None: ...


class SessionReadSide:
    """`ReadSide` of sessions."""

    workflow_type = "ChatSession"
    document = Session
    grace = timedelta(0)

    def __init__(self, store: ChatStore) -> None:
        self._store = store

    async def open(self, ids: Sequence[str]) -> list[str]:
        return await self._store.active_sessions(ids)

    async def has(self, id: str) -> bool:
        return await self._store.session(id) is not None

    async def put(self, document: Session) -> None:
        await self._store.put_session(document)

    async def end(self, id: str, ended: Ended) -> None:
        await end_read_side(self._store, id, ended.reason)


async def end_reason(client: Client, session: str) -> str | None:
    """`how_ended`, without the rest."""
    ended = await how_ended(client, session)
    return None if ended is None else ended.reason


async def how_ended(client: Client, workflow: str) -> Ended | None:
    """Why the workflow is closed, or None if it is running.

    Raises `Unavailable` if Temporal can't say.
    """
    handle = client.get_workflow_handle(workflow, result_type=dict[str, Any])
    try:
        description = await handle.describe(rpc_timeout=_RPC_TIMEOUT)
        if description.status is WorkflowExecutionStatus.COMPLETED:
            outcome: Json = await handle.result()
            return Ended(outcome.get("reason") or "closed", outcome)
    except RPCError as error:
        if is_gone(error):
            return Ended("lost")
        raise translate(error) from error
    if description.status in (
        WorkflowExecutionStatus.RUNNING,
        WorkflowExecutionStatus.CONTINUED_AS_NEW,
        None,
    ):
        return None
    return Ended(_REASONS.get(description.status, "closed"))


async def end_reset_run(client: Client, workflow: str) -> None:
    """Terminates the run that a reset has made, if it runs."""
    try:
        await client.get_workflow_handle(workflow).terminate(
            "Goatherd ends an actor that was reset: its readers have seen what the reset undid.",
            rpc_timeout=_RPC_TIMEOUT,
        )
    except RPCError as error:
        if not is_gone(error):
            raise translate(error) from error


async def end_read_side(store: ChatStore, session: str, reason: str) -> None:
    """Ends the session in the store, if it has not ended there."""
    for _ in range(_ROUNDS):
        stored = await store.session(session)
        if stored is None or stored.status == "ended":
            return
        last = await store.last_seq(session)
        newest = await store.events(session, after=last - 1, limit=1) if last else []
        if newest and newest[-1].type is EventType.SESSION_ENDED:
            # Its document has not followed yet, or whoever wrote it died: it counts all the same.
            await store.append(newest)
            return
        events = _closing(session, last, await _left_over(store, session), reason)
        taken = await store.append(events)
        if not taken:
            log.warning("session ended from outside", session=session, reason=reason)
            return
        # Somebody appended at the same time (a late flush, or the same reconciliation elsewhere): look again.
    log.error("could not end the read side of a session", session=session)


async def _left_over(store: ChatStore, session: str) -> Sequence[tuple[Message, str]]:
    left = []
    for message in await store.unfinished(session):
        left.append((message, await _cut_off(store, session, message.id)))
    return left


async def _cut_off(store: ChatStore, session: str, message: str) -> str:
    """What there is of a reply that is being written, and will stay all: whoever writes it has not heard yet
    that the session ended, and finds the next piece taken, by an empty one."""
    while True:
        deltas = await store.deltas(message)
        text = "".join(delta.text for delta in deltas)
        end = Delta(
            session=session,
            message=message,
            n=len(deltas),
            offset=len(text),
            text="",
            ts=datetime.now(UTC),
        )
        try:
            await store.put_delta(end)
        except Fenced:
            continue
        return text


def _closing(session: str, last: int, left: Sequence[tuple[Message, str]], reason: str) -> list[Event]:
    now = datetime.now(UTC)
    millis = int(now.timestamp() * 1000)
    events: list[Event] = []

    def add(kind: EventType, message: Message | None, data: dict[str, object]) -> None:
        seq = last + 1 + len(events)
        events.append(
            Event(
                seq=seq,
                id=derived_id("evt", session, str(seq), kind.value, str(millis), millis=millis),
                type=kind,
                session=session,
                message=message.id if message else None,
                parent=message.parent if message else None,
                ts=now,
                data=data,
            )
        )

    error = Failure(code="session-ended", message=f"The session ended ({reason}) before the reply was done.")
    for message, text in left:
        add(EventType.MESSAGE_FAILED, message, {"content": text, "error": error.model_dump()})
    add(EventType.SESSION_ENDED, None, {"reason": reason})
    return events
