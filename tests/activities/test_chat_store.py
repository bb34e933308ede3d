"""`ChatStore`: the contract on every backend, and what only a real store can show."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Sequence
from contextlib import suppress
from itertools import count, islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import AsyncMongoClient, monitoring
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    ServerSelectionTimeoutError,
    WriteError,
)

from activities.backends import mongo_writes, projection
from activities.backends.memory import MemoryChatStore
from activities.backends.mongo_chat import MongoChatStore
from activities.backends.mongo_client import connect, describe_store_error
from activities.backends.projection import Document
from activities.ports import ChatStore, Page, Resync
from goatherd.contracts.chat import Event, EventType, MessageStatus
from goatherd.errors import Invalid, Unavailable
from tests.activities.chat_events import Script, make_session
from tests.activities.contract_chat_store import ChatStoreContract
from tests.servers import EmbeddedStore, embedded_store, free_port


class TestContract(ChatStoreContract):
    pass


# -- any order, any split, any repetition


@st.composite
def histories(draw: st.DrawFn) -> tuple[Script, list[list[int]]]:
    """What an actor may do, and the groups in which its events come, all of them at least once."""
    script = Script()
    replies: dict[str, str] = {}
    for _ in range(draw(st.integers(1, 6))):
        act = draw(st.sampled_from(["post", "ask", "start", "complete", "cancel", "rate", "delete"]))
        messages = [event.message for event in script.events if event.type is EventType.MESSAGE_CREATED]
        open_replies = sorted(one for one, state in replies.items() if state in ("queued", "running"))
        if act in ("post", "ask") or not messages:
            posted = script.create(draw(st.text(max_size=5)))
            if act == "ask":
                replies[script.reply(posted, content=None)] = "queued"
        elif act == "rate":
            feedback = {"rating": draw(st.sampled_from(["up", "down"])), "comment": None}
            script.add(EventType.MESSAGE_UPDATED, draw(st.sampled_from(messages)), feedback=feedback)
        elif act == "delete":
            closed = [one for one in messages if one is not None and one not in open_replies]
            if closed:
                script.add(EventType.MESSAGE_DELETED, draw(st.sampled_from(closed)))
        elif open_replies:
            reply = open_replies[0]
            if act == "start" and replies[reply] == "queued":
                script.start(reply)
                replies[reply] = "running"
            elif act == "complete":
                script.complete(reply, draw(st.text(max_size=5)))
                replies[reply] = "done"
            elif act == "cancel":
                script.add(EventType.MESSAGE_CANCELLED, reply, content="so far", finish_reason="cancelled")
                replies[reply] = "done"
    if draw(st.booleans()):
        script.add(EventType.SESSION_ENDED, reason="deleted")
    every = list(range(len(script.events)))
    more = draw(st.lists(st.sampled_from(every), max_size=6))
    shuffled = draw(st.permutations(every + more))
    cuts = sorted(draw(st.lists(st.integers(0, len(shuffled)), max_size=6)))
    groups = [shuffled[start:end] for start, end in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]
    return script, groups


def in_plain_order(script: Script) -> dict[str, tuple[str, MessageStatus, object, int]]:
    """What the events say, read one after the other: content, status, feedback, version by message."""
    known: dict[str, tuple[str, MessageStatus, object, int]] = {}
    status = {
        EventType.MESSAGE_COMPLETED: MessageStatus.COMPLETED,
        EventType.MESSAGE_CANCELLED: MessageStatus.CANCELLED,
        EventType.MESSAGE_DELETED: MessageStatus.DELETED,
        EventType.RUN_STARTED: MessageStatus.IN_PROGRESS,
    }
    for event in script.events:
        if event.message is None:
            continue
        if event.type is EventType.MESSAGE_CREATED:
            message = event.data["message"]
            known[event.message] = (message["content"], message["status"], None, event.seq)
            continue
        content, now, feedback, _ = known[event.message]
        if event.type is EventType.MESSAGE_UPDATED:
            feedback = event.data["feedback"]
        else:
            content = "" if event.type is EventType.MESSAGE_DELETED else event.data.get("content", content)
            now = status[event.type]
        known[event.message] = (content, now, feedback, event.seq)
    return known


async def check_history(store: ChatStore, script: Script, groups: list[list[int]]) -> None:
    await store.put_session(make_session(id=script.session))
    for group in groups:
        assert await store.append([script.events[index] for index in group]) == set()
    stored = await store.messages(script.session, Page(limit=100))
    seen = {
        one.id: (one.content, one.status, one.feedback and one.feedback.model_dump(), one.version)
        for one in stored
    }
    assert seen == in_plain_order(script)
    unfinished = [one for one in stored if one.status in ("queued", "in_progress")]
    assert await store.unfinished(script.session) == unfinished
    assert await store.events(script.session, after=0, limit=100) == script.events
    session = await store.session(script.session)
    assert session is not None
    assert (session.status == "ended") == (script.events[-1].type is EventType.SESSION_ENDED)


@settings(max_examples=150, deadline=None)
@given(history=histories())
async def test_memory_documents_follow_from_events_however_they_come(
    history: tuple[Script, list[list[int]]],
) -> None:
    await check_history(MemoryChatStore(), *history)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories())
async def test_mongo_documents_follow_from_events_however_they_come(
    mongo_chats: MongoChatStore, history: tuple[Script, list[list[int]]]
) -> None:
    await check_history(mongo_chats, *history)


# -- MongoDB alone


async def test_many_processes_may_prepare_at_once(store_server: EmbeddedStore) -> None:
    databases = [connect(store_server.uri, "prepared_by_many") for _ in range(6)]
    await asyncio.gather(*(MongoChatStore(database).prepare() for database in databases))
    indexes = await databases[0]["messages"].index_information()
    assert len(indexes) == 5
    for database in databases:
        await database.client.close()


async def test_client_id_of_another_message_does_not_stop_the_batch(
    mongo_chats: MongoChatStore, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script()
    script.create("first", client_id="c")
    script.create("clash", client_id="c")
    script.create("after")
    with caplog.at_level(logging.WARNING):
        assert await mongo_chats.append(script.events) == set()
    assert [one.content for one in await mongo_chats.messages(script.session, Page())] == ["first", "after"]
    assert await mongo_chats.events(script.session, after=0, limit=9) == script.events
    assert "is not shown" in caplog.text


async def test_change_reaches_a_message_that_is_made_while_it_is_looked_for(
    mongo_chats: MongoChatStore, database: AsyncDatabase[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer, who does not know of the change, makes the message between the update and the look."""
    script = Script()
    reply = script.reply(script.create(), content=None)
    done = script.complete(reply)
    document = projection.created(script.events[1])
    assert document is not None
    look = mongo_writes._there
    looked = 0

    async def made_meanwhile(collection: AsyncCollection[Document], ids: Sequence[str]) -> object:
        nonlocal looked
        looked += 1
        if looked == 1:
            await database["messages"].insert_one(dict(document))
        return await look(collection, ids)

    monkeypatch.setattr(mongo_writes, "_there", made_meanwhile)
    await mongo_chats.append([done])
    stored = await mongo_chats.message(script.session, reply)
    assert looked
    assert stored is not None
    assert (stored.status, stored.version) == (MessageStatus.COMPLETED, done.seq)


