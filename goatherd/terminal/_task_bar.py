"""How far something is: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from goatherd.terminal._screen import Screen, Terminal

_LINE_EVERY_S = 5.0
_WINDOW_S = 30.0


class Rate:
    """How many a second, over the last half minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, done: int) -> None:
        now = self._clock()
        self._seen.append((now, done))
        while self._seen[0][0] < now - _WINDOW_S and len(self._seen) > 2:
            self._seen.popleft()

    @property
    def value(self) -> float | None:
        """None before there is anything to tell."""
        if len(self._seen) < 2:
            return None
        (before, had), (now, has) = self._seen[0], self._seen[-1]
        return (has - had) / (now - before) if now > before and has > had else None

    def eta_s(self, left: int) -> float | None:
        value = self.value
        return None if value is None else left / value


class Meter(Protocol):
    """Shows an advance towards a total."""

    def begun(self, total: int, *, unit: str) -> AbstractContextManager[None]:
        """While it lasts."""

    def advance(self, count: int) -> None:
        """So many more are done."""


class BarMeter:
    """A bar, the rate, and how long it will take."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._bar: TaskID | None = None
        self._rate = Rate()
        self._done = 0

    @contextmanager
    def begun(self, total: int, *, unit: str) -> Iterator[None]:
        self._rate.at(0)
        with self._progress:
            self._bar = self._progress.add_task(unit, total=total, rate="")
            yield

    def advance(self, count: int) -> None:
        self._done += count
        self._rate.at(self._done)
        value = self._rate.value
        rate = "" if value is None else f"{value:,.0f}/s"
        assert self._bar is not None
        self._progress.update(self._bar, completed=self._done, rate=rate)


class LineMeter:
    """A line every few seconds, and one at the end."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._rate = Rate(clock)
        self._total = self._done = 0
        self._told_at = 0.0
        self._unit = ""

    @contextmanager
    def begun(self, total: int, *, unit: str) -> Iterator[None]:
        self._total, self._unit, self._told_at = total, unit, self._clock()
        self._rate.at(0)
        yield

    def advance(self, count: int) -> None:
        self._done += count
        self._rate.at(self._done)
        now = self._clock()
        if self._done < self._total and now - self._told_at < _LINE_EVERY_S:
            return
        self._told_at = now
        value, eta = self._rate.value, self._rate.eta_s(self._total - self._done)
        rate = "" if value is None else f", {value:,.0f}/s"
        left = "" if eta is None or self._done == self._total else f", {duration(eta)} left"
        self._say(f"{self._done:,} of {self._total:,} {self._unit}{rate}{left}")


def duration(seconds: float) -> str:
    """`2:05` or `1:02:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def meter_for(screen: Screen, console: Console) -> Meter:
    """A bar where a person looks, lines elsewhere."""
    return BarMeter(console) if isinstance(screen, Terminal) else LineMeter(screen.notice)
