"""Memory is given back once, after a while of rest."""

from __future__ import annotations

from activities.backends.resting import AFTER_S, Rest, give_back


class House:
    def __init__(self) -> None:
        self.given_back = 0
        self.now = 100.0
        self.rest = Rest(self._give_back, now=lambda: self.now)

    def _give_back(self) -> None:
        self.given_back += 1

    async def later(self, seconds: float) -> int:
        self.now += seconds
        await self.rest.look()
        return self.given_back


async def test_it_is_given_back_once_after_work() -> None:
    house = House()
    assert await house.later(AFTER_S) == 0
    house.rest.worked()
    assert await house.later(AFTER_S - 1) == 0
    assert await house.later(1) == 1
    assert await house.later(10 * AFTER_S) == 1


async def test_work_puts_it_off() -> None:
    house = House()
    house.rest.worked()
    house.now += AFTER_S - 1
    house.rest.worked()
    assert await house.later(AFTER_S - 1) == 0
    assert await house.later(1) == 1


def test_the_c_library_is_asked() -> None:
    give_back()