async def test_text_that_is_no_unicode_is_invalid(mongo_chats: MongoChatStore) -> None:
    script = Script()
    event = script.add(EventType.MESSAGE_UPDATED, None, note="\ud800")
    with pytest.raises(Invalid):
        await mongo_chats.append([event])


class ReadDocuments(monitoring.CommandListener):
    """Counts what the server sends."""

    def __init__(self) -> None:
        self.commands = self.documents = 0

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        pass

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        cursor = event.reply.get("cursor", {})
        self.commands += 1
        self.documents += len(cursor.get("firstBatch", cursor.get("nextBatch", [])))

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


async def test_branch_and_pages_of_a_long_chat_read_little(store_server: EmbeddedStore) -> None:
    script = Script()
    leaf: str | None = None
    for n in range(10_000):
        leaf = script.create(str(n), parent=leaf)
    assert leaf is not None
    writing = connect(store_server.uri, "long_chat")
    await MongoChatStore(writing).prepare()
    for start in range(0, 10_000, 2_000):
        await MongoChatStore(writing).append(script.events[start : start + 2_000])
    await writing.client.close()

    read = ReadDocuments()
    client: AsyncMongoClient[Document] = AsyncMongoClient(store_server.uri, event_listeners=[read])
    store = MongoChatStore(client["long_chat"])

    branch = await store.branch(script.session, leaf, limit=50)
    assert [one.content for one in branch] == [str(n) for n in range(9_950, 10_000)]
    assert read.documents <= 60
    read.documents = 0
    newest = await store.messages(script.session, Page(limit=20, descending=True))
    assert newest[0].id == leaf
    assert read.documents <= 120
    read.documents = read.commands = 0
    assert await store.last_seq(script.session) == 10_000
    assert (read.commands, read.documents) == (1, 0)
    await client.close()


