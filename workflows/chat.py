"""The durable actor of a chat session: workflow type `ChatSession`, one a session, its id the session's.

By hand: `temporal workflow update execute -w chat_… --name PostMessage --input '{"content":"hi"}'`.
"""

from __future__ import annotations

from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from goatherd.contracts.chat import (
        CancelMessage,
        DeleteMessage,
        EndSession,
        FinishReply,
        GiveFeedback,
        HandOver,
        PostMessage,
        Ready,
        Regenerate,
        Session,
        SessionOutcome,
        SessionState,
        SessionView,
        StartSession,
    )
    from goatherd.temporal import STATUS

from goatherd.actors import Behavior
from goatherd.actors.durable import DurableActor, actor
from workflows.chat_flush import Flushing
from workflows.chat_log import SessionLog
from workflows.chat_session import ChatSessionBehavior
from workflows.chat_turns import Turns


@actor(
    "ChatSession",
    PostMessage,
    Regenerate,
    DeleteMessage,
    CancelMessage,
    GiveFeedback,
    EndSession,
    Ready,
    HandOver,
    FinishReply,
)
class ChatSession(DurableActor[StartSession]):
    """See `workflows/chat_session.py` for what it does; this is how Temporal sees it."""

    idempotent = True
    most_together = 100

    def behavior(self, start: StartSession) -> Behavior[Any]:
        return ChatSessionBehavior(
            start=start,
            log=SessionLog(SessionState(session=workflow.info().workflow_id)),
            turns=Turns(),
            flushing=Flushing(stored=start.stored),
            ready=start.fork is None,
        )

    def asks_per_run(self, start: StartSession) -> int:
        return start.posts_per_run

    def describe(self, behavior: Behavior[Any]) -> str | None:
        chat = _chat(behavior)
        state = "ended" if chat.ended else "replying" if chat.turns else "idle"
        return (
            f"**{state}** · {chat.log.posts} messages posted · {len(chat.turns.queue)} replies to write"
            f" · last seq {chat.log.last_seq} · model `{chat.model}`"
        )

    def show(self, behavior: Behavior[Any]) -> None:
        super().show(behavior)
        attributes = workflow.info().typed_search_attributes
        if _chat(behavior).ended and attributes.get(STATUS) not in (None, "ended"):
            workflow.upsert_search_attributes([STATUS.value_set("ended")])

    def result(self, behavior: Behavior[Any]) -> SessionOutcome:
        chat = _chat(behavior)
        return SessionOutcome(reason=chat.ending or "", last_seq=chat.log.last_seq, posts=chat.log.posts)

    @workflow.query(name="Session")
    def session(self) -> SessionView:
        chat = _chat(self.host.root)
        return SessionView(
            id=chat.log.session,
            status="ended" if chat.ended else "active",
            agent=chat.start.agent,
            model=chat.model,
            last_seq=chat.log.last_seq,
            posts=chat.log.posts,
            replying=chat.turns.written,
            queued=len(chat.turns.queue) - (chat.turns.written is not None),
            unflushed=len(chat.log.unflushed()),
        )

    @workflow.query(name="Document")
    def document(self) -> Session:
        """The session as the store should have it, for when whoever started it could not write it."""
        return _chat(self.host.root).document()


def _chat(behavior: Behavior[Any]) -> ChatSessionBehavior:
    assert isinstance(behavior, ChatSessionBehavior)
    return behavior
