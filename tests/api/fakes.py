"""Chats in memory, behind the same methods as `ChatService` and the ports, with faults to order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from activities.ports import FeedItem, KeyClaim, Page, StoredAnswer, WorkerStatus
from goatherd.contracts.chat import (
    Delta,
    Event,
    Feedback,
    Message,
    MessageStatus,
    PostMessage,
    Regenerate,
    Session,
    StartSession,
)
from goatherd.errors import Conflict, Invalid, ModelNotFound, NotFound, SessionEnded, Unavailable
from goatherd.security.access import Principal, require
from goatherd.settings import Settings


def paged(items: Sequence[Any], page: Page, key: Any) -> list[Any]:
    """What the port says: strictly after or before a position, in an order; before is what is next to it."""
    ordered = sorted(items, key=key, reverse=page.descending)

    def past(item: Any, position: Any) -> bool:
        return bool(key(item) < position if page.descending else key(item) > position)

    if page.after is not None:
        ordered = [item for item in ordered if past(item, page.after)]
    if page.before is not None:
        ordered = [item for item in ordered if key(item) != page.before and not past(item, page.before)]
        return ordered[-page.limit :] if page.after is None else ordered[: page.limit]
    return ordered[: page.limit]


class FakeStore:
    """The read side: what routes ask the store itself."""

    def __init__(self) -> None:
        self.chats: dict[str, Session] = {}
        self.texts: dict[str, dict[str, Message]] = {}
        self.down: Exception | None = None
        self.hangs = False

    async def ping(self) -> None:
        if self.hangs:
            await asyncio.sleep(60)
        if self.down is not None:
            raise self.down

    async def session(self, session: str) -> Session | None:
        return self.chats.get(session)

    async def last_seq(self, session: str) -> int:
        return max((message.version for message in self.texts[session].values()), default=0)

    async def unfinished(self, session: str) -> list[Message]:
        return [one for one in self.texts[session].values() if one.status in ("queued", "in_progress")]

    async def message(self, session: str, message: str) -> Message | None:
        return self.texts.get(session, {}).get(message)

    async def messages(self, session: str, page: Page) -> list[Message]:
        return paged(list(self.texts[session].values()), page, lambda message: message.seq)

    async def events(self, session: str, *, after: int, limit: int) -> list[Event]:
        return []

    async def deltas(self, message: str) -> list[Delta]:
        return []

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[FeedItem]]:
        async def nothing() -> AsyncIterator[FeedItem]:
            await asyncio.Event().wait()
            yield  # type: ignore[misc]

        yield nothing()


class FakeService:
    """`ChatService` without Temporal. Replies stay queued until `finish`."""

    def __init__(self, store: FakeStore, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.fault: Exception | None = None
        self.posts = 0
        self.gate: asyncio.Event | None = None

    async def _begin(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault

    def _model(self, name: str | None) -> str:
        name = name or self.settings.model
        if name not in self.settings.models:
            raise ModelNotFound(f"There is no model {name!r}.", pointer="/model")
        return name

    async def create(self, principal: Principal, session_id: str, start: StartSession) -> Session:
        await self._begin()
        start = start.model_copy(update={"owner": principal.id, "model": self._model(start.model)})
        session = start.document(session_id, now=datetime.now(UTC), model=self.settings.model)
        self.store.texts.setdefault(session_id, {})
        return self.store.chats.setdefault(session_id, session)

    async def session(self, principal: Principal, session_id: str) -> Session:
        if self.fault is not None:
            raise self.fault
        return require(principal, self.store.chats.get(session_id), f"session {session_id!r}")

    async def sessions(
        self, principal: Principal, page: Page, *, status: str | None, label: str | None
    ) -> list[Session]:
        mine = [
            one
            for one in self.store.chats.values()
            if one.owner == principal.id
            and (status is None or one.status == status)
            and (label is None or label in one.labels)
        ]
        return paged(mine, page, lambda session: session.id)

    async def end(self, principal: Principal, session_id: str) -> None:
        session = await self.session(principal, session_id)
        self.store.chats[session_id] = session.model_copy(update={"status": "ended", "end_reason": "deleted"})

    async def fork(
        self, principal: Principal, session_id: str, message_id: str | None, new_id: str, title: str | None
    ) -> Session:
        source = await self.session(principal, session_id)
        if message_id is not None:
            await self.message(principal, session_id, message_id)
        elif not self.store.texts[session_id]:
            raise Conflict("There is nothing to fork yet.", code="empty-session")
        forked = source.model_copy(update={"id": new_id, "title": title or source.title})
        self.store.texts.setdefault(new_id, {})
        return self.store.chats.setdefault(new_id, forked)

    async def authorize(self, principal: Principal, session_id: str) -> None:
        await self.session(principal, session_id)

    async def message(self, principal: Principal, session_id: str, message_id: str) -> Message:
        await self.session(principal, session_id)
        message = await self.store.message(session_id, message_id)
        if message is None:
            raise NotFound(f"There is no message {message_id!r} in session {session_id!r}.")
        return message

    async def messages(self, principal: Principal, session_id: str, page: Page) -> list[Message]:
        await self.authorize(principal, session_id)
        return await self.store.messages(session_id, page)

    async def post(
        self, principal: Principal, session_id: str, message: PostMessage, *, repeated: bool = False
    ) -> tuple[Message, Message | None]:
        await self._begin()
        await self._open(principal, session_id)
        if message.model is not None:
            self._model(message.model)
        texts = self.store.texts[session_id]
        if message.parent is not None and message.parent not in texts:
            raise Invalid(f"There is no message {message.parent!r}.", pointer="/parent_id")
        self.posts += 1
        assert message.id is not None
        assert message.reply_id is not None
        if message.id not in texts:
            self._put(session_id, message.id, message.role, message.content, MessageStatus.COMPLETED)
        wants = message.reply if message.reply is not None else message.role == "user"
        reply = self._reply(session_id, message.id, message.reply_id) if wants else None
        return texts[message.id], reply

    async def regenerate(
        self, principal: Principal, session_id: str, message_id: str, order: Regenerate
    ) -> Message:
        await self._begin()
        await self._open(principal, session_id)
        await self.message(principal, session_id, message_id)
        if order.model is not None:
            self._model(order.model)
        assert order.reply_id is not None
        return self._reply(session_id, message_id, order.reply_id)

    async def delete(self, principal: Principal, session_id: str, message_id: str) -> None:
        message = await self.message(principal, session_id, message_id)
        await self._open(principal, session_id)
        update = {"status": MessageStatus.DELETED, "content": "", "version": message.version + 1}
        self.store.texts[session_id][message_id] = message.model_copy(update=update)

    async def cancel(self, principal: Principal, session_id: str, message_id: str) -> None:
        message = await self.message(principal, session_id, message_id)
        if message.status not in (MessageStatus.QUEUED, MessageStatus.IN_PROGRESS):
            raise Conflict(f"The message is {message.status.value} already.", code="message-finished")
        update = {"status": MessageStatus.CANCELLED, "version": message.version + 1}
        self.store.texts[session_id][message_id] = message.model_copy(update=update)

    async def give_feedback(
        self, principal: Principal, session_id: str, message_id: str, feedback: Feedback
    ) -> Message:
        message = await self.message(principal, session_id, message_id)
        await self._open(principal, session_id)
        if message.status is MessageStatus.DELETED:
            raise Conflict("The message is deleted.", code="message-deleted")
        rated = message.model_copy(update={"feedback": feedback})
        self.store.texts[session_id][message_id] = rated
        return rated

    def finish(self, session_id: str, message_id: str, text: str) -> None:
        message = self.store.texts[session_id][message_id]
        update = {"status": MessageStatus.COMPLETED, "content": text, "version": message.version + 1}
        self.store.texts[session_id][message_id] = message.model_copy(update=update)

    async def _open(self, principal: Principal, session_id: str) -> None:
        if (await self.session(principal, session_id)).status == "ended":
            raise SessionEnded(f"Session {session_id!r} has ended.")

    def _reply(self, session_id: str, parent: str, reply_id: str) -> Message:
        known = self.store.texts[session_id].get(reply_id)
        return known or self._put(session_id, reply_id, "assistant", "", MessageStatus.QUEUED, parent)

    def _put(
        self,
        session: str,
        message: str,
        role: str,
        content: str,
        status: MessageStatus,
        parent: str | None = None,
    ) -> Message:
        texts = self.store.texts[session]
        seq = max((one.version for one in texts.values()), default=0) + 1
        now = datetime.now(UTC)
        texts[message] = Message.model_validate(
            {
                "id": message,
                "session": session,
                "seq": seq,
                "version": seq,
                "role": role,
                "content": content,
                "status": status,
                "parent": parent,
                "created_at": now,
                "updated_at": now,
            }
        )
        return texts[message]


class FakeKeys:
    """`IdempotencyStore` in memory."""

    def __init__(self) -> None:
        self.claims: dict[str, tuple[str, KeyClaim]] = {}
        self.answers: dict[str, StoredAnswer] = {}
        self.expired = False
        self.released: set[str] = set()
        self.settle_fails = False

    async def claim(self, key: str, body_hash: str, *, lease_s: float) -> KeyClaim:
        if key not in self.claims:
            claim = KeyClaim("fresh", f"seed{len(self.claims)}", 1_700_000_000_000)
            self.claims[key] = (body_hash, claim)
            return claim
        known_hash, claim = self.claims[key]
        if known_hash != body_hash:
            return KeyClaim("mismatch")
        if key in self.answers:
            return KeyClaim("done", answer=self.answers[key])
        if self.expired or key in self.released:
            self.released.discard(key)
            return claim
        return KeyClaim("running")

    async def settle(self, key: str, answer: StoredAnswer) -> None:
        if self.settle_fails:
            raise Unavailable("The store is down.")
        self.answers[key] = answer

    async def release(self, key: str) -> None:
        self.released.add(key)


class FakeWorkers:
    """`WorkerRegistry` with a fixed answer."""

    def __init__(self, *found: WorkerStatus) -> None:
        self.found = list(found)

    async def report(self, status: WorkerStatus) -> None:
        self.found.append(status)

    async def sign_off(self, identity: str) -> None:
        self.found = [one for one in self.found if one.identity != identity]

    async def alive(self, *, within_s: float) -> list[WorkerStatus]:
        return self.found


class FakeTemporal:
    """As much of a Temporal client as the readiness check and the word to ingestions ask for."""

    def __init__(self) -> None:
        self.healthy = True
        self.service_client = self
        self.namespace = "default"
        self.started: list[tuple[str, str | None, Any]] = []
        """Workflows by their ids, with the signal and the argument that each was started with."""
        self.fault: Exception | None = None

    async def start_workflow(self, _: str, arg: Any, *, id: str, **given: Any) -> None:
        if self.fault is not None:
            raise self.fault
        self.started.append((id, given.get("start_signal"), arg))

    async def check_health(self, **_: object) -> bool:
        return self.healthy