async def ask_nobody() -> None:
    database = connect(f"mongodb://127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=50", "nowhere")
    store = MongoChatStore(database)
    with pytest.raises(Unavailable):
        await store.ping()
    with pytest.raises(Unavailable):
        async with store.watch():
            pass
    await database.client.close()


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
async def test_store_that_is_not_there_is_unavailable() -> None:
    await ask_nobody()
    # PyMongo leaves the socket of a connect open that its client's close cancels. With the client gone it is
    # collected here, where its warning is expected, and not in whatever test comes next.
    gc.collect()


def test_uri_that_makes_no_sense_is_invalid() -> None:
    with pytest.raises(Invalid):
        connect("http://example.org", "x")


@pytest.mark.parametrize(
    "error",
    [
        AutoReconnect("connection closed"),
        ServerSelectionTimeoutError("no servers"),
        NetworkTimeout("timed out"),
        NotPrimaryError("not primary"),
        OperationFailure("interrupted at shutdown", 11600),
    ],
)
def test_outages_are_unavailable(error: Exception) -> None:
    described = describe_store_error(error)
    assert isinstance(described, Unavailable)
    assert described.code == "unavailable"


@pytest.mark.parametrize(
    "error",
    [
        WriteError("out of space", 14031),
        OperationFailure("WiredTigerError: No space left on device", 1),
        BulkWriteError({"writeErrors": [{"index": 0, "code": 14031, "errmsg": "full"}]}),
    ],
)
def test_full_disk_has_its_own_code_and_says_what_to_do(error: Exception) -> None:
    described = describe_store_error(error)
    assert isinstance(described, Unavailable)
    assert described.code == "storage-full"
    assert "make room" in described.message


def test_failed_storage_says_what_to_do() -> None:
    described = describe_store_error(OperationFailure("internal server error, full error: {'ok': 0}", 1))
    assert isinstance(described, Unavailable)
    assert described.code == "storage-failed"
    assert described.message.endswith("then restart it (internal server error)")


def test_texts_and_numbers_that_the_store_has_no_room_for_are_invalid() -> None:
    for error in (OverflowError("int too large"), WriteError("too large", 10334)):
        assert isinstance(describe_store_error(error), Invalid)


# -- a store that is killed


async def append_until_it_lasts(store: ChatStore, events: list[Event]) -> None:
    while True:
        with suppress(Unavailable):
            await store.append(events)
            return
        await asyncio.sleep(0.02)


