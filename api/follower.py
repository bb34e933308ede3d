"""One client's way along a session: every event once and in order, and of a reply each piece once.

What is live comes from memory, what is missing from the store. The two overlap and may come late, doubled
or out of order, so `seq` and offset decide what is new, never where something came from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from enum import Enum, auto

from activities.ports import ChatStore
from api.following import Following
from api.frames import Cursor, Frame, Wire, ping, wire_form
from api.recent import Recent
from api.subscription import Limits, Subscription
from goatherd.contracts.chat import Delta, Event, EventType, MessageStatus

FINISHING = frozenset(
    {
        EventType.MESSAGE_COMPLETED,
        EventType.MESSAGE_FAILED,
        EventType.MESSAGE_CANCELLED,
        EventType.MESSAGE_DELETED,
    }
)
_UNFINISHED = frozenset({MessageStatus.QUEUED, MessageStatus.IN_PROGRESS})
_SCAN = 500
_PAGE = (4, 256)
_PAGE_BYTES = 1 << 18
_REMEMBERED = 256


class _Phase(Enum):
    """What is next. Each leads to the one below it; `LIVE` goes back to where something is amiss."""

    REPLIES = auto()
    """Find the replies under way that were created before the cursor."""
    EVENTS = auto()
    """Read events until the store has no more, and none is missing before one that we know of."""
    PIECES = auto()
    """Read what there is of the replies under way."""
    LIVE = auto()


class Follower(Following):
    """See `Following`, and the module."""

    def __init__(
        self,
        store: ChatStore,
        subscription: Subscription,
        session: str,
        cursor: Cursor,
        *,
        messages: Collection[str] | None,
        limits: Limits,
    ) -> None:
        super().__init__(subscription, limits, session=session)
        self._store = store
        self._session = session
        self._messages = messages
        self._phase = _Phase.REPLIES
        self._last = cursor.seq
        self._behind = 0
        self._opening = True
        self._page = _PAGE[0] * 4
        # Events to deliver next: from `_last` + 1, without a gap.
        self._backlog: deque[Wire] = deque()
        # Replies that are not finished; those of them that have begun; and how much of each was delivered.
        self._open: set[str] = set()
        self._running: set[str] = set()
        self._seen: dict[str, int] = {}
        self._partial: str | None = None
        self._unknown: str | None = None
        self._closed: Recent[None] = Recent(_REMEMBERED)
        # When a delta's message was looked for in vain.
        self._strange: Recent[float] = Recent(_REMEMBERED)
        if cursor.message is not None and self._wants(cursor.message):
            self._seen[cursor.message] = cursor.offset
            self._partial = cursor.message

    def _begin(self) -> None:
        self._phase = _Phase.REPLIES

    def _ping(self) -> Frame:
        return ping(self._session)

    async def _advance(self) -> None:
        await self._drain()
        if self._out:
            return
        match self._phase:
            case _Phase.REPLIES:
                await self._find_replies()
            case _Phase.EVENTS:
                await self._read_events()
            case _Phase.PIECES:
                await self._read_pieces()
            case _Phase.LIVE:
                await self._live()

    # -- live

    async def _live(self) -> None:
        wire = self._subscription.take()
        if wire is None:
            self._subscription.reading = False
            if not await self._subscription.wait(self._limits.check_s):
                await self._look_for_missed()
            return
        match wire.item:
            case Event(seq=seq) if seq == self._last + 1:
                self._backlog.append(wire)
                await self._drain()
            case Event(seq=seq) if seq > self._last:
                self._behind = max(self._behind, seq)
                self._go_back(_Phase.EVENTS)
            case Delta() as delta:
                self._on_delta(delta, wire)
            case Event():
                pass
            case _:
                self._out.append(Frame(wire))

    async def _look_for_missed(self) -> None:
        if await self._read(self._store.last_seq(self._session)) > self._last:
            self._go_back(_Phase.EVENTS)
        elif self._running:
            self._go_back(_Phase.PIECES)

    def _go_back(self, phase: _Phase) -> None:
        self._phase = phase
        self._subscription.reading = True

    def _on_delta(self, delta: Delta, wire: Wire) -> None:
        if not self._wants(delta.message) or delta.message in self._closed:
            return
        if delta.message not in self._open:
            asked = self._strange.get(delta.message, -self._limits.retry_max_s)
            if self._clock() - asked >= self._limits.retry_max_s:
                self._unknown = delta.message
                self._go_back(_Phase.REPLIES)
            return
        self._running.add(delta.message)
        seen = self._seen.get(delta.message, 0)
        if delta.offset > seen:
            self._go_back(_Phase.PIECES)
        elif delta.offset == seen and delta.text:
            self._emit_delta(delta, wire)
        else:
            self._emit_pieces([delta])

    # -- from the store

    async def _find_replies(self) -> None:
        """A message's document may be a moment behind its events, so those have the last word."""
        unfinished = {
            message.id: message
            for message in await self._read(self._store.unfinished(self._session))
            if message.seq <= self._last and self._wants(message.id) and message.id not in self._closed
        }
        found = set(unfinished) - self._open
        after = min((unfinished[message].seq for message in found), default=self._last)
        while after < self._last:
            events = await self._read(self._store.events(self._session, after=after, limit=_SCAN))
            found -= {event.message for event in events if self._has_finished(event)}
            after = events[-1].seq if events else self._last
        self._open |= found
        self._running |= {
            message for message in found if unfinished[message].status is MessageStatus.IN_PROGRESS
        }
        self._phase = _Phase.EVENTS

    def _has_finished(self, event: Event) -> bool:
        return event.seq <= self._last and event.type in FINISHING

    async def _read_events(self) -> None:
        # At first also the event at the cursor: if that was the session's end, there is nothing to follow.
        after = max(self._last - 1, 0) if self._opening else self._last
        events = await self._read(self._store.events(self._session, after=after, limit=self._page))
        read = len(events)
        if self._opening and events and events[0].seq == self._last:
            self.done = events[0].type is EventType.SESSION_ENDED
            del events[0]
        self._opening = False
        if events:
            self._behind = max(self._behind, events[-1].seq)
        self._backlog.extend(
            wire_form(event) for seq, event in enumerate(events, self._last + 1) if event.seq == seq
        )
        last_page = read < self._page
        self._size_page(sum(len(wire.body) for wire in self._backlog))
        if self._backlog:
            self._retry_s = self._limits.retry_s
            await self._drain()
        elif self._last < self._behind:
            # A number is missing that was given: it is on its way from the actor to the store.
            await self._rest()
        if last_page and self._last >= self._behind:
            self._settle()

    def _size_page(self, last_size: int) -> None:
        least, most = _PAGE
        self._page = min(self._page * 2, most) if last_size < _PAGE_BYTES else max(self._page // 2, least)

    def _settle(self) -> None:
        """All events are delivered: what is not known to be under way now, isn't."""
        if self._partial not in self._open:
            self._partial = None
        if self._unknown is not None:
            if self._unknown in self._open:
                self._running.add(self._unknown)
            else:
                # Its document comes later than its text; or it was finished long ago.
                self._strange.put(self._unknown, self._clock())
            self._unknown = None
        self._phase = _Phase.PIECES

    async def _read_pieces(self) -> None:
        for message in sorted(self._running):
            self._emit_pieces(await self._read(self._store.deltas(message)))
        self._phase = _Phase.LIVE

    # -- delivery

    async def _drain(self) -> None:
        while self._backlog:
            await self._deliver(self._backlog[0])
            self._backlog.popleft()

    async def _deliver(self, wire: Wire) -> None:
        event = wire.item
        assert isinstance(event, Event)
        if event.type in FINISHING and event.message is not None:
            await self._complete_text(event, event.message)
        self._last = event.seq
        if event.message is not None and self._wants(event.message):
            self._note(event, event.message)
        if self._messages is None or event.message in self._messages:
            self._out.append(Frame(wire, self._cursor()))
        self.done = self.done or event.type is EventType.SESSION_ENDED

    async def _complete_text(self, event: Event, message: str) -> None:
        """Whoever has a part of a reply gets the rest before its end, so that the parts are the whole."""
        content, seen = event.data.get("content"), self._seen.get(message, 0)
        if not isinstance(content, str) or not 0 < seen < len(content):
            return
        self._emit_pieces(await self._read(self._store.deltas(message)), up_to=len(content))

    def _note(self, event: Event, message: str) -> None:
        if event.type is EventType.MESSAGE_CREATED:
            status = event.data.get("message", {}).get("status")
            if status in _UNFINISHED:
                self._closed.pop(message, None)
                self._open.add(message)
            if status == MessageStatus.IN_PROGRESS:
                self._running.add(message)
        elif event.type is EventType.RUN_STARTED and message in self._open:
            self._running.add(message)
        elif event.type in FINISHING:
            self._close(message)

    def _close(self, message: str) -> None:
        self._open.discard(message)
        self._running.discard(message)
        self._seen.pop(message, None)
        if self._partial == message:
            self._partial = None
        self._closed.put(message, None)

    def _emit_pieces(self, deltas: Sequence[Delta], up_to: int | None = None) -> None:
        """What is new in `deltas`, as one delta that bears the last one's number."""
        if not deltas:
            return
        message = deltas[0].message
        start = end = self._seen.get(message, 0)
        texts, last = [], deltas[0]
        for delta in deltas:
            if delta.offset <= end < delta.offset + len(delta.text):
                texts.append(delta.text[end - delta.offset :])
                end, last = delta.offset + len(delta.text), delta
        text = "".join(texts)[: None if up_to is None else up_to - start]
        if text:
            delta = last.model_copy(update={"offset": start, "text": text})
            self._emit_delta(delta, wire_form(delta))

    def _emit_delta(self, delta: Delta, wire: Wire) -> None:
        self._seen[delta.message] = delta.offset + len(delta.text)
        self._partial = delta.message
        self._out.append(Frame(wire, self._cursor()))

    def _cursor(self) -> Cursor:
        if self._partial is None:
            return Cursor(self._last)
        return Cursor(self._last, self._partial, self._seen[self._partial])

    def _wants(self, message: str) -> bool:
        return self._messages is None or message in self._messages
