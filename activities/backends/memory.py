"""The store ports in memory: fakes for tests, under the same contract tests as the real ones.

Nothing awaits in the middle of a change, so that each call is atomic for other tasks of the same loop.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from activities.backends import projection
from activities.backends.memory_feed import Watchers
from activities.backends.projection import UNFINISHED, Document, to_message
from activities.ports import FeedItem, KeyClaim, Page, Resync, StoredAnswer, WorkerStatus
from goatherd.contracts.chat import Delta, Ephemeral, Event, EventType, Message, Session
from goatherd.errors import Fenced

Item = TypeVar("Item")

_KEYS_LIVE = timedelta(hours=24)


def utc_now() -> datetime:
    return datetime.now(UTC)


class MemoryChatStore:
    """`ChatStore` in memory. What passes by (deltas) is kept until the store goes."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._events: defaultdict[str, dict[int, Event]] = defaultdict(dict)
        self._of_message: defaultdict[str, list[Event]] = defaultdict(list)
        self._messages: dict[str, Document] = {}
        self._deltas: defaultdict[str, dict[int, Delta]] = defaultdict(dict)
        self._watchers: Watchers[FeedItem] = Watchers()

    async def prepare(self) -> None:
        pass

    async def ping(self) -> None:
        pass

    # -- written

    async def put_session(self, session: Session) -> None:
        self._sessions.setdefault(session.id, session)
        self._end_sessions(self._events[session.id].values())

    async def append(self, events: Sequence[Event]) -> set[int]:
        taken: set[int] = set()
        other_past: dict[str, int] = {}
        for index, event in sorted(enumerate(events), key=lambda pair: pair[1].seq):
            stored = self._events[event.session].get(event.seq)
            if event.seq > other_past.get(event.session, event.seq):
                taken.add(index)
            elif stored is None:
                self._keep(event)
            elif stored.id != event.id:
                taken.add(index)
                other_past.setdefault(event.session, event.seq)
        return taken

    def _keep(self, event: Event) -> None:
        self._events[event.session][event.seq] = event
        if event.message is not None:
            self._of_message[event.message].append(event)
            document = projection.fold(self._of_message[event.message])
            if document is not None:
                self._messages[event.message] = document
        self._end_sessions([event])
        self._show(event)

    def _end_sessions(self, events: Iterable[Event]) -> None:
        for event in events:
            session = self._sessions.get(event.session)
            if event.type is EventType.SESSION_ENDED and session is not None and session.status == "active":
                self._sessions[session.id] = session.model_copy(
                    update={"status": "ended", "end_reason": event.data.get("reason"), "ended_at": event.ts}
                )

    async def put_delta(self, delta: Delta) -> None:
        if delta.n in self._deltas[delta.message]:
            raise Fenced(f"piece {delta.n} of message {delta.message!r} is another writer's")
        self._deltas[delta.message][delta.n] = delta
        self._show(delta)

    async def publish(self, ephemeral: Ephemeral) -> None:
        self._show(ephemeral)

    # -- read

    async def session(self, session: str) -> Session | None:
        return self._sessions.get(session)

    async def sessions(
        self, owner: str, page: Page, *, status: str | None = None, label: str | None = None
    ) -> list[Session]:
        found = [
            session
            for session in self._sessions.values()
            if session.owner == owner
            and (status is None or session.status == status)
            and (label is None or label in session.labels)
        ]
        return page_of(found, page, lambda session: session.id)

    async def active_sessions(self, ids: Sequence[str]) -> list[str]:
        return [one for one in ids if one in self._sessions and self._sessions[one].status == "active"]

    async def last_seq(self, session: str) -> int:
        return max(self._events[session], default=0)

    async def message(self, session: str, message: str) -> Message | None:
        document = self._messages.get(message)
        return None if document is None or document["session"] != session else to_message(document)

    async def message_by_client_id(self, session: str, client_id: str) -> Message | None:
        found = (message for message in self._of(session) if message.client_id == client_id)
        return next(found, None)

    async def reply_to(self, session: str, message: str) -> Message | None:
        found = (one for one in self._of(session) if one.parent == message and one.role == "assistant")
        return next(found, None)

    async def messages(self, session: str, page: Page) -> list[Message]:
        return page_of(self._of(session), page, lambda message: message.seq)

    async def unfinished(self, session: str) -> list[Message]:
        return [message for message in self._of(session) if message.status in UNFINISHED]

    async def branch(self, session: str, leaf: str, *, limit: int) -> list[Message]:
        branch: list[Message] = []
        message = await self.message(session, leaf)
        while message is not None and len(branch) < limit:
            branch.append(message)
            message = None if message.parent is None else await self.message(session, message.parent)
        return branch[::-1]

    async def events(self, session: str, *, after: int, limit: int) -> list[Event]:
        return [event for seq, event in sorted(self._events[session].items()) if seq > after][:limit]

    async def deltas(self, message: str) -> list[Delta]:
        pieces = self._deltas[message]
        whole = next(n for n in range(len(pieces) + 1) if n not in pieces)
        return [pieces[n] for n in range(whole)]

    def _of(self, session: str) -> list[Message]:
        mine = [document for document in self._messages.values() if document["session"] == session]
        return [to_message(document) for document in sorted(mine, key=lambda one: int(one["seq"]))]

    # -- followed

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[FeedItem]]:
        return self._watchers.watch()

    def _show(self, item: FeedItem) -> None:
        self._watchers.show(item)

    def break_feeds(self) -> None:
        """For tests: every watcher gets a `Resync`, as after an outage that the store can't bridge."""
        self._show(Resync())


