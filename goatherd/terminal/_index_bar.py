"""How far a load is: what was sent, and what the index has taken in of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from goatherd.terminal._screen import Screen, Terminal
from goatherd.terminal._task_bar import Rate, duration

_LINE_EVERY_S = 5.0


class IntakeMeter(Protocol):
    """Shows two counts on their way to one total."""

    def begun(self, total: int) -> AbstractContextManager[None]:
        """While it lasts. Nothing is shown of nothing."""

    def at(self, sent: int, taken: int, refused: int = 0) -> None:
        """So many were sent, and so many of them taken in; those that were refused count no more."""


class IntakeBars:
    """Two bars, with rates and how long it will take."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._rates = (Rate(), Rate())
        self._bars: list[TaskID] = []
        self._total = 0

    @contextmanager
    def begun(self, total: int) -> Iterator[None]:
        if not total:
            yield
            return
        with self._progress:
            self._total = total
            self._bars = [
                self._progress.add_task(name, total=total, rate="") for name in ("sent", "taken in")
            ]
            self.at(0, 0)
            yield

    def at(self, sent: int, taken: int, refused: int = 0) -> None:
        for bar, rate, done in zip(self._bars, self._rates, (sent, taken), strict=False):
            rate.at(done)
            told = "" if rate.value is None else f"{rate.value:,.0f}/s"
            self._progress.update(bar, completed=done, total=self._total - refused, rate=told)


class IntakeLines:
    """A line every few seconds, and one at the end."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._rate = Rate(clock)
        self._total = 0
        self._told_at = 0.0
        self._told: tuple[int, int] | None = None

    @contextmanager
    def begun(self, total: int) -> Iterator[None]:
        self._total, self._told_at = total, self._clock()
        self._rate.at(0)
        yield

    def at(self, sent: int, taken: int, refused: int = 0) -> None:
        self._rate.at(taken)
        now, counts, total = self._clock(), (sent, taken), self._total - refused
        ended = taken >= total
        if not total or counts == self._told or (not ended and now - self._told_at < _LINE_EVERY_S):
            return
        self._told_at, self._told = now, counts
        value, eta = self._rate.value, self._rate.eta_s(total - taken)
        rate = "" if value is None else f", {value:,.0f}/s"
        left = "" if eta is None or ended else f", {duration(eta)} left"
        self._say(f"{sent:,} of {total:,} sent, {taken:,} taken in{rate}{left}")


def intake_meter_for(screen: Screen, console: Console) -> IntakeMeter:
    """Bars where a person looks, lines elsewhere."""
    return IntakeBars(console) if isinstance(screen, Terminal) else IntakeLines(screen.notice)
