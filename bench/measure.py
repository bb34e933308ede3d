"""Load, and what is said of it."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """One measured load: `rate` in operations a second, latencies in seconds."""

    rate: float
    latencies: list[float]

    def __str__(self) -> str:
        return f"{self.rate:8.1f}/s   p50 {self.quantile(50):7.2f} ms   p99 {self.quantile(99):7.2f} ms"

    def quantile(self, percent: int) -> float:
        """In milliseconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1e3


async def load(call: Callable[[int], Awaitable[object]], *, clients: int, total: int) -> Load:
    """`total` calls by `clients` that each wait for their last answer; `call` gets the call's number."""
    numbers = iter(range(total))
    latencies: list[float] = []

    async def client() -> None:
        for number in numbers:
            started = time.perf_counter()
            await call(number)
            latencies.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return Load(total / (time.perf_counter() - started), latencies)


def median(loads: list[Load]) -> Load:
    """The load of the median rate."""
    rate = statistics.median_low(load.rate for load in loads)
    return next(load for load in loads if load.rate == rate)


def ratio(name: str, ours: Load, theirs: Load, aim: float) -> None:
    value = ours.rate / theirs.rate
    print(f"  → {name}: {value:.2f} (aim {aim:g} or better){'' if value >= aim else '   MISSED'}\n")