def page_of(items: Iterable[Item], page: Page, position: Callable[[Item], str | int]) -> list[Item]:
    """Of what lies between the page's positions, the end next to `after`, else that next to `before`."""
    ordered = sorted(items, key=position, reverse=page.descending)
    places = [position(item) for item in ordered]

    def follows(place: str | int, other: str | int) -> bool:
        low, high = (place, other) if page.descending else (other, place)
        return low < high  # type: ignore[operator]  # one kind each

    left = [
        item
        for place, item in zip(places, ordered, strict=True)
        if (page.after is None or follows(place, page.after))
        and (page.before is None or follows(page.before, place))
    ]
    from_the_end = page.before is not None and page.after is None
    return left[max(len(left) - page.limit, 0) :] if from_the_end else left[: page.limit]


@dataclass
class _Claim:
    body_hash: str
    seed: str
    seed_millis: int
    leased_until: datetime
    at: datetime
    answer: StoredAnswer | None = None


class MemoryIdempotencyStore:
    """`IdempotencyStore` in memory."""

    def __init__(self, *, now: Callable[[], datetime] = utc_now) -> None:
        self._claims: dict[str, _Claim] = {}
        self._now = now

    async def claim(self, key: str, body_hash: str, *, lease_s: float) -> KeyClaim:
        now = self._now()
        leased_until = now + timedelta(seconds=lease_s)
        held = self._claims.get(key)
        if held is None or held.at + _KEYS_LIVE <= now:
            seed, millis = secrets.token_hex(16), int(now.timestamp() * 1000)
            self._claims[key] = _Claim(body_hash, seed, millis, leased_until, now)
            return KeyClaim("fresh", seed, millis)
        if held.body_hash != body_hash:
            return KeyClaim("mismatch")
        if held.answer is not None:
            return KeyClaim("done", answer=held.answer)
        if held.leased_until > now:
            return KeyClaim("running")
        held.leased_until = leased_until
        return KeyClaim("fresh", held.seed, held.seed_millis)

    async def settle(self, key: str, answer: StoredAnswer) -> None:
        held = self._claims.get(key)
        if held is not None and held.answer is None:
            held.answer = answer

    async def release(self, key: str) -> None:
        held = self._claims.get(key)
        if held is not None:
            held.leased_until = self._now()


class MemoryWorkerRegistry:
    """`WorkerRegistry` in memory."""

    def __init__(self, *, now: Callable[[], datetime] = utc_now) -> None:
        self._workers: dict[str, WorkerStatus] = {}
        self._now = now

    async def report(self, status: WorkerStatus) -> None:
        self._workers[status.identity] = replace(status, at=status.at or self._now())

    async def sign_off(self, identity: str) -> None:
        self._workers.pop(identity, None)

    async def alive(self, *, within_s: float) -> list[WorkerStatus]:
        since = self._now() - timedelta(seconds=within_s)
        found = [status for status in self._workers.values() if status.at is not None and status.at >= since]
        return sorted(found, key=lambda status: status.identity)
