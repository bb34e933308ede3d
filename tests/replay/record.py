"""Records the histories that test_replay replays: `python -m tests.replay.record`.

Record anew only what is not released yet: a history that no longer replays is a session that would break.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from activities.backends.model_host import ModelHost
from goatherd.contracts.chat import (
    CancelMessage,
    DeleteMessage,
    EndSession,
    Feedback,
    ForkOrigin,
    GiveFeedback,
    Posted,
    Ready,
    Regenerate,
)
from goatherd.leaving import leave
from goatherd.temporal import ask
from tests.histories import record
from tests.temporal import temporal_server
from tests.workflows.conftest import ALL_POOLS, House, make_house
from workers.pools import Parts, build_workers

HISTORIES = Path(__file__).parent / "histories"
SLOW = "[[words=400 delay_ms=20]]"


async def everything(house: House) -> str:
    """Every message that a session takes."""
    session = (await house.begin()).id
    first = await house.post(session, "hello", client_id="c-1")
    await house.post(session, "hello", client_id="c-1")
    assert first.reply
    await house.finished(session, first.reply)
    regenerated = await ask(house.client, session, Regenerate(parent=first.message), Posted, timeout_s=10)
    assert regenerated.reply
    await house.finished(session, regenerated.reply)
    await house.tell(session, GiveFeedback(message=first.reply, feedback=Feedback(rating="down")))
    slow = await house.post(session, SLOW)
    assert slow.reply
    await house.growing(session, slow.reply)
    await house.tell(session, CancelMessage(message=slow.reply))
    await house.finished(session, slow.reply)
    failing = await house.post(session, "[[fail=invalid]]", flusher="somebody")
    assert failing.reply
    await house.finished(session, failing.reply)
    running = await house.post(session, SLOW)
    assert running.reply
    await house.growing(session, running.reply)
    await house.post(session, "queued")
    urgent = await house.post(session, "now", on_busy="interrupt")
    assert urgent.reply
    await house.finished(session, urgent.reply)
    await house.tell(session, DeleteMessage(message=first.message))
    await house.tell(session, EndSession())
    await house.ended(session)
    return session


async def many_runs(house: House) -> str:
    """Continue-as-new, with replies under way and waiting."""
    session = (await house.begin(posts_per_run=2)).id
    posts = [await house.post(session, f"question {n}", client_id=f"{n}") for n in range(7)]
    for posted in posts:
        assert posted.reply
        await house.finished(session, posted.reply)
    await house.settled(session)
    return session


async def forked(house: House) -> str:
    """A session that starts with another one's messages."""
    source = (await house.begin()).id
    posted = await house.post(source, "hello")
    assert posted.reply
    await house.finished(source, posted.reply)
    session = (await house.begin(fork=ForkOrigin(session=source, message=posted.reply))).id
    await house.tell(session, Ready())
    await house.post(session, "and on", reply=False)
    await house.client.get_workflow_handle(session).cancel()
    await house.ended(session)
    return session


async def main() -> None:
    HISTORIES.mkdir(exist_ok=True)
    async with temporal_server() as environment, AsyncExitStack() as stack:
        house = make_house(environment.client)
        parts = Parts(house.client, house.store, ModelHost(house.settings), house.settings)
        for worker in build_workers(ALL_POOLS, parts):
            await stack.enter_async_context(worker)
        for scenario in (everything, many_runs, forked):
            session = await scenario(house)
            await record(house.client, session, HISTORIES, scenario.__name__)


if __name__ == "__main__":
    asyncio.run(main())
    leave()  # Temporal's threads may abort an interpreter that ends.
