"""What the tests of streams share: a store with faults to order, a writer, a client, a server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import orjson
import uvicorn

from activities.backends.memory import MemoryChatStore, MemoryIdempotencyStore, MemoryWorkerRegistry
from activities.backends.memory_indexes import MemoryIndexStore
from activities.backends.memory_jobs import MemoryJobStore
from activities.backends.memory_models import MemoryModelCatalog, MemoryPieceFeed
from activities.backends.memory_tasks import MemoryTaskStore
from activities.ports import FeedItem
from api.app import create_app
from api.connections import HttpConnection, WebSocketConnection
from api.feed import ChatFeed
from api.frames import Cursor
from api.model_parts import ModelStores
from api.subscription import Limits
from goatherd.contracts.chat import Delta, Event, EventType, Message, PostMessage, Session
from goatherd.contracts.ids import new_id
from goatherd.contracts.inference import ModelSpec
from goatherd.errors import Conflict, Unavailable
from goatherd.security.access import Principal, require
from goatherd.settings import Settings

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
QUICK = Limits(check_s=0.01, retry_s=0.001, retry_max_s=0.01)
PATIENT = Limits(check_s=60, ping_s=60)
"""Nothing happens by itself: what a test sees is from what it did."""
ENDS = {
    "completed": EventType.MESSAGE_COMPLETED,
    "failed": EventType.MESSAGE_FAILED,
    "cancelled": EventType.MESSAGE_CANCELLED,
}


class StagedStore(MemoryChatStore):
    """Shows its changes to watchers only when told to (`staged`), and some events not yet to readers."""

    def __init__(self, *, staged: bool = False) -> None:
        super().__init__()
        self.staged = staged
        self.pending: list[FeedItem] = []
        self.hidden: set[int] = set()
        self.documents: list[Message] | None = None
        self.failing = 0
        self._reads = asyncio.Semaphore(0)
        self.hangs = False
        self.watch_errors: list[Exception] = []

    def _show(self, item: FeedItem) -> None:
        if self.staged:
            self.pending.append(item)
        else:
            super()._show(item)

    def show(self, item: FeedItem) -> None:
        super()._show(item)

    def show_pending(self) -> None:
        while self.pending:
            self.show(self.pending.pop(0))

    async def _read(self) -> None:
        self._reads.release()
        if self.hangs:
            await asyncio.Event().wait()
        if self.failing:
            self.failing -= 1
            raise Unavailable("the store is away")

    async def until_read(self, times: int) -> None:
        """Until so many more reads have begun."""
        self._reads = asyncio.Semaphore(0)
        async with asyncio.timeout(5):
            for _ in range(times):
                await self._reads.acquire()

    async def events(self, session: str, *, after: int, limit: int) -> list[Event]:
        await self._read()
        events = await super().events(session, after=after, limit=10_000)
        return [event for event in events if event.seq not in self.hidden][:limit]

    async def last_seq(self, session: str) -> int:
        await self._read()
        return await super().last_seq(session)

    async def unfinished(self, session: str) -> list[Message]:
        await self._read()
        return await super().unfinished(session) if self.documents is None else self.documents

    async def deltas(self, message: str) -> list[Delta]:
        await self._read()
        return await super().deltas(message)

    @asynccontextmanager
    async def _watch(self) -> Any:
        if self.watch_errors:
            raise self.watch_errors.pop(0)
        async with super()._watch() as items:
            yield items


class Writer:
    """What the actor and its worker do to one session's part of the store."""

    def __init__(self, store: MemoryChatStore, session: str | None = None) -> None:
        self.store = store
        self.session = session or new_id("chat")
        self.seq = 0
        self.events: list[Event] = []
        self.pieces: dict[str, list[str]] = {}
        self.reply: str | None = None

    async def open(self) -> None:
        await self.store.put_session(
            Session(id=self.session, owner="local", agent="assistant", model="tiny", created_at=NOW)
        )

    def _event(self, kind: EventType, message: str | None = None, /, **data: Any) -> Event:
        self.seq += 1
        event = Event(
            seq=self.seq,
            id=new_id("evt"),
            type=kind,
            session=self.session,
            message=message,
            ts=NOW,
            data=data,
        )
        self.events.append(event)
        return event

    def _message(
        self, role: str, content: str, status: str, message_id: str | None, client_id: str | None = None
    ) -> Message:
        return Message.model_validate(
            {
                "id": message_id or new_id("msg"),
                "session": self.session,
                "seq": self.seq + 1,
                "version": self.seq + 1,
                "role": role,
                "content": content,
                "status": status,
                "client_id": client_id,
                "created_at": NOW,
                "updated_at": NOW,
            }
        )

    def _created(self, message: Message) -> Event:
        return self._event(
            EventType.MESSAGE_CREATED,
            message.id,
            message=message.model_dump(mode="json", exclude_none=True),
        )

    async def post(
        self, content: str = "hi", *, reply: bool = True, ids: tuple[str | None, str | None] = (None, None)
    ) -> tuple[Message, Message | None]:
        """A message, and the start of a reply to it."""
        message = self._message("user", content, "completed", ids[0])
        events = [self._created(message)]
        answer = None
        if reply:
            answer = self._message("assistant", "", "in_progress", ids[1])
            events.append(self._created(answer))
            self.reply = answer.id
            self.pieces[answer.id] = []
            events.append(self._event(EventType.RUN_STARTED, answer.id, model="tiny"))
        await self.store.append(events)
        return message, answer

    async def say(self, text: str) -> Delta:
        assert self.reply is not None
        pieces = self.pieces[self.reply]
        delta = Delta(
            session=self.session,
            message=self.reply,
            n=len(pieces),
            offset=len("".join(pieces)),
            text=text,
            ts=NOW,
        )
        pieces.append(text)
        await self.store.put_delta(delta)
        return delta

    async def finish(self, how: str = "completed") -> None:
        assert self.reply is not None
        reply, self.reply = self.reply, None
        content = "".join(self.pieces[reply])
        events = [
            self._event(ENDS[how], reply, content=content),
            self._event(EventType.RUN_COMPLETED, reply, status=how),
        ]
        await self.store.append(events)

    async def end(self) -> None:
        await self.store.append([self._event(EventType.SESSION_ENDED, reason="deleted")])