# PyMongo leaves the socket of a connection that fails while it is being made to the garbage collector.
_SOCKETS_LEFT = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@_SOCKETS_LEFT
async def test_kill_loses_nothing_that_was_acknowledged() -> None:
    async with embedded_store() as server:
        database = connect(server.uri, "killed")
        store = MongoChatStore(database)
        await store.prepare()
        acknowledged: dict[str, list[Event]] = {}
        enough = asyncio.Event()

        async def write(script: Script) -> None:
            mine = acknowledged.setdefault(script.session, [])
            for _ in count():
                script.reply(script.create())
                try:
                    await store.append(script.events[-4:])
                except Unavailable:
                    return
                mine.extend(script.events[-4:])
                if sum(map(len, acknowledged.values())) > 800:
                    enough.set()

        writers = [asyncio.create_task(write(Script())) for _ in range(8)]
        async with asyncio.timeout(20):
            await enough.wait()
            await server.kill()
            await asyncio.gather(*writers)
        await server.restart()
        for session, events in acknowledged.items():
            stored = await store.events(session, after=0, limit=10_000)
            assert stored[: len(events)] == events
            messages = await store.messages(session, Page(limit=10_000))
            whole = messages[: len(events) // 2]
            assert [one.status for one in whole] == [MessageStatus.COMPLETED] * (len(events) // 2)
        await database.client.close()


@_SOCKETS_LEFT
async def test_watch_goes_on_after_restarts_and_nothing_is_missed_by_who_resyncs() -> None:
    async with embedded_store() as server:
        database = connect(server.uri, "watched")
        store = MongoChatStore(database)
        await store.prepare()
        script = Script()
        for n in range(300):
            script.create(str(n))
        seen: list[Event] = []
        first_half = asyncio.Event()

        async def follow() -> None:
            async with store.watch() as feed:
                ready.set()
                async for item in feed:
                    if isinstance(item, Resync):
                        after = seen[-1].seq if seen else 0
                        seen.extend(await store.events(script.session, after=after, limit=1_000))
                    elif isinstance(item, Event) and (not seen or item.seq > seen[-1].seq):
                        seen.append(item)
                    if len(seen) >= 100:
                        first_half.set()
                    if len(seen) == 300:
                        return

        ready = asyncio.Event()
        follower = asyncio.create_task(follow())
        async with asyncio.timeout(40):
            await ready.wait()
            groups = iter([script.events[start : start + 10] for start in range(0, 300, 10)])
            for group in islice(groups, 10):
                await append_until_it_lasts(store, group)
            await first_half.wait()
            for _ in range(2):
                await server.kill()
                waiting = asyncio.create_task(append_until_it_lasts(store, next(groups)))
                await server.restart()
                await waiting
            for group in groups:
                await append_until_it_lasts(store, group)
            await follower
        assert seen == script.events
        await database.client.close()


async def test_watch_says_resync_when_the_server_forgot_where_it_was(
    store_server: EmbeddedStore, mongo_chats: MongoChatStore, database: AsyncDatabase[Document]
) -> None:
    """A dropped database ends its change streams for good."""
    script = Script()
    script.create("before")
    script.create("after")
    async with mongo_chats.watch() as feed, asyncio.timeout(10):
        await mongo_chats.append(script.events[:1])
        assert await anext(feed) == script.events[0]
        await database.client.drop_database(database.name)
        assert isinstance(await anext(feed), Resync)
        await mongo_chats.append(script.events[1:])
        assert await anext(feed) == script.events[1]


async def test_feed_that_is_read_late_has_all_that_its_buffer_has_not(
    mongo_chats: MongoChatStore,
) -> None:
    script = Script()
    for n in range(1_500):
        script.create(str(n))
    async with mongo_chats.watch() as feed, asyncio.timeout(20):
        await mongo_chats.append(script.events)
        assert [await anext(feed) for _ in script.events] == script.events


async def test_memory_feed_can_be_made_to_resync() -> None:
    store = MemoryChatStore()
    async with store.watch() as feed:
        store.break_feeds()
        assert isinstance(await anext(feed), Resync)
