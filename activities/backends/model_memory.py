"""Room for models: who may take how much memory, and who goes for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count

from goatherd.errors import Unavailable

_MB = 1 << 20
_RETRY_AFTER_S = 5.0


@dataclass(eq=False)
class Resident:
    """A model that takes room, or will. `users`: how many use it now; such a one never goes for another."""

    name: str
    pinned: bool = False
    users: int = 0
    bytes: int = 0
    used_at: int = 0
    """The higher, the later it was used."""
    settled: bool = False
    """Loaded: it can be put out."""
    closed: bool = False


PutOut = Callable[[Resident], Awaitable[None]]


class Room:
    """Memory for models. Belongs to one event loop."""

    def __init__(
        self,
        budget: int,
        *,
        wait_s: float,
        kind: tuple[str, str] = ("model", "models"),
        setting: str = "GOATHERD_MODEL_MEMORY_MB",
    ) -> None:
        """`wait_s`: how long one waits for residents in use to be done. `kind`: what they are, one and many,
        and `setting`: what gives them more room, as people are told."""
        self.budget = budget
        self._one, self._many = kind
        self._setting = setting
        self._wait_s = wait_s
        self._residents: dict[Resident, None] = {}
        self._clock = count(1)
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def used(self) -> int:
        return sum(resident.bytes for resident in self._residents)

    @property
    def free(self) -> int:
        return max(0, self.budget - self.used)

    async def take(self, resident: Resident, need: int, put_out: PutOut) -> None:
        """Reserves `need` bytes, after putting out others if need be: the least recently used first.

        Raises:
            Unavailable: it can never fit (`model-too-large`), or all that could go is in use for longer than
                one waits (`no-room`).
        """
        await self._grow(resident, need, put_out)

    async def correct(self, resident: Resident, measured: int, put_out: PutOut) -> None:
        """Now that it is loaded, what it really takes. Raises as `take` does."""
        if measured > resident.bytes:
            await self._grow(resident, measured, put_out)
        resident.bytes = measured
        resident.settled = True
        self._changed.set()

    def touch(self, resident: Resident) -> None:
        """It was used just now."""
        resident.used_at = next(self._clock)
        if not resident.users:
            self._changed.set()

    def give_back(self, resident: Resident) -> None:
        """It is out of memory."""
        self._residents.pop(resident, None)
        resident.bytes = 0
        self._changed.set()

    async def _grow(self, resident: Resident, size: int, put_out: PutOut) -> None:
        deadline = asyncio.get_running_loop().time() + self._wait_s
        while True:
            # One after the other: else two that come at once would each count on the same room.
            async with self._turn:
                if await self._make_room(resident, size, put_out):
                    self._residents[resident] = None
                    resident.bytes = size
                    return
                self._changed.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
            except TimeoutError:
                busy = ", ".join(repr(one.name) for one in self._others(resident) if not one.pinned)
                raise Unavailable(
                    f"there is no room for the {self._one} {resident.name!r} now: {busy} are in use; "
                    "try again",
                    code="no-room",
                    retry_after_s=_RETRY_AFTER_S,
                ) from None

    async def _make_room(self, resident: Resident, size: int, put_out: PutOut) -> bool:
        """False if one has to wait for those that are in use."""
        while size - resident.bytes > self.budget - self.used:
            others = self._others(resident)
            pinned = sum(one.bytes for one in others if one.pinned)
            if size > self.budget - pinned:
                raise self._too_large(resident, size, pinned)
            idle = [one for one in others if one.settled and not one.pinned and not one.users]
            if not idle:
                return False
            await put_out(min(idle, key=lambda one: one.used_at))
        return True

    def _others(self, resident: Resident) -> list[Resident]:
        """That take room."""
        return [one for one in self._residents if one is not resident and one.bytes]

    def _too_large(self, resident: Resident, whole: int, pinned: int) -> Unavailable:
        kept = f", of which pinned {self._many} keep {_mb(pinned)}" if pinned else ""
        return Unavailable(
            f"the {self._one} {resident.name!r} takes about {_mb(whole)}, and the {self._many} of this "
            f"worker may take {_mb(self.budget)}{kept}: set {self._setting} higher, or serve it on a "
            "larger machine",
            code="model-too-large",
            retry_after_s=60,
        )


def _mb(size: int) -> str:
    return f"{-(-size // _MB)} MB"
