"""Timers of all the actors of a runtime: a heap of deadlines behind one alarm."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from goatherd.actors._environment import Environment


class Timer:
    """One timer. `interval_s` None: it rings once.

    `number` is its place among those of the same time; 0 until it has one.
    """

    __slots__ = ("cancelled", "fixed_rate", "interval_s", "key", "message", "number", "ring", "when")

    def __init__(
        self,
        key: str,
        message: Any,
        when: float,
        ring: Callable[[Timer], None],
        *,
        interval_s: float | None = None,
        fixed_rate: bool = False,
        number: int = 0,
    ) -> None:
        self.key = key
        self.message = message
        self.when = when
        self.ring = ring
        self.interval_s = interval_s
        self.fixed_rate = fixed_rate
        self.number = number
        self.cancelled = False


class Deadlines:
    """The heap. Keeps the environment's alarm at the earliest deadline."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._heap: list[tuple[float, int, Timer]] = []
        self.count = 0
        self._alarm: float | None = None
        self._live = 0

    def add(self, timer: Timer) -> None:
        self._live += 1
        if not timer.number:
            self._renumber(timer)
        heapq.heappush(self._heap, (timer.when, timer.number, timer))
        self._set_alarm()

    def _renumber(self, timer: Timer) -> None:
        self.count += 1
        timer.number = self.count

    def cancel(self, timer: Timer) -> None:
        """Of one that has rung for the last time, or is cancelled: nothing."""
        if timer.cancelled:
            return
        timer.cancelled = True
        self._live -= 1
        # The heap drops it when its time comes. Many cancelled ones, as of asks answered in time, go at once.
        if len(self._heap) > 64 and self._live < len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if not entry[2].cancelled]
            heapq.heapify(self._heap)
        self._set_alarm()

    def ring(self) -> None:
        """Rings all that are due."""
        self._alarm = None
        now = self._environment.now()
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].cancelled):
            timer = heapq.heappop(self._heap)[2]
            if timer.cancelled:
                continue
            if timer.interval_s is None:
                timer.cancelled = True
                self._live -= 1
            else:
                timer.when = (timer.when if timer.fixed_rate else now) + timer.interval_s
                self._renumber(timer)
                heapq.heappush(self._heap, (timer.when, timer.number, timer))
            timer.ring(timer)
        self._set_alarm()

    @property
    def earliest(self) -> float | None:
        while self._heap and self._heap[0][2].cancelled:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _set_alarm(self) -> None:
        earliest = self.earliest
        if earliest != self._alarm:
            self._alarm = earliest
            self._environment.alarm(earliest)
