"""What a session's actor does with its messages."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence

import pytest

from activities.turn_actor import TemporalTurnActor
from goatherd.contracts.chat import (
    CancelMessage,
    DeleteMessage,
    EndSession,
    Event,
    EventType,
    Feedback,
    FinishReply,
    GiveFeedback,
    MessageStatus,
    Posted,
    Regenerate,
    SessionView,
)
from goatherd.contracts.ids import new_id
from goatherd.errors import SessionBusy, SessionEnded, Unavailable
from goatherd.temporal import ActorGone, ask
from tests.temporal import cli, eventually
from tests.workflows.conftest import House

SLOW = "[[words=400 delay_ms=20]]"


async def test_a_post_is_answered_with_its_number_and_its_events(house: House) -> None:
    session = (await house.begin(stored=True)).id
    first = await house.post(session, "one", reply=False, flusher="somebody")
    second = await house.post(session, "two", reply=False, flusher="somebody")
    assert (first.seq, second.seq) == (1, 2)
    assert first.reply is None
    # He was handed the first already; another was not, and nobody has said yet that it is in the store.
    assert [event.seq for event in second.events] == [2]
    third = await house.post(session, "three", reply=False, flusher="another")
    assert [event.seq for event in third.events] == [1, 2, 3]
    assert third.events[2].data["message"]["parent"] == second.message
    fourth = await house.post(session, "four", reply=False, flusher="a third", flushed=3)
    assert ([event.seq for event in fourth.events], fourth.after, fourth.stored) == ([4], 3, 3)


async def test_a_reply_is_made_and_reaches_the_store(house: House) -> None:
    session = (await house.begin()).id
    posted = await house.post(session, "hello goats")
    assert posted.reply is not None
    reply = await house.finished(session, posted.reply)
    assert reply.status is MessageStatus.COMPLETED
    assert "hello goats" in reply.content
    assert reply.parent == posted.message
    assert await house.kinds(session) == [
        EventType.MESSAGE_CREATED,
        EventType.MESSAGE_CREATED,
        EventType.RUN_STARTED,
        EventType.MESSAGE_COMPLETED,
        EventType.RUN_COMPLETED,
    ]


async def test_an_operator_posts_by_hand(house: House) -> None:
    session = (await house.begin()).id
    output = await cli(
        house.client, "workflow", "update", "execute", "--workflow-id", session, "--name", "PostMessage",
        "--input", '{"content":"hi"}', "--output", "json",
    )  # fmt: skip
    posted = Posted.model_validate(json.loads(output)["result"])
    assert posted.reply is not None
    assert (await house.finished(session, posted.reply)).status is MessageStatus.COMPLETED
    message = await house.store.message(session, posted.message)
    assert message is not None
    assert message.content == "hi"


async def test_an_operator_starts_a_session_by_hand(house: House) -> None:
    session = new_id("chat")
    await cli(
        house.client, "workflow", "start", "--type", "ChatSession", "--workflow-id", session,
        "--task-queue", house.settings.task_queue_prefix + "-actors",
    )  # fmt: skip

    async def stored() -> bool:
        return await house.store.session(session) is not None

    await eventually(stored)


async def test_a_repeated_post_counts_once(house: House) -> None:
    session = (await house.begin()).id
    message_id = new_id("msg")
    answers = [
        await house.post(session, "same", client_id="c-1", reply=False),
        await house.post(session, "same", client_id="c-1", reply=False),
        await house.post(session, "by id", id=message_id, reply=False),
        await house.post(session, "by id", id=message_id, client_id="late", reply=False),
    ]
    assert [answer.duplicate for answer in answers] == [False, True, False, True]
    assert answers[0].message == answers[1].message
    assert answers[2].message == answers[3].message == message_id


async def test_replies_are_made_one_at_a_time_in_order(house: House) -> None:
    session = (await house.begin()).id
    posted = [await house.post(session, f"question {n}") for n in range(4)]
    replies = [await house.finished(session, answer.reply) for answer in posted if answer.reply]
    assert all(reply.status is MessageStatus.COMPLETED for reply in replies)
    runs = [
        e for e in await house.events(session) if e.type in (EventType.RUN_STARTED, EventType.RUN_COMPLETED)
    ]
    assert [(run.type, run.message) for run in runs] == [
        (kind, reply.id) for reply in replies for kind in (EventType.RUN_STARTED, EventType.RUN_COMPLETED)
    ]


async def test_a_store_that_does_not_keep_up_holds_posts_back_and_loses_none(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(_: object) -> set[int]:
        raise Unavailable("The store is down.")

    session = (await house.begin(stored=True)).id
    text = "x" * 60_000
    kept: list[Posted] = []

    async def fill() -> None:
        for _ in range(10):
            kept.append(await house.post(session, text, reply=False, flusher="somebody"))

    with monkeypatch.context() as outage:
        outage.setattr(house.store, "append", down)
        with pytest.raises(Unavailable):
            await fill()
    assert len(kept) >= 2

    async def stored() -> bool:
        return len(await house.store.events(session, after=0, limit=100)) == len(kept)

    await eventually(stored, within_s=30)
    assert (await house.post(session, text, reply=False)).seq == len(kept) + 1


async def test_on_busy_reject(house: House) -> None:
    session = (await house.begin()).id
    await house.post(session, SLOW)
    with pytest.raises(SessionBusy):
        await house.post(session, "too soon", on_busy="reject")
    assert (await house.post(session, "a note needs no reply", on_busy="reject", reply=False)).reply is None


async def test_on_busy_interrupt_cancels_what_is_under_way_and_waiting(house: House) -> None:
    session = (await house.begin()).id
    running = await house.post(session, SLOW)
    waiting = await house.post(session, "waiting")
    assert running.reply
    assert waiting.reply
    await house.growing(session, running.reply)
    urgent = await house.post(session, "now", on_busy="interrupt")
    assert urgent.reply
    assert (await house.finished(session, urgent.reply)).status is MessageStatus.COMPLETED
    first = await house.finished(session, running.reply)
    assert first.status is MessageStatus.CANCELLED
    assert first.content
    assert (await house.finished(session, waiting.reply)).status is MessageStatus.CANCELLED


async def test_cancel_keeps_what_there_is(house: House) -> None:
    session = (await house.begin()).id
    posted = await house.post(session, SLOW)
    assert posted.reply
    await house.growing(session, posted.reply)
    async with asyncio.timeout(5):
        await house.tell(session, CancelMessage(message=posted.reply))
        reply = await house.finished(session, posted.reply)
    assert reply.status is MessageStatus.CANCELLED
    assert reply.finish_reason == "cancelled"
    seen = "".join(delta.text for delta in await house.store.deltas(posted.reply))
    assert reply.content.startswith(seen)


async def test_delete_feedback_and_regenerate(house: House) -> None:
    session = (await house.begin()).id
    posted = await house.post(session, "first")
    assert posted.reply
    await house.finished(session, posted.reply)
    await house.tell(session, GiveFeedback(message=posted.reply, feedback=Feedback(rating="up")))
    order = Regenerate(parent=posted.message, reply_id=new_id("msg"))
    again = await ask(house.client, session, order, Posted, timeout_s=20)
    twice = await ask(house.client, session, order, Posted, timeout_s=20)
    assert again.reply == twice.reply == order.reply_id
    assert twice.duplicate
    assert again.reply
    second = await house.finished(session, again.reply)
    assert second.parent == posted.message
    await house.tell(session, DeleteMessage(message=posted.message))

    async def is_deleted() -> bool:
        message = await house.store.message(session, posted.message)
        return message is not None and message.status is MessageStatus.DELETED and message.content == ""

    await eventually(is_deleted)
    first = await house.store.message(session, posted.reply)
    assert first is not None
    assert first.feedback == Feedback(rating="up")


async def test_end_closes_the_sequence_and_the_workflow(house: House) -> None:
    handle = await house.begin()
    posted = await house.post(handle.id, SLOW)
    queued = await house.post(handle.id, "never made")
    assert posted.reply
    assert queued.reply
    await house.growing(handle.id, posted.reply)
    await house.tell(handle.id, EndSession())
    await handle.result()
    assert (await house.ended(handle.id)) == "deleted"
    assert (await house.kinds(handle.id))[-1] is EventType.SESSION_ENDED
    assert (await house.finished(handle.id, posted.reply)).status is MessageStatus.CANCELLED
    assert (await house.finished(handle.id, queued.reply)).status is MessageStatus.CANCELLED
    with pytest.raises((ActorGone, SessionEnded)):
        await house.post(handle.id, "too late")


async def test_a_reply_that_fails_says_why_and_the_session_goes_on(house: House) -> None:
    session = (await house.begin()).id
    posted = await house.post(session, "[[fail=invalid]]")
    assert posted.reply
    reply = await house.finished(session, posted.reply)
    assert reply.status is MessageStatus.FAILED
    assert reply.error is not None
    assert reply.error.message
    after = await house.post(session, "still there?")
    assert after.reply
    assert (await house.finished(session, after.reply)).status is MessageStatus.COMPLETED


async def test_a_model_that_does_not_exist_fails_the_reply(house: House) -> None:
    session = (await house.begin()).id
    posted = await house.post(session, "hello", model="nonesuch")
    assert posted.reply
    reply = await house.finished(session, posted.reply)
    assert reply.error is not None
    assert reply.error.code == "model-not-found"


async def test_a_long_session_continues_as_new_without_losing_anything(house: House) -> None:
    handle = await house.begin(posts_per_run=5)
    session = handle.id

    async def talk(sender: int) -> list[Posted]:
        return [
            await house.post(session, f"{sender}/{n}", client_id=f"{sender}/{n}", reply=False)
            for n in range(25)
        ]

    answers = [posted for sender in await asyncio.gather(*map(talk, range(6))) for posted in sender]
    assert sorted(posted.seq for posted in answers) == list(range(1, 151))
    assert not any(posted.duplicate for posted in answers)
    again = await house.post(session, "0/0", client_id="0/0", reply=False)
    assert again.duplicate

    async def all_stored() -> bool:
        return len(await house.store.events(session, after=0, limit=1_000)) == 150

    await eventually(all_stored)
    description = await handle.describe()
    assert description.run_id != handle.first_execution_run_id


async def test_replies_and_queues_survive_continue_as_new(house: House) -> None:
    session = (await house.begin(posts_per_run=1)).id
    posted = [await house.post(session, f"question {n}") for n in range(6)]
    for n, answer in enumerate(posted):
        assert answer.reply
        assert f"question {n}" in (await house.finished(session, answer.reply)).content


async def test_history_events_a_message(house: House) -> None:
    handle = await house.begin()
    await house.post(handle.id, "warm", reply=False, flusher="somebody")
    before = len([event async for event in handle.fetch_history_events()])
    for n in range(20):
        await house.post(handle.id, f"{n}", reply=False, flusher="somebody", flushed=n + 1)
    after = len([event async for event in handle.fetch_history_events()])
    assert (after - before) / 20 <= 6


async def test_history_events_a_reply(house: House) -> None:
    handle = await house.begin(stored=True)
    counts = []
    for _ in range(4):
        posted = await house.post(handle.id, "hello", flusher="somebody")
        assert posted.reply
        await house.finished(handle.id, posted.reply)
        counts.append(await house.settled(handle.id))
    assert [more - less for less, more in itertools.pairwise(counts)] == [16, 16, 16]


async def test_a_reply_whose_activity_cannot_ask_the_actor_is_finished_by_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(*_: object) -> list[Event]:
        raise Unavailable("Not now.")

    monkeypatch.setattr(TemporalTurnActor, "finish", unreachable)
    session = (await house.begin()).id
    posted = await house.post(session, "hello")
    assert posted.reply
    reply = await house.finished(session, posted.reply)
    assert reply.status is MessageStatus.COMPLETED
    assert reply.content == "".join(delta.text for delta in await house.store.deltas(posted.reply))


async def test_an_activity_lost_after_it_closed_the_turn_closes_it_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = TemporalTurnActor.finish
    asked = []

    async def finish_and_die(actor: TemporalTurnActor, session: str, order: FinishReply) -> Sequence[Event]:
        asked.append(order)
        events = await finish(actor, session, order)
        if len(asked) == 1:
            raise RuntimeError("killed before it wrote the end")
        return events

    monkeypatch.setattr(TemporalTurnActor, "finish", finish_and_die)
    session = (await house.begin()).id
    posted = await house.post(session, "hello")
    assert posted.reply
    await house.finished(session, posted.reply)
    again = await house.post(session, "and now?")
    assert again.reply
    await house.finished(session, again.reply)
    assert [order.reply is None for order in asked] == [False, True, False]
    kinds = await house.kinds(session)
    assert kinds.count(EventType.MESSAGE_COMPLETED) == kinds.count(EventType.RUN_COMPLETED) == 2


async def test_a_person_can_read_the_state(house: House) -> None:
    handle = await house.begin()
    await house.post(handle.id, "hello", reply=False)
    view = await handle.query("Session", result_type=SessionView)
    assert view.posts == 1
    assert view.status == "active"
    assert "1 messages posted" in await cli(
        house.client, "workflow", "metadata", "--workflow-id", handle.id, "--output", "json"
    )
