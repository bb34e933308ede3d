"""What every `ChatStore` does. The fixture `chats` says which ones are asked."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from activities.ports import ChatStore, FeedItem, Page
from goatherd.contracts.chat import Ephemeral, Event, EventType, Feedback, MessageStatus
from goatherd.contracts.ids import make_id, new_id
from goatherd.contracts.inference import Usage
from goatherd.errors import Fenced
from tests.activities.chat_events import BEGAN, Script, make_delta, make_session


async def contents(store: ChatStore, session: str, page: Page) -> list[str]:
    return [message.content for message in await store.messages(session, page)]


class ChatStoreContract:
    async def test_prepare_and_ping_may_be_called_again(self, chats: ChatStore) -> None:
        await chats.prepare()
        await chats.ping()

    # -- sessions

    async def test_session_is_read_as_it_was_put(self, chats: ChatStore) -> None:
        session = make_session(title="a", labels=["x", "y/z"], metadata={"a.b": "c"}, system="be kind")
        await chats.put_session(session)
        assert await chats.session(session.id) == session
        assert await chats.session(new_id("chat")) is None

    async def test_put_again_does_not_revive_an_ended_session(self, chats: ChatStore) -> None:
        session = make_session()
        script = Script(session.id)
        await chats.put_session(session)
        ended = script.add(EventType.SESSION_ENDED, reason="deleted")
        await chats.append(script.events)
        await chats.put_session(session)
        stored = await chats.session(session.id)
        assert stored == session.model_copy(
            update={"status": "ended", "end_reason": "deleted", "ended_at": ended.ts}
        )

    async def test_session_put_after_its_end_is_ended(self, chats: ChatStore) -> None:
        session = make_session()
        script = Script(session.id)
        script.add(EventType.SESSION_ENDED, reason="cancelled")
        await chats.append(script.events)
        await chats.put_session(session)
        stored = await chats.session(session.id)
        assert stored is not None
        assert (stored.status, stored.end_reason) == ("ended", "cancelled")

    async def test_active_sessions_are_told_apart(self, chats: ChatStore) -> None:
        active, ended = make_session(), make_session()
        script = Script(ended.id)
        script.add(EventType.SESSION_ENDED, reason="deleted")
        for session in (active, ended):
            await chats.put_session(session)
        await chats.append(script.events)
        assert await chats.active_sessions([ended.id, new_id("chat"), active.id]) == [active.id]
        assert await chats.active_sessions([]) == []

    async def test_sessions_are_paged_both_ways(self, chats: ChatStore) -> None:
        sessions = sorted((make_session() for _ in range(7)), key=lambda one: one.id)
        for session in (*sessions, make_session(owner="bob")):
            await chats.put_session(session)
        ids = [session.id for session in sessions]

        async def page(**fields: object) -> list[str]:
            return [one.id for one in await chats.sessions("ann", Page(**fields))]  # type: ignore[arg-type]

        assert await page(limit=3) == ids[:3]
        assert await page(limit=3, after=ids[2]) == ids[3:6]
        assert await page(limit=3, before=ids[5]) == ids[2:5]
        assert await page(limit=3, after=ids[0], before=ids[6]) == ids[1:4]
        assert await page(limit=3, descending=True) == ids[:3:-1]
        assert await page(limit=3, descending=True, after=ids[4]) == ids[3:0:-1]
        assert await page(limit=2, descending=True, before=ids[2]) == [ids[4], ids[3]]
        assert await page(after=ids[6]) == []

    async def test_newest_sessions_come_first_however_old_they_are(self, chats: ChatStore) -> None:
        now = int(BEGAN.timestamp() * 1000)
        ages_s = [-30, 0, 1, 3, 50, 3_000, 100_000, 40_000_000, 1_000_000_000]
        ids = [make_id("chat", millis=now - age * 1000, entropy=age + 99) for age in ages_s]
        for session in ids:
            await chats.put_session(make_session(id=session))
        found: list[str] = []
        while page := await chats.sessions(
            "ann", Page(limit=2, descending=True, after=found[-1] if found else None)
        ):
            found += [session.id for session in page]
        assert found == ids

    async def test_sessions_are_filtered_by_status_and_label(self, chats: ChatStore) -> None:
        plain, labelled, over = make_session(), make_session(labels=["x", "y"]), make_session(labels=["y"])
        script = Script(over.id)
        script.add(EventType.SESSION_ENDED, reason="deleted")
        for session in (plain, labelled, over):
            await chats.put_session(session)
        await chats.append(script.events)

        async def ids(status: str | None = None, label: str | None = None) -> set[str]:
            return {one.id for one in await chats.sessions("ann", Page(), status=status, label=label)}

        assert await ids("active") == {plain.id, labelled.id}
        assert await ids("ended") == {over.id}
        assert await ids(label="y") == {labelled.id, over.id}
        assert await ids("active", "y") == {labelled.id}
        assert await ids(label="z") == set()

    # -- events and what follows from them

    async def test_events_are_read_as_they_were_appended(self, chats: ChatStore) -> None:
        script = Script()
        script.reply(script.create(metadata={"a.b": "$c"}))
        assert await chats.append(script.events) == set()
        assert await chats.events(script.session, after=0, limit=100) == script.events
        assert await chats.events(script.session, after=1, limit=2) == script.events[1:3]
        assert await chats.events(script.session, after=4, limit=10) == []
        assert await chats.last_seq(script.session) == 4
        assert await chats.last_seq(new_id("chat")) == 0

    async def test_nothing_to_append_is_fine(self, chats: ChatStore) -> None:
        assert await chats.append([]) == set()

    async def test_message_is_read_as_its_event_says(self, chats: ChatStore) -> None:
        script = Script()
        message = script.create("hi", client_id="c1", metadata={"k": "v"})
        await chats.append(script.events)
        stored = await chats.message(script.session, message)
        assert stored is not None
        assert stored.model_dump(mode="json") == script.events[0].data["message"]
        assert await chats.message_by_client_id(script.session, "c1") == stored
        assert await chats.message_by_client_id(script.session, "c2") is None
        assert await chats.message(new_id("chat"), message) is None
        assert await chats.message(script.session, new_id("msg")) is None

    async def test_reply_goes_through_its_states(self, chats: ChatStore) -> None:
        script = Script()
        parent = script.create()
        reply = script.reply(parent, content=None)
        await chats.append(script.events)
        assert [one.id for one in await chats.unfinished(script.session)] == [reply]

        started = script.start(reply)
        await chats.append([started])
        (running,) = await chats.unfinished(script.session)
        assert (running.status, running.version) == (MessageStatus.IN_PROGRESS, started.seq)

        done = script.complete(reply, "forty-two")
        await chats.append([done, script.add(EventType.RUN_COMPLETED, reply, status="completed")])
        assert await chats.unfinished(script.session) == []
        stored = await chats.message(script.session, reply)
        assert stored is not None
        assert stored.content == "forty-two"
        assert stored.status is MessageStatus.COMPLETED
        assert stored.finish_reason == "stop"
        assert stored.usage == Usage(prompt_tokens=3, completion_tokens=2)
        assert (stored.version, stored.updated_at) == (done.seq, done.ts)
        assert await chats.reply_to(script.session, parent) == stored

    async def test_failure_cancellation_deletion_and_feedback_are_applied(self, chats: ChatStore) -> None:
        script = Script()
        parent = script.create()
        failed, cancelled = script.reply(parent, content=None), script.reply(parent, content=None)
        script.add(EventType.MESSAGE_FAILED, failed, content="so", error={"code": "boom", "message": "Boom."})
        script.add(EventType.MESSAGE_CANCELLED, cancelled, content="far", finish_reason="cancelled")
        script.add(EventType.MESSAGE_UPDATED, cancelled, feedback={"rating": "up", "comment": None})
        script.add(EventType.MESSAGE_DELETED, parent)
        await chats.append(script.events)
        one = await chats.message(script.session, failed)
        other = await chats.message(script.session, cancelled)
        gone = await chats.message(script.session, parent)
        assert one is not None
        assert other is not None
        assert gone is not None
        assert one.error is not None
        assert (one.status, one.content, one.error.code) == ("failed", "so", "boom")
        assert (other.status, other.content, other.finish_reason) == ("cancelled", "far", "cancelled")
        assert other.feedback == Feedback(rating="up")
        assert (gone.status, gone.content, gone.version) == ("deleted", "", script.events[-1].seq)
        assert (await chats.reply_to(script.session, parent)) == one

    async def test_appending_again_changes_nothing(self, chats: ChatStore) -> None:
        script = Script()
        reply = script.reply(script.create())
        await chats.append(script.events)
        before = await chats.messages(script.session, Page())
        assert await chats.append(script.events[:2]) == set()
        assert await chats.append(script.events[1:] + script.events) == set()
        assert await chats.messages(script.session, Page()) == before
        assert before[1].id == reply
        assert await chats.events(script.session, after=0, limit=99) == script.events

    @pytest.mark.parametrize("order", [[3, 2, 1, 0], [2, 0, 3, 1], [3, 0, 1, 2]])
    async def test_events_may_come_one_by_one_in_any_order(self, chats: ChatStore, order: list[int]) -> None:
        script = Script()
        reply = script.reply(script.create())
        for index in order:
            await chats.append([script.events[index]])
        stored = await chats.message(script.session, reply)
        assert stored is not None
        assert (stored.content, stored.status, stored.version) == ("an answer", MessageStatus.COMPLETED, 4)
        assert len(await chats.messages(script.session, Page())) == 2

    async def test_message_with_a_change_but_no_creation_is_not_shown(self, chats: ChatStore) -> None:
        script = Script()
        parent = script.create()
        reply = script.reply(parent)
        await chats.append([script.events[0], *script.events[2:]])
        assert await chats.message(script.session, reply) is None
        assert [one.id for one in await chats.messages(script.session, Page())] == [parent]
        assert await chats.unfinished(script.session) == []
        assert await chats.branch(script.session, reply, limit=5) == []

    async def test_many_sessions_may_come_at_once(self, chats: ChatStore) -> None:
        scripts = [Script() for _ in range(5)]
        for script in scripts:
            script.reply(script.create(client_id="same"))
        mixed = [event for several in zip(*(one.events for one in scripts), strict=True) for event in several]
        assert await chats.append(mixed) == set()
        for script in scripts:
            assert await chats.events(script.session, after=0, limit=99) == script.events
            assert len(await chats.messages(script.session, Page())) == 2

    async def test_number_that_is_taken_is_told_and_not_applied(self, chats: ChatStore) -> None:
        script, rival = Script(), Script()
        rival.session = script.session
        mine = script.create("mine")
        theirs = [rival.create("theirs"), rival.create("and what follows from it")]
        await chats.append(script.events)
        assert await chats.append([rival.events[1], rival.events[0], script.events[0]]) == {0, 1}
        for message in theirs:
            assert await chats.message(script.session, message) is None
        assert await chats.message(script.session, mine) is not None
        assert await chats.events(script.session, after=0, limit=9) == script.events

    async def test_change_under_a_taken_number_is_not_applied(self, chats: ChatStore) -> None:
        script = Script()
        reply = script.reply(script.create(), content=None)
        rival = Script(script.session, last_seq=2)
        script.start(reply)
        fenced = rival.complete(reply, "not this")
        end = rival.add(EventType.SESSION_ENDED, reason="not this")
        await chats.put_session(make_session(id=script.session))
        await chats.append(script.events)
        script.complete(reply, "but this")
        await chats.append(script.events[-1:])
        assert await chats.append([fenced, end]) == {0, 1}
        stored = await chats.message(script.session, reply)
        session = await chats.session(script.session)
        assert stored is not None
        assert stored.content == "but this"
        assert session is not None
        assert session.status == "active"

    async def test_two_events_with_one_number_in_one_call(self, chats: ChatStore) -> None:
        script, rival = Script(), Script()
        rival.session = script.session
        script.create("first")
        rival.create("second")
        assert await chats.append([script.events[0], rival.events[0]]) == {1}
        assert await contents(chats, script.session, Page()) == ["first"]

    async def test_concurrent_appends_of_the_same_events_agree(self, chats: ChatStore) -> None:
        script = Script()
        for _ in range(5):
            script.reply(script.create())
        parts: list[list[Event]] = [script.events[n:] + script.events[:n] for n in range(0, 20, 3)]
        singles = [[event] for event in script.events]
        outcomes = await asyncio.gather(*(chats.append(part) for part in parts + singles))
        assert set().union(*outcomes) == set()
        stored = await chats.messages(script.session, Page(limit=99))
        assert [one.status for one in stored] == [MessageStatus.COMPLETED] * 10
        assert [one.version for one in stored[1::2]] == [4, 8, 12, 16, 20]

    # -- lists of messages

    async def test_messages_are_paged_both_ways(self, chats: ChatStore) -> None:
        script = Script()
        for n in range(20):
            script.create(str(n))
            if n % 4 == 0:
                for _ in range(7):  # numbers that are no message's
                    script.add(EventType.RUN_COMPLETED, status="completed")
        await chats.append(script.events)
        stored = await chats.messages(script.session, Page(limit=100))
        texts = [str(n) for n in range(20)]
        seqs = [message.seq for message in stored]
        assert [message.content for message in stored] == texts

        async def page(**fields: object) -> list[str]:
            return await contents(chats, script.session, Page(**fields))  # type: ignore[arg-type]

        assert await page(limit=3) == texts[:3]
        assert await page(limit=3, after=seqs[4]) == texts[5:8]
        assert await page(limit=3, before=seqs[10]) == texts[7:10]
        assert await page(limit=50, after=seqs[4], before=seqs[7]) == texts[5:7]
        assert await page(limit=3, descending=True) == texts[:16:-1]
        assert await page(limit=3, descending=True, after=seqs[10]) == texts[9:6:-1]
        assert await page(limit=3, descending=True, before=seqs[10]) == texts[13:10:-1]
        assert await page(limit=1, descending=True, after=seqs[9], before=seqs[2]) == ["8"]
        assert await page(after=seqs[19]) == []
        assert await contents(chats, new_id("chat"), Page()) == []

    async def test_branch_is_what_leads_to_the_leaf(self, chats: ChatStore) -> None:
        script = Script()
        first = script.create("q1")
        one, other = script.reply(first, content="a1"), script.reply(first, content="a1 again")
        left = script.create("q2 left", parent=one)
        right = script.create("q2 right", parent=other)
        end = script.reply(left, content="a2 left")
        await chats.append(script.events)

        async def branch(leaf: str, limit: int = 50) -> list[str]:
            return [one.content for one in await chats.branch(script.session, leaf, limit=limit)]

        assert await branch(end) == ["q1", "a1", "q2 left", "a2 left"]
        assert await branch(right) == ["q1", "a1 again", "q2 right"]
        assert await branch(end, 2) == ["q2 left", "a2 left"]
        assert await branch(end, 1) == ["a2 left"]
        assert await branch(new_id("msg")) == []
        assert await chats.branch(new_id("chat"), end, limit=5) == []

    async def test_branch_of_many_far_parents(self, chats: ChatStore) -> None:
        """Two branches that take turns, with a long stretch of other messages in every tenth step."""
        script = Script()
        leaves = [script.create("0"), script.create("0")]
        for n in range(1, 60):
            leaves = [script.create(f"{n}", parent=leaf) for leaf in leaves]
            if n % 10 == 0:
                for _ in range(40):
                    script.create("beside")
        await chats.append(script.events)
        for leaf in leaves:
            whole = await chats.branch(script.session, leaf, limit=100)
            assert [one.content for one in whole] == [str(n) for n in range(60)]
            part = await chats.branch(script.session, leaf, limit=25)
            assert part == whole[-25:]

    # -- deltas

    async def test_deltas_come_in_order_up_to_the_first_gap(self, chats: ChatStore) -> None:
        session, message = new_id("chat"), new_id("msg")
        pieces = [make_delta(message, n, session=session) for n in range(12)]
        for n in (1, 0, 2, 11, 10, 4, 5, 6, 7, 8, 9):
            await chats.put_delta(pieces[n])
        assert await chats.deltas(message) == pieces[:3]
        await chats.put_delta(pieces[3])
        assert await chats.deltas(message) == pieces
        assert await chats.deltas(new_id("msg")) == []

    async def test_piece_that_is_there_fences_its_second_writer(self, chats: ChatStore) -> None:
        session, message = new_id("chat"), new_id("msg")
        await chats.put_delta(make_delta(message, 0, session=session, text="mine"))
        with pytest.raises(Fenced):
            await chats.put_delta(make_delta(message, 0, session=session, text="theirs"))
        assert [delta.text for delta in await chats.deltas(message)] == ["mine"]

    # -- the feed

    async def test_watch_shows_all_in_the_order_written(self, chats: ChatStore) -> None:
        script = Script()
        reply = script.reply(script.create(), content=None)
        delta = make_delta(reply, 0, session=script.session)
        typing = Ephemeral(session=script.session, type="typing", ts=BEGAN, data={"who": "ann"})
        again = typing.model_copy(update={"ts": BEGAN + timedelta(seconds=1)})
        await chats.append(script.events[:1])
        async with chats.watch() as feed:
            await chats.publish(typing)
            await chats.append(script.events)
            await chats.put_delta(delta)
            done = script.complete(reply)
            await chats.append([done])
            await chats.publish(again)
            expected: list[FeedItem] = [typing, script.events[1], delta, done, again]
            async with asyncio.timeout(10):
                assert [await anext(feed) for _ in expected] == expected

    async def test_watch_ends_with_its_context(self, chats: ChatStore) -> None:
        async with chats.watch() as feed:
            waiting = asyncio.ensure_future(anext(feed, None))
            await asyncio.sleep(0)
            script = Script()
            script.create()
        async with asyncio.timeout(5):
            assert await waiting is None
            await chats.append(script.events)
            assert await anext(feed, None) is None

    async def test_each_watcher_sees_all(self, chats: ChatStore) -> None:
        script = Script()
        for n in range(30):
            script.create(str(n))

        async with chats.watch() as one, chats.watch() as other, asyncio.timeout(10):
            await chats.append(script.events[:20])
            await chats.append(script.events[10:])
            for feed in (one, other):
                assert [await anext(feed) for _ in script.events] == script.events
