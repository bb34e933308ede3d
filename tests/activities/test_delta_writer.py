"""What becomes of a reply's pieces when the reply is stopped."""

from __future__ import annotations

import asyncio

import pytest

from activities.backends.memory import MemoryChatStore
from activities.chat import _DeltaWriter
from goatherd.contracts.chat import Delta, WriteReply
from goatherd.contracts.ids import new_id


class DeafStore(MemoryChatStore):
    """Swallows the first cancellation of a write, as `asyncio.wait_for` can."""

    def __init__(self) -> None:
        super().__init__()
        self.writing = asyncio.Event()

    async def put_delta(self, delta: Delta) -> None:
        self.writing.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await super().put_delta(delta)


async def test_a_swallowed_cancellation_does_not_hold_the_reply_up() -> None:
    store = DeafStore()
    order = WriteReply(session=new_id("chat"), reply=new_id("msg"), parent=new_id("msg"), model="m")
    writer = _DeltaWriter(store, order, [])

    async def reply() -> None:
        async with writer:
            writer.add("some text")
            await asyncio.Event().wait()

    replying = asyncio.create_task(reply())
    await store.writing.wait()
    replying.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await replying
    assert writer.text == "some text"


async def test_the_last_piece_is_written_before_the_reply_ends() -> None:
    store = MemoryChatStore()
    order = WriteReply(session=new_id("chat"), reply=new_id("msg"), parent=new_id("msg"), model="m")
    async with _DeltaWriter(store, order, []) as writer:
        for word in ("one ", "two ", "three"):
            writer.add(word)
            await asyncio.sleep(0)
    assert "".join(delta.text for delta in await store.deltas(order.reply)) == "one two three"