class Reader:
    """A client: it checks each frame against all it has seen, and may go and come back."""

    def __init__(self, feed: ChatFeed, session: str, cursor: str = "0") -> None:
        self.feed = feed
        self.session = session
        self.start = cursor
        self.seen: list[dict[str, Any]] = []
        self.cursors: list[str] = []
        self.texts: dict[str, str] = {}
        self.finished: dict[str, str] = {}
        self.pings = 0
        self.more = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    @property
    def cursor(self) -> str:
        return self.cursors[-1] if self.cursors else self.start

    @property
    def seqs(self) -> list[int]:
        return [one["seq"] for one in self.seen if "seq" in one]

    @property
    def types(self) -> list[str]:
        return [one["type"] for one in self.seen]

    def connect(self, **options: Any) -> None:
        self.task = asyncio.create_task(self._follow(Cursor.parse(self.cursor), **options))

    async def leave(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def forget(self, frames: int) -> None:
        """As if the last frames had not arrived."""
        kept = list(zip(self.seen, self.cursors, strict=True))[: max(len(self.seen) - frames, 0)]
        self.seen, self.cursors, self.texts, self.finished = [], [], {}, {}
        for fields, cursor in kept:
            self._take(fields, cursor)

    async def until(self, done: Callable[[], bool], timeout_s: float = 5) -> None:
        """Waits for frames, not for time."""
        assert self.task is not None
        async with asyncio.timeout(timeout_s):
            while not done():
                self.more.clear()
                waiter = asyncio.create_task(self.more.wait())
                await asyncio.wait({waiter, self.task}, return_when=asyncio.FIRST_COMPLETED)
                waiter.cancel()
                if self.task.done() and not done():
                    self.task.result()
                    raise AssertionError(f"the stream ended early, after {self.types}")

    async def until_seq(self, seq: int) -> None:
        await self.until(lambda: self.seqs[-1:] == [seq])

    async def _follow(self, cursor: Cursor, **options: Any) -> None:
        async with aclosing(self.feed.follow(self.session, cursor, **options)) as frames:
            async for frame in frames:
                if frame.cursor is None:
                    self.pings += frame.wire.type == "ping"
                else:
                    self._take(orjson.loads(frame.wire.body), str(frame.cursor))
                self.more.set()

    def _take(self, fields: dict[str, Any], cursor: str) -> None:
        message: str = fields.get("message", "")
        if fields["type"] == "message.delta":
            assert "seq" not in fields
            assert message not in self.finished, "a delta after the end of its message"
            text = self.texts.get(message, "")
            assert fields["data"]["offset"] == len(text), "a piece is missing or doubled"
            self.texts[message] = text + fields["data"]["text"]
            assert cursor == f"{self.last}:{message}:{len(self.texts[message])}"
        else:
            assert fields["seq"] == self.last + 1, "an event is missing or doubled"
            if fields["type"] in set(ENDS.values()):
                self.finished[message] = fields["data"]["content"]
                assert self.texts.get(message, "") in ("", fields["data"]["content"])
        self.seen.append(fields)
        self.cursors.append(cursor)

    @property
    def last(self) -> int:
        return self.seqs[-1] if self.seqs else int(self.start.partition(":")[0])


@asynccontextmanager
async def feed_on(store: MemoryChatStore, limits: Limits = PATIENT) -> AsyncIterator[ChatFeed]:
    async with ChatFeed(store, limits).running() as feed:
        await feed.wait_ready()
        yield feed


class MemoryService:
    """As much of `ChatService` as streams need, without an actor: a post is written at once."""

    def __init__(self, store: MemoryChatStore) -> None:
        self.store = store
        self.writers: dict[str, Writer] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.began: list[str] = []
        self.fault: Exception | None = None

    async def authorize(self, principal: Principal, session_id: str) -> None:
        if self.fault is not None:
            raise self.fault
        require(principal, await self.store.session(session_id), f"session {session_id!r}")

    async def post(
        self, principal: Principal, session_id: str, message: PostMessage
    ) -> tuple[Message, Message | None]:
        await self.authorize(principal, session_id)
        self.began.append(message.content)
        if message.content in self.gates:
            await self.gates[message.content].wait()
        wants = message.role == "user" if message.reply is None else message.reply
        return await self.writers[session_id].post(
            message.content, reply=wants, ids=(message.id, message.reply_id)
        )

    async def cancel(self, principal: Principal, session_id: str, message_id: str) -> None:
        writer = self.writers[session_id]
        if writer.reply != message_id:
            raise Conflict("The message is completed already.", code="message-finished")
        await writer.finish("cancelled")


class House:
    """An API process's worth, served by uvicorn on a port of its own."""

    def __init__(self, store: MemoryChatStore, **changes: Any) -> None:
        self.service = MemoryService(store)
        settings = Settings(models={"tiny": ModelSpec(provider="scripted")}, model="tiny", **changes)
        self.app = create_app(
            settings,
            client=cast(Any, None),
            store=store,
            idempotency=MemoryIdempotencyStore(),
            workers=MemoryWorkerRegistry(),
            task_store=MemoryTaskStore(),
            model_stores=ModelStores(MemoryModelCatalog(), MemoryPieceFeed(), MemoryJobStore()),
            index_store=MemoryIndexStore(),
            make_service=lambda *_: cast(Any, self.service),
        )
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(
            uvicorn.Config(
                self.app,
                http=HttpConnection,
                ws=WebSocketConnection,
                log_config=None,
                lifespan="on",
                timeout_graceful_shutdown=8,
            )
        )

    @property
    def feed(self) -> ChatFeed:
        state: dict[str, Any] = self.server.lifespan.state
        feed: ChatFeed = state["parts"].feed
        return feed

    async def chat(self, writer: Writer | None = None) -> Writer:
        writer = writer or Writer(self.service.store)
        await writer.open()
        self.service.writers[writer.session] = writer
        return writer


@asynccontextmanager
async def house_on(store: MemoryChatStore, **changes: Any) -> AsyncIterator[House]:
    house = House(store, **changes)
    task = asyncio.create_task(house.server.serve(sockets=[house.socket]))
    try:
        yield house
    finally:
        await stop(house, task)


async def stop(house: House, task: asyncio.Task[None]) -> None:
    house.server.should_exit = True
    async with asyncio.timeout(10):
        await task


async def gathered(*work: Awaitable[Any] | None) -> Sequence[Any]:
    async with asyncio.timeout(10):
        return await asyncio.gather(*[one for one in work if one is not None])


async def eventually(true: Callable[[], bool]) -> None:
    """For what a server does behind our back, and tells nobody."""
    async with asyncio.timeout(10):
        while True:
            if true():
                return
            await asyncio.sleep(0.001)
