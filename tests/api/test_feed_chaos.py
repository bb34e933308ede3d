"""Whatever happens, in whatever order: a client sees every event once, and every piece of a reply once."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from activities.ports import Resync
from api.subscription import Limits
from tests.api.streams import Reader, StagedStore, Writer, feed_on, gathered

STEPS = st.sampled_from(
    [
        *("post", "note", "say", "say", "say", "finish"),
        *("show", "show", "show", "out of order", "drop", "double", "resync", "hide", "reveal"),
        *("stale documents", "fresh documents", "fail", "leave", "lose frames"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, min_size=15, max_size=80), st.randoms(use_true_random=False))
def test_a_client_sees_everything_once_and_in_order_whatever_happens(
    steps: list[str], chance: random.Random
) -> None:
    asyncio.run(_live_through(steps, chance))


async def _live_through(steps: list[str], chance: random.Random) -> None:
    store = StagedStore(staged=True)
    writer = Writer(store)
    limits = Limits(queue_items=20, check_s=0.003, retry_s=0.0005, retry_max_s=0.003)
    async with feed_on(store, limits) as feed:
        reader = Reader(feed, writer.session)
        reader.connect()
        try:
            await _live_and_end(steps, chance, store, writer, reader)
        finally:
            await reader.leave()


async def _live_and_end(
    steps: list[str], chance: random.Random, store: StagedStore, writer: Writer, reader: Reader
) -> None:
    shown: list[Any] = []
    for step in steps:
        await _take_step(step, store, writer, reader, shown, chance)
        for _ in range(chance.choice([0, 1, 5, 40])):
            await asyncio.sleep(0)
    store.hidden, store.documents, store.failing = set(), None, 0
    if writer.reply is not None:
        await writer.say("the end")
        await writer.finish()
    await writer.end()
    await gathered(reader.task)
    assert reader.seqs == list(range(1, writer.seq + 1))
    assert reader.finished == {reply: "".join(pieces) for reply, pieces in writer.pieces.items()}
    for reply, text in reader.texts.items():
        assert text == reader.finished[reply]


async def _take_step(
    step: str, store: StagedStore, writer: Writer, reader: Reader, shown: list[Any], chance: random.Random
) -> None:
    match step:
        case "post" if writer.reply is None:
            await writer.post()
        case "note":
            await writer.post("a note", reply=False)
        case "say" if writer.reply is not None:
            await writer.say(chance.choice(["goat", "ä", "🐐🐐", "x" * 50]))
        case "finish" if writer.reply is not None:
            await writer.finish(chance.choice(["completed", "failed", "cancelled"]))
        case "show" | "out of order" if store.pending:
            item = store.pending.pop(0 if step == "show" else chance.randrange(len(store.pending)))
            shown.append(item)
            store.show(item)
        case "drop" if store.pending:
            store.pending.pop(chance.randrange(len(store.pending)))
        case "double" if shown:
            store.show(chance.choice(shown))
        case "resync":
            store.show(Resync())
        case "hide":
            store.hidden = {chance.randrange(writer.seq + 1, writer.seq + 4)}
        case "reveal":
            store.hidden = set()
        case "stale documents":
            store.documents = await super(StagedStore, store).unfinished(writer.session)
        case "fresh documents":
            store.documents = None
        case "fail":
            store.failing = 2
        case "leave" | "lose frames":
            await reader.leave()
            if step == "lose frames":
                reader.forget(chance.randrange(6))
            reader.connect()
