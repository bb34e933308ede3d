"""What an operator does with Temporal's CLI shows up for readers as an ended session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from activities.reconcile import SessionReadSide
from goatherd.contracts.chat import EventType, MessageStatus
from goatherd.contracts.queues import Pool
from goatherd.errors import SessionEnded
from goatherd.temporal import ActorGone
from tests.temporal import cli, eventually
from tests.workflows.conftest import House
from workers.reconciler import Reconciler

SLOW = "[[words=2000 delay_ms=20]]"


def _reconciler(house: House) -> Reconciler:
    sides = [SessionReadSide(house.store)]
    return Reconciler(house.client, sides, house.settings.task_queue(Pool.ACTORS))


@pytest.fixture
async def watched(house: House) -> AsyncIterator[House]:
    """A house whose reconciler runs."""
    reconciling = asyncio.create_task(_reconciler(house).run())
    yield house
    reconciling.cancel()


async def replying(house: House) -> tuple[str, str]:
    """A session in the midst of a reply."""
    session = (await house.begin()).id
    posted = await house.post(session, SLOW)
    assert posted.reply
    await house.growing(session, posted.reply)
    return session, posted.reply


async def test_cancel_keeps_the_partial_reply(watched: House) -> None:
    session, reply = await replying(watched)
    await cli(watched.client, "workflow", "cancel", "--workflow-id", session)
    assert await watched.ended(session) == "cancelled"
    assert (await watched.finished(session, reply)).status is MessageStatus.CANCELLED
    assert (await watched.kinds(session))[-1] is EventType.SESSION_ENDED


async def test_terminate_ends_the_session_and_fails_its_reply(watched: House) -> None:
    session, reply = await replying(watched)
    await cli(watched.client, "workflow", "terminate", "--workflow-id", session)
    assert await watched.ended(session) == "terminated"
    left = await watched.finished(session, reply)
    assert left.status is MessageStatus.FAILED
    assert left.content
    assert left.error is not None
    assert left.error.code == "session-ended"
    assert (await watched.kinds(session))[-1] is EventType.SESSION_ENDED


async def test_reset_ends_the_session_and_keeps_what_was_read(watched: House) -> None:
    session = (await watched.begin()).id
    posts = [await watched.post(session, f"{n}", reply=False) for n in range(3)]
    await cli(
        watched.client, "workflow", "reset", "--workflow-id", session,
        "--type", "FirstWorkflowTask", "--reason", "to see",
    )  # fmt: skip
    assert await watched.ended(session) == "reset"
    for posted in posts:
        assert await watched.store.message(session, posted.message) is not None
    assert (await watched.kinds(session))[-1] is EventType.SESSION_ENDED


async def test_two_reconcilers_end_a_session_once(watched: House) -> None:
    session, _ = await replying(watched)
    await cli(watched.client, "workflow", "terminate", "--workflow-id", session)
    await asyncio.gather(*(_reconciler(watched).look() for _ in range(5)))
    await watched.ended(session)
    assert (await watched.kinds(session)).count(EventType.SESSION_ENDED) == 1


async def test_a_post_that_knows_more_than_a_reset_run_ends_it(house: House) -> None:
    handle = await house.begin(stored=True)
    posted = [await house.post(handle.id, f"{n}", reply=False, flusher="somebody") for n in range(3)]
    await house.store.append(posted[-1].events)
    with pytest.raises(SessionEnded):
        await house.post(handle.id, "next", reply=False, flushed=3, flushed_event="evt_of_another_past")
    with pytest.raises((SessionEnded, ActorGone)):
        await house.post(handle.id, "next", reply=False)
    assert (await handle.result())["reason"] == "reset"


async def test_a_session_that_whoever_started_it_could_not_write_is_written(watched: House) -> None:
    session = (await watched.begin(stored=True, title="Nobody wrote me")).id

    async def listed() -> bool:
        return await watched.store.session(session) is not None

    await eventually(listed, within_s=20)
    stored = await watched.store.session(session)
    assert stored is not None
    assert stored.title == "Nobody wrote me"
