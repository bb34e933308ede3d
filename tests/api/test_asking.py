from __future__ import annotations

import pytest

from api.asking import ask_until_there
from goatherd.actors import ActorStopped
from goatherd.errors import SessionEnded, Unavailable


class Actor:
    """Is not there the first `gone` times that it is asked."""

    def __init__(self, gone: int, *, ended: bool = False) -> None:
        self.gone = gone
        self.ended = ended
        self.asks = 0

    async def ask(self) -> str:
        self.asks += 1
        if self.asks <= self.gone:
            raise ActorStopped("gone")
        return "yes"

    async def check_gone(self) -> None:
        if self.ended:
            raise SessionEnded("It has ended.")

    async def answer(self) -> str:
        return await ask_until_there("Ask", self.ask, self.check_gone, actor="Session 'x'")


async def test_one_between_two_runs_is_asked_again() -> None:
    actor = Actor(gone=2)
    assert (await actor.answer(), actor.asks) == ("yes", 3)


async def test_one_that_has_ended_is_asked_once() -> None:
    actor = Actor(gone=1, ended=True)
    with pytest.raises(SessionEnded):
        await actor.answer()
    assert actor.asks == 1


async def test_one_that_is_never_there_can_t_be_reached() -> None:
    with pytest.raises(Unavailable, match="Session 'x'"):
        await Actor(gone=1_000).answer()
