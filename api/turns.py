"""Long work on the event loop, in turns with all else that goes on there."""

from __future__ import annotations

import asyncio
from time import perf_counter

_TURN_S = 0.003


class Turns:
    """Of one piece of work. It asks often: what never really waits would hold up everybody until it ends."""

    def __init__(self) -> None:
        self._since = perf_counter()

    async def give_way(self) -> None:
        """Lets the others go on if this has had its few milliseconds; else it costs next to nothing."""
        if perf_counter() - self._since > _TURN_S:
            await asyncio.sleep(0)
            self._since = perf_counter()
