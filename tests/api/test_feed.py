"""Following a session: every event once and in order, every piece of a reply once, whatever goes wrong."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from activities.ports import Resync
from api import feed as feed_module
from api import listening
from api.feed import ChatFeed
from api.frames import Cursor, Wire, wire_form
from api.routes.chat_streams import wait_for_reply
from api.subscription import FeedClosed, Limits, SlowConsumer
from goatherd.contracts.chat import Ephemeral
from goatherd.contracts.ids import new_id
from goatherd.errors import MalformedCursor
from tests.api.streams import NOW, QUICK, Reader, StagedStore, Writer, feed_on

MESSAGE = "msg_01k9w2x6hj3v8m5r7t0q4n1b2c"


@pytest.mark.parametrize("text", ["0", "17", f"17:{MESSAGE}:0", f"3:{MESSAGE}:120"])
def test_a_cursor_reads_as_it_is_written(text: str) -> None:
    assert str(Cursor.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "-1", "1.0", " 1", "1:", "1:2", "1:2:3", "1:msg_x:3", "٣", "1\n", "\0", "9" * 30),
        *(
            f"1:{MESSAGE}",
            f"1:{MESSAGE}:-3",
            f"1:{MESSAGE}:3:",
            f"1:{MESSAGE}\n:3",
            f"1:{MESSAGE}:{'9' * 30}",
        ),
    ],
)
def test_a_malformed_cursor_is_refused(text: str) -> None:
    with pytest.raises(MalformedCursor):
        Cursor.parse(text)


async def test_events_and_pieces_are_replayed_and_then_come_live() -> None:
    store = StagedStore()
    writer = Writer(store)
    async with feed_on(store) as feed:
        await writer.post("one", reply=False)
        await writer.post("two")
        await writer.say("Mää")
        await writer.say("äh ")
        reader = Reader(feed, writer.session)
        reader.connect()
        await reader.until(lambda: bool(reader.texts))
        assert [one["data"] for one in reader.seen[-1:]] == [{"offset": 0, "text": "Määäh "}]
        assert reader.seen[-1]["id"].endswith(":1")
        await writer.say("🐐!")
        await writer.finish()
        await reader.until_seq(writer.seq)
        assert reader.types == [
            "message.created",
            "message.created",
            "message.created",
            "run.started",
            "message.delta",
            "message.delta",
            "message.completed",
            "run.completed",
        ]
        assert list(reader.texts.values()) == ["Määäh 🐐!"]
        await reader.leave()


async def test_an_event_in_the_middle_of_a_reply_has_the_long_cursor() -> None:
    store = StagedStore()
    writer = Writer(store)
    async with feed_on(store) as feed:
        reader = Reader(feed, writer.session)
        reader.connect()
        await writer.post()
        reply = writer.reply
        await writer.say("abc")
        await reader.until(lambda: bool(reader.texts))
        await writer.post("another", reply=False)
        await writer.finish()
        await reader.until_seq(6)
        assert reader.cursors[:3] == ["1", "2", "3"]
        assert reader.cursors[3:] == [f"3:{reply}:3", f"4:{reply}:3", "5", "6"]
        await reader.leave()


async def test_a_client_that_comes_back_in_the_middle_of_a_message_gets_the_rest() -> None:
    store = StagedStore()
    writer = Writer(store)
    async with feed_on(store) as feed:
        await writer.post()
        await writer.say("abcdef")
        reader = Reader(feed, writer.session)
        reader.connect()
        await reader.until(lambda: bool(reader.texts))
        await reader.leave()
        await writer.say("ghi")
        back = Reader(feed, writer.session, f"3:{writer.reply}:4")
        back.texts[str(writer.reply)] = "abcd"
        back.connect()
        await back.until(lambda: bool(back.seen))
        assert back.seen[0]["data"] == {"offset": 4, "text": "efghi"}
        await back.leave()
        # And once more, when the reply has come to its end meanwhile.
        await writer.say("jkl")
        await writer.finish()
        back.connect()
        await back.until_seq(5)
        assert back.types[1:] == ["message.delta", "message.completed", "run.completed"]
        assert back.texts[writer.events[1].message or ""] == "abcdefghijkl"
        await back.leave()


async def test_pieces_of_a_finished_reply_are_not_replayed() -> None:
    store = StagedStore()
    writer = Writer(store)
    async with feed_on(store) as feed:
        await writer.post()
        late = await writer.say("abc")
        await writer.finish()
        reader = Reader(feed, writer.session)
        reader.connect()
        await reader.until_seq(5)
        store.show(late)
        await writer.post("next", reply=False)
        await reader.until_seq(6)
        assert "message.delta" not in reader.types
        await reader.leave()


async def test_an_event_that_comes_early_waits_for_the_one_before_it() -> None:
    store = StagedStore()
    writer = Writer(store)
    async with feed_on(store, Limits(check_s=60, retry_s=0.001)) as feed:
        await writer.post(reply=False)
        reader = Reader(feed, writer.session)
        reader.connect()
        await reader.until_seq(1)
        store.hidden, store.staged = {2}, True
        await writer.post("two", reply=False)
        await writer.post("three", reply=False)
        store.show(store.pending[1])
        await store.until_read(5)
        assert reader.seqs == [1]
        store.hidden = set()
        await reader.until_seq(3)
        await reader.leave()


async def test_doubled_and_old_changes_fall_away() -> None:
    store = StagedStore(staged=True)
    writer = Writer(store)
    async with feed_on(store) as feed:
        reader = Reader(feed, writer.session)
        reader.connect()
        await writer.post()
        await writer.say("abc")
        await writer.say("def")
        changes = list(store.pending)
        for change in [*changes, *changes, *changes[::-1]]:
            store.show(change)
        await reader.until(lambda: reader.texts == {writer.reply: "abcdef"})
        store.pending.clear()
        await writer.finish()
        store.show_pending()
        await reader.until_seq(5)
        assert reader.texts == {writer.events[1].message: "abcdef"}
        await reader.leave()


async def test_a_piece_that_went_missing_is_read_from_the_store() -> None:
    store = StagedStore()
    writer = Writer(store)
    async with feed_on(store) as feed:
        reader = Reader(feed, writer.session)
        reader.connect()
        await writer.post()
        await reader.until_seq(3)
        store.staged = True
        await writer.say("abc")
        store.show(await writer.say("def"))
        await reader.until(lambda: reader.texts == {writer.reply: "abcdef"})
        await reader.leave()


async def test_what_a_resync_hides_is_read_again() -> None:
    store = StagedStore()
    writer = Writer(store)
    async with feed_on(store) as feed:
        reader = Reader(feed, writer.session)
        reader.connect()
        await writer.post()
        await writer.say("abc")
        await reader.until(lambda: bool(reader.texts))
        store.staged = True
        await writer.say("def")
        await writer.post("more", reply=False)
        store.show(Resync())
        await reader.until(lambda: reader.texts == {writer.reply: "abcdef"} and reader.last == 4)
        await reader.leave()


async def test_the_feed_survives_what_the_store_throws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_RETRY_S", 0.001)
    store = StagedStore()
    store.watch_errors = [RuntimeError("no"), ValueError("never"), OSError("again")]
    writer = Writer(store)
    async with feed_on(store) as feed:
        reader = Reader(feed, writer.session)
        reader.connect()
        await writer.post(reply=False)
        await reader.until_seq(1)
        for watcher in list(store._watchers):
            watcher.put_nowait(None)
        await store.until_read(1)
        await writer.post(reply=False)
        await reader.until_seq(2)
        assert feed.ready
        await reader.leave()


async def test_a_lost_change_is_found_without_another() -> None:
    store = StagedStore(staged=True)
    writer = Writer(store)
    async with feed_on(store, QUICK) as feed:
        reader = Reader(feed, writer.session)
        reader.connect()
        await writer.post()
        await reader.until_seq(3)
        await writer.say("abc")
        await reader.until(lambda: reader.texts == {writer.reply: "abc"})
        await reader.leave()


async def test_a_store_that_is_away_is_waited_for() -> None:
    store = StagedStore()
    writer = Writer(store)
    async with feed_on(store, QUICK) as feed:
        await writer.post()
        await writer.say("abc")
        store.failing = 20
        reader = Reader(feed, writer.session)
        reader.connect()
        await reader.until(lambda: reader.texts == {writer.reply: "abc"})
        assert reader.seqs == [1, 2, 3]
        await reader.leave()


async def test_a_reply_whose_document_is_late_is_followed_all_the_same() -> None:
    store = StagedStore()
    writer = Writer(store)
    async with feed_on(store, QUICK) as feed:
        await writer.post()
        await writer.say("abc")
        store.documents = []
        reader = Reader(feed, writer.session, "3")
        reader.connect()
        await writer.say("def")
        store.documents = None
        async with asyncio.timeout(5):
            while not reader.texts:
                await writer.say(".")
                await asyncio.sleep(0.001)
        assert reader.texts[str(writer.reply)].startswith("abcdef.")
        await reader.leave()


async def test_a_finished_reply_whose_document_is_late_is_not_followed() -> None:
    store = StagedStore()
    writer = Writer(store)
    async with feed_on(store) as feed:
        await writer.post()
        late = await writer.say("abc")
        store.documents = await store.unfinished(writer.session)
        await writer.finish()
        reader = Reader(feed, writer.session, "5")
        reader.connect()
        await writer.post("next", reply=False)
        await reader.until_seq(6)
        for seq in (7, 8, 9):
            store.show(late)
            await writer.post("and more", reply=False)
            await reader.until_seq(seq)
        assert "message.delta" not in reader.types
        await reader.leave()


async def test_a_client_that_takes_nothing_is_cut_off_and_holds_nobody_up() -> None:
    store = StagedStore()
    writer = Writer(store)
    limits = Limits(queue_items=50, queue_bytes=100_000, check_s=60)
    async with feed_on(store, limits) as feed:
        quick = Reader(feed, writer.session)
        quick.connect()
        async with aclosing(feed.follow(writer.session, Cursor(0))) as slow:
            await writer.post(reply=False)
            await anext(slow)
            await quick.until_seq(1)
            pending = asyncio.create_task(anext(slow))
            await writer.post("two", reply=False)
            await pending  # It has caught up, and takes nothing from now on.
            for number in range(3, 103):
                await writer.post("x" * 10_000, reply=False)
                await quick.until_seq(number)
            (subscription,) = (one for one in feed._followers[writer.session] if one._overflowed)
            assert (len(subscription._queue), subscription._bytes) == (0, 0)
            with pytest.raises(SlowConsumer):
                await anext(slow)
        await quick.leave()


async def test_a_replay_that_is_longer_than_the_queue_is_nobodys_fault() -> None:
    store = StagedStore()
    writer = Writer(store)
    limits = Limits(queue_items=10, check_s=60)
    async with feed_on(store, limits) as feed:
        for _ in range(100):
            await writer.post(reply=False)
        seqs = []
        async with aclosing(feed.follow(writer.session, Cursor(0))) as frames:
            async for frame in frames:
                seqs.append(frame.cursor.seq if frame.cursor else 0)
                if writer.seq < 200:
                    await writer.post(reply=False)
                if len(seqs) == 200:
                    break
        assert seqs == list(range(1, 201))


async def test_an_event_is_made_bytes_once_for_all_who_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def counted(item: Any) -> Wire:
        made.append(item)
        return wire_form(item)

    monkeypatch.setattr(feed_module, "wire_form", counted)
    store = StagedStore()
    writer = Writer(store)
    async with feed_on(store) as feed:
        await writer.post(reply=False)
        readers = [Reader(feed, writer.session, "1") for _ in range(50)]
        for reader in readers:
            reader.connect()
        await writer.post(reply=False)
        for reader in readers:
            await reader.until_seq(2)
        made.clear()
        await writer.post(reply=False)
        for reader in readers:
            await reader.until_seq(3)
            await reader.leave()
        assert len(made) == 1
        assert not feed._followers


async def test_the_end_of_the_session_ends_the_stream() -> None:
    store = StagedStore()
    writer = Writer(store)
    async with feed_on(store) as feed:
        reader = Reader(feed, writer.session)
        reader.connect()
        await writer.post(reply=False)
        await writer.end()
        assert reader.task is not None
        async with asyncio.timeout(5):
            await reader.task
        assert reader.types == ["message.created", "session.ended"]
        assert await feed.check(writer.session, Cursor(2))
        assert not await feed.check(writer.session, Cursor(1))
        async with asyncio.timeout(5):
            assert [frame async for frame in feed.follow(writer.session, Cursor(2))] == []
            assert len([frame async for frame in feed.follow(writer.session, Cursor(1))]) == 1


async def test_a_cursor_past_the_end_is_refused() -> None:
    store = StagedStore()
    writer = Writer(store)
    feed = ChatFeed(store)
    await writer.post(reply=False)
    assert not await feed.check(writer.session, Cursor(1))
    with pytest.raises(MalformedCursor):
        await feed.check(writer.session, Cursor(2))


async def test_what_passes_by_comes_to_those_who_look() -> None:
    store = StagedStore()
    writer = Writer(store)
    async with feed_on(store) as feed:
        await writer.post(reply=False)
        durable = Reader(feed, writer.session)
        durable.connect()
        await durable.until_seq(1)
        async with aclosing(feed.follow(writer.session, Cursor(1), ephemeral=True)) as frames:
            waiting = asyncio.create_task(anext(frames))
            typing = Ephemeral(session=writer.session, type="typing", ts=NOW, data={"typing": True})
            while not waiting.done():
                await store.publish(typing)
                await asyncio.sleep(0)
            frame = await waiting
        assert (frame.wire.item, frame.cursor) == (typing, None)
        await writer.post(reply=False)
        await durable.until_seq(2)
        assert durable.types == ["message.created", "message.created"]
        await durable.leave()


async def test_a_quiet_stream_pings() -> None:
    store = StagedStore()
    async with feed_on(store, Limits(check_s=0.005, ping_s=0.01)) as feed:
        reader = Reader(feed, new_id("chat"))
        reader.connect()
        await reader.until(lambda: reader.pings >= 2)
        await reader.leave()


async def test_a_shutdown_ends_every_stream_even_while_the_store_hangs() -> None:
    store = StagedStore()
    async with feed_on(store) as feed:
        idle = Reader(feed, new_id("chat"))
        idle.connect()
        await store.until_read(1)
        store.hangs = True
        stuck = Reader(feed, new_id("chat"))
        stuck.connect()
        await store.until_read(1)
        feed.close()
        for reader in (idle, stuck):
            assert reader.task is not None
            async with asyncio.timeout(5):
                await asyncio.gather(reader.task, return_exceptions=True)
            assert isinstance(reader.task.exception(), FeedClosed)
        with pytest.raises(FeedClosed):
            await anext(feed.follow(new_id("chat"), Cursor(0)))


async def test_waiting_for_a_reply_gives_it_as_stored_or_nothing_in_time() -> None:
    store = StagedStore()
    writer = Writer(store)
    async with feed_on(store) as feed:
        message, reply = await writer.post()
        assert reply is not None
        assert await wait_for_reply(feed, writer.session, reply.id, message.seq, 0.01) is None
        waiting = asyncio.create_task(wait_for_reply(feed, writer.session, reply.id, message.seq, 5))
        await writer.say("abc")
        await writer.finish("failed")
        done = await waiting
        assert done is not None
        assert (done.id, done.status, done.content) == (reply.id, "failed", "abc")
