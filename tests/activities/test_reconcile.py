"""A session that ended behind its worker's back: what its readers have seen stays what they find."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from activities.backends.memory import MemoryChatStore
from activities.reconcile import end_read_side
from goatherd.contracts.chat import Delta, MessageStatus
from goatherd.errors import Fenced
from tests.activities.chat_events import Script, make_delta, make_session


class _Racing(MemoryChatStore):
    """In which a worker writes one more piece right after the pieces were read."""

    late: Delta | None = None

    async def deltas(self, message: str) -> list[Delta]:
        found = await super().deltas(message)
        if self.late is not None:
            late, self.late = self.late, None
            await self.put_delta(late)
        return found


async def writing(store: MemoryChatStore, pieces: int) -> tuple[Script, str]:
    """A session in the midst of a reply."""
    script = Script()
    await store.put_session(make_session(id=script.session))
    reply = script.reply(script.create(), content=None)
    script.start(reply)
    await store.append(script.events)
    for n in range(pieces):
        await store.put_delta(make_delta(reply, n, session=script.session))
    return script, reply


async def content(store: MemoryChatStore, script: Script, reply: str) -> str:
    message = await store.message(script.session, reply)
    assert message is not None
    assert message.status is MessageStatus.FAILED
    return message.content


@pytest.mark.parametrize("pieces", [0, 1, 3])
async def test_a_reply_in_progress_keeps_all_that_was_shown(pieces: int) -> None:
    store = MemoryChatStore()
    script, reply = await writing(store, pieces)
    await end_read_side(store, script.session, "terminated")
    assert await content(store, script, reply) == "word " * pieces


async def test_nobody_adds_to_a_reply_that_was_cut_off() -> None:
    store = MemoryChatStore()
    script, reply = await writing(store, 3)
    await end_read_side(store, script.session, "terminated")
    with pytest.raises(Fenced):
        await store.put_delta(make_delta(reply, 3, session=script.session))


async def test_a_piece_that_came_just_before_is_part_of_it() -> None:
    store = _Racing()
    script, reply = await writing(store, 3)
    store.late = make_delta(reply, 3, session=script.session)
    await end_read_side(store, script.session, "terminated")
    assert await content(store, script, reply) == "word " * 4
    assert texts(await store.deltas(reply)) == "word " * 4


def texts(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)
