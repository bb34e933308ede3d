"""What the chat routes do: check who asks, ask the session's actor, and write its answer to the store.

A write is answered only when it is durable in the actor and readable in the store. Reads come from the
store and never touch a workflow.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TypeVar

from temporalio.client import Client
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
)

from activities.ports import ChatStore, Page
from activities.reconcile import end_read_side, end_reason, end_reset_run
from api.asking import ask_until_there
from api.flusher import Flusher
from api.model_registry import ModelRegistry
from api.recent import Recent
from goatherd.actors import ActorStopped
from goatherd.actors.durable import ActorSystem
from goatherd.contracts.chat import (
    CancelMessage,
    Changed,
    DeleteMessage,
    EndSession,
    Feedback,
    GiveFeedback,
    Handed,
    HandOver,
    Message,
    MessageStatus,
    Posted,
    PostMessage,
    Ready,
    Regenerate,
    Session,
    StartSession,
)
from goatherd.contracts.queues import Pool
from goatherd.contracts.request import Request
from goatherd.errors import (
    ClientIdReused,
    Conflict,
    DeadlineExceeded,
    Invalid,
    LookUp,
    ModelNotFound,
    NotFound,
    SessionEnded,
)
from goatherd.security.access import Principal, require
from goatherd.settings import Settings
from goatherd.temporal import OWNER, STATUS
from workflows.chat import ChatSession

_FORK_TIMEOUT_S = 60.0
# A write to the store waits for others only while this many asks are under way, and so long for each.
_SIBLINGS = 4
_LINGER_S = 0.0007
_LINGER_MOST_S = 0.02

Answer = TypeVar("Answer")


class ChatService:
    """One a process. Sessions, messages and events as their owners may see and change them."""

    def __init__(self, client: Client, store: ChatStore, settings: Settings, models: ModelRegistry) -> None:
        self.store = store
        self._models = models
        self._client = client
        self._actors = ActorSystem(client, task_queue=settings.task_queue(Pool.ACTORS))
        self._settings = settings
        self._flusher = Flusher(store.append, self._hand_over, linger=self._linger)
        self._asking = 0
        self._owners: Recent[str] = Recent()

    # -- sessions

    async def create(self, principal: Principal, session_id: str, start: StartSession) -> Session:
        """Starts a session; the same id again gives the same session."""
        start = start.model_copy(
            update={
                "owner": principal.id,
                "model": self._model(start.model),
                "stored": start.fork is None,
                "task_queue_prefix": self._settings.task_queue_prefix,
                "posts_per_run": self._settings.session_max_posts_per_run,
            }
        )
        session = start.document(session_id, now=datetime.now(UTC), model=self._settings.model)
        start = start.model_copy(update={"created_at": session.created_at})
        try:
            async with asyncio.timeout(self._settings.ask_timeout_s):
                await self._actors.entity(ChatSession, session_id).start(
                    start,
                    summary=(start.title or "Chat")[:200],
                    search_attributes=TypedSearchAttributes(
                        [SearchAttributePair(OWNER, principal.id), SearchAttributePair(STATUS, "active")]
                    ),
                )
        except ActorStopped as error:
            raise SessionEnded(f"Session {session_id!r} exists and has ended.") from error
        except TimeoutError as error:
            raise DeadlineExceeded("Temporal did not start the session in time. Try again.") from error
        if start.fork is None:
            await self.store.put_session(session)
        else:
            await self._ask(session_id, Ready(), timeout_s=_FORK_TIMEOUT_S)
        self._owners.put(session_id, principal.id)
        return session

    async def session(self, principal: Principal, session_id: str) -> Session:
        return require(principal, await self.store.session(session_id), f"session {session_id!r}")

    async def sessions(
        self, principal: Principal, page: Page, *, status: str | None, label: str | None
    ) -> list[Session]:
        return await self.store.sessions(principal.id, page, status=status, label=label)

    async def end(self, principal: Principal, session_id: str) -> None:
        """Ends a session; one that has ended already stays so."""
        session = await self.session(principal, session_id)
        if session.status == "ended":
            return
        try:
            changed = await self._ask(session_id, EndSession())
        except SessionEnded:
            return
        await self._take(session_id, changed)

    async def fork(
        self, principal: Principal, session_id: str, message_id: str | None, new_id: str, title: str | None
    ) -> Session:
        """A new session that starts with this one's messages up to `message_id` (default: the newest)."""
        source = await self.session(principal, session_id)
        if message_id is None:
            newest = await self.store.messages(session_id, Page(limit=1, descending=True))
            if not newest:
                raise Conflict(
                    "There is nothing to fork yet: the session has no messages.", code="empty-session"
                )
            message_id = newest[0].id
        await self.message(principal, session_id, message_id)
        start = StartSession.model_validate(
            {
                "title": title if title is not None else source.title,
                "agent": source.agent,
                "model": source.model if self._models.talks(source.model) else None,
                "system": source.system,
                "labels": source.labels,
                "metadata": source.metadata,
                "generation": source.generation,
                "fork": {"session": session_id, "message": message_id},
            }
        )
        await self.create(principal, new_id, start)
        return await self.session(principal, new_id)

    # -- messages

    async def message(self, principal: Principal, session_id: str, message_id: str) -> Message:
        """One message; of a reply in progress, what there is of it so far."""
        await self.authorize(principal, session_id)
        message = await self.store.message(session_id, message_id)
        if message is None:
            raise NotFound(f"There is no message {message_id!r} in session {session_id!r}.")
        return await self.with_progress(message)

    async def messages(self, principal: Principal, session_id: str, page: Page) -> list[Message]:
        await self.authorize(principal, session_id)
        return [await self.with_progress(message) for message in await self.store.messages(session_id, page)]

    async def with_progress(self, message: Message) -> Message:
        if message.status is not MessageStatus.IN_PROGRESS:
            return message
        text = "".join(delta.text for delta in await self.store.deltas(message.id))
        return message.model_copy(update={"content": text})

    async def post(
        self, principal: Principal, session_id: str, message: PostMessage, *, repeated: bool = False
    ) -> tuple[Message, Message | None]:
        """Adds a message. Gives it as stored, and the reply that is coming, if one is.

        `repeated`: it may have been posted so long ago that the actor has forgotten, but not the store.
        """
        await self.authorize(principal, session_id)
        if repeated and message.id is not None:
            known = await self.store.message(session_id, message.id)
            if known is not None:
                return known, await self.store.reply_to(session_id, known.id)
        if message.model is not None:
            self._model(message.model)
        if message.parent is not None and await self.store.message(session_id, message.parent) is None:
            raise Invalid(f"There is no message {message.parent!r} in this session.", pointer="/parent_id")
        seq, event = self._flusher.written(session_id)
        flusher = self._flusher.id(session_id)
        message = message.model_copy(update={"flushed": seq, "flushed_event": event, "flusher": flusher})
        try:
            posted = await self._ask(session_id, message, ask_id=message.id)
        except LookUp:
            assert message.client_id is not None
            known = await self.store.message_by_client_id(session_id, message.client_id)
            if known is not None:
                if known.content != message.content and known.status is not MessageStatus.DELETED:
                    raise ClientIdReused(
                        "The client_id came with another content before. Use a new one."
                    ) from None
                return known, await self.store.reply_to(session_id, known.id)
            message = message.model_copy(update={"looked_up": True})
            posted = await self._ask(session_id, message)
        return await self._posted(session_id, posted)

    async def regenerate(
        self, principal: Principal, session_id: str, message_id: str, order: Regenerate
    ) -> Message:
        """Another reply beside `message_id` (a reply), or to it (any other message)."""
        message = await self.message(principal, session_id, message_id)
        parent = message.parent if message.role == "assistant" and message.parent else message.id
        if order.model is not None:
            self._model(order.model)
        order = order.model_copy(update={"parent": parent, "flusher": self._flusher.id(session_id)})
        posted = await self._ask(session_id, order, ask_id=order.reply_id)
        _, reply = await self._posted(session_id, posted)
        if reply is None:
            raise Conflict("The reply is gone.")
        return reply

    async def delete(self, principal: Principal, session_id: str, message_id: str) -> None:
        """A tombstone, or, for a reply that is not finished, its end."""
        message = await self.message(principal, session_id, message_id)
        if message.status is not MessageStatus.DELETED:
            order = DeleteMessage(message=message_id, flusher=self._flusher.id(session_id))
            changed = await self._ask(session_id, order)
            await self._take(session_id, changed)

    async def cancel(self, principal: Principal, session_id: str, message_id: str) -> None:
        """Stops a reply that is queued or in progress; what there is of it stays. Again is fine."""
        message = await self.message(principal, session_id, message_id)
        if message.status is MessageStatus.CANCELLED:
            return
        if message.status not in (MessageStatus.QUEUED, MessageStatus.IN_PROGRESS):
            raise Conflict(f"The message is {message.status.value} already.", code="message-finished")
        order = CancelMessage(message=message_id, flusher=self._flusher.id(session_id))
        changed = await self._ask(session_id, order)
        await self._take(session_id, changed)

    async def give_feedback(
        self, principal: Principal, session_id: str, message_id: str, feedback: Feedback
    ) -> Message:
        message = await self.message(principal, session_id, message_id)
        if message.status is MessageStatus.DELETED:
            raise Conflict("The message is deleted.", code="message-deleted")
        order = GiveFeedback(message=message_id, feedback=feedback, flusher=self._flusher.id(session_id))
        changed = await self._ask(session_id, order)
        await self._take(session_id, changed)
        return await self.message(principal, session_id, message_id)

    async def authorize(self, principal: Principal, session_id: str) -> None:
        """Raises `NotFound` unless the session is the principal's. Owners never change, so they are kept."""
        owner = self._owners.get(session_id)
        if owner is None:
            session = await self.store.session(session_id)
            require(principal, session, f"session {session_id!r}")
            assert session is not None
            self._owners.put(session_id, session.owner)
        elif owner != principal.id:
            require(principal, None, f"session {session_id!r}")

    # -- the way to the actor and to the store

    async def _posted(self, session_id: str, posted: Posted) -> tuple[Message, Message | None]:
        await self._take(session_id, posted)
        fresh = {
            event.message: Message.model_validate(event.data["message"])
            for event in posted.events
            if event.type == "message.created"
        }

        async def find(message_id: str) -> Message:
            message = None if posted.duplicate else fresh.get(message_id)
            message = message or await self.store.message(session_id, message_id)
            if message is None:
                raise NotFound(f"There is no message {message_id!r} in session {session_id!r}.")
            return await self.with_progress(message)

        return await find(posted.message), await find(posted.reply) if posted.reply else None

    async def _ask(
        self,
        session_id: str,
        message: Request[Answer],
        *,
        timeout_s: float | None = None,
        ask_id: str | None = None,
    ) -> Answer:
        entity = self._actors.entity(ChatSession, session_id)
        timeout_s = timeout_s or self._settings.ask_timeout_s
        self._asking += 1
        try:
            return await ask_until_there(
                type(message).__name__,
                lambda: entity.ask(message, id=ask_id, timeout_s=timeout_s),
                lambda: self._check_gone(session_id),
                actor=f"Session {session_id!r}",
            )
        finally:
            self._asking -= 1

    async def _check_gone(self, session_id: str) -> None:
        """Returns if the actor was just between two runs. Raises `SessionEnded` if it has ended."""
        reason = await end_reason(self._client, session_id)
        if reason is not None:
            await end_read_side(self.store, session_id, reason)
            raise SessionEnded(f"Session {session_id!r} has ended. Fork it to go on.")

    async def _hand_over(self, session_id: str, order: HandOver) -> Changed:
        return await self._ask(session_id, order)

    async def _take(self, session_id: str, handed: Handed) -> None:
        """Returns when what an answer says is in the store."""
        if await self._flusher.take(session_id, handed):
            # The numbers are taken: this run's past is not what readers have seen, so it was reset.
            await end_reset_run(self._client, session_id)
            await end_read_side(self.store, session_id, "reset")
            raise SessionEnded(
                f"Session {session_id!r} was reset by an operator, which ends it. Fork it to go on."
            )

    def _linger(self) -> float:
        """Answers of other asks are about to come: a moment's wait makes one write of several."""
        return min(_LINGER_MOST_S, _LINGER_S * self._asking) if self._asking >= _SIBLINGS else 0

    def _model(self, name: str | None) -> str:
        name = name or self._settings.model
        if not self._models.talks(name):
            known = ", ".join(
                entry.name for entry in self._models.entries() if self._models.talks(entry.name)
            )
            raise ModelNotFound(
                f"There is no model {name!r} that talks. There are: {known}.", pointer="/model"
            )
        return name
