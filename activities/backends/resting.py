"""Memory that large batches leave behind, given back to the system when nobody asks for a while."""

from __future__ import annotations

import asyncio
import ctypes
import time
from collections.abc import Callable

AFTER_S = 20.0
"""Of rest. The first call after it has pages to get anew: a millisecond."""


def give_back() -> None:
    """Has the C library give the system what was freed. It keeps that otherwise, for each thread by itself:
    several times the weights of a small model. Only glibc can be asked."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Rest:
    """Says when there was work, and gives memory back once after it."""

    def __init__(
        self, give_back: Callable[[], None] = give_back, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._give_back = give_back
        self._now = now
        self._worked_at: float | None = None

    def worked(self) -> None:
        """Something was computed just now."""
        self._worked_at = self._now()

    async def look(self) -> None:
        """To be called now and then, when nothing is computed."""
        if self._worked_at is None or self._now() - self._worked_at < AFTER_S:
            return
        self._worked_at = None
        await asyncio.to_thread(self._give_back)
