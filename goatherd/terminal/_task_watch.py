"""`goatherd task watch`: how far a task is and who works on what, as its events come, until it is done."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from goatherd.terminal._screen import _clean
from goatherd.terminal._task_api import ENDED, TaskApi, TaskEventView, TaskView
from goatherd.terminal._task_bar import Rate, duration
from goatherd.waiting import put_down

_EVERY_S = 0.25
_LINE_EVERY_S = 2.0
_QUIET_S = 15.0
"""So often a task is read again, whether events came or not."""
_SHOWN = 12


@dataclass(slots=True)
class Sight:
    """What is to be seen of a task. `working`: who has which subtask."""

    task: TaskView
    working: dict[str, list[str]] = field(default_factory=dict)
    rate: float | None = None
    eta_s: float | None = None

    @property
    def ended(self) -> bool:
        return self.task.status in ENDED

    def line(self) -> str:
        counts = self.task.counts
        percent = f" ({counts.done * 100 // counts.total} %)" if counts.total else ""
        parts = [f"{self.task.status}: {counts.done:,} of {counts.total:,} done{percent}", counts.told()]
        if self.rate is not None:
            parts.append(f"{self.rate:,.1f}/s")
        if self.eta_s is not None and not self.ended:
            parts.append(f"{duration(self.eta_s)} left")
        return " · ".join(part for part in parts if part)


class View(Protocol):
    """Shows how a task stands."""

    def __enter__(self) -> View:
        """Before the first."""

    def __exit__(self, *error: object) -> None:
        """After the last."""

    def show(self, sight: Sight) -> None:
        """As it is now; called seldom enough to do it each time."""


async def watch(api: TaskApi, view: View, task_id: str, clock: Callable[[], float] = time.monotonic) -> str:
    """Shows the task until it has ended; gives the status it ended with. Raises `Refused`."""
    sight = Sight(await api.task(task_id))
    rate = Rate(clock)
    after = sight.task.version
    async with aclosing(api.subtasks(task_id, status="leased")) as leased:
        async for subtask in leased:
            if len(sight.working) == _SHOWN * 4:
                break
            sight.working[str(subtask["id"])] = list(subtask.get("assignees", []))
    changed = asyncio.Event()
    following = asyncio.create_task(_follow(api, task_id, after, sight, changed))
    try:
        with view:
            while True:
                rate.at(sight.task.counts.done)
                left = sight.task.counts.total - sight.task.counts.done
                sight.rate, sight.eta_s = rate.value, rate.eta_s(left)
                view.show(sight)
                if sight.ended:
                    return sight.task.status
                waiting = asyncio.create_task(changed.wait())
                await asyncio.wait(
                    {waiting, following}, timeout=_QUIET_S, return_when=asyncio.FIRST_COMPLETED
                )
                await put_down(waiting)
                if following.done():
                    following.result()
                changed.clear()
                sight.task = await api.task(task_id)
                # The events of this while are told together.
                if not sight.ended:
                    await asyncio.sleep(_EVERY_S)
    finally:
        await put_down(following)


async def _follow(api: TaskApi, task: str, after: int, sight: Sight, changed: asyncio.Event) -> None:
    async with aclosing(api.follow(task, after)) as events:
        async for event in events:
            if event is None:
                sight.working.clear()
            else:
                _note(sight, event)
            changed.set()


def _note(sight: Sight, event: TaskEventView) -> None:
    if event.subtask is None or event.state is None:
        return
    workers = [str(worker) for worker in event.state.get("assignees", [])]
    # Who took last stands last.
    sight.working.pop(event.subtask, None)
    if workers:
        sight.working[event.subtask] = workers


class LiveView:
    """A bar and a table that stay in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, sight: Sight) -> None:
        counts = sight.task.counts
        parts: list[RenderableType] = [
            Text(_clean(sight.task.title or sight.task.id), style="bold", no_wrap=True, overflow="ellipsis"),
            ProgressBar(total=max(counts.total, 1), completed=counts.done, width=60),
            Text(sight.line(), overflow="ellipsis"),
        ]
        newest = list(sight.working.items())[-_SHOWN:]
        parts += [Text(f"  {subtask}  {_clean(', '.join(who))}", style="dim") for subtask, who in newest]
        self._live.update(Group(*parts), refresh=True)


class LineView:
    """A line when something has changed, but not more often than every two seconds; the last one always."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._told: tuple[float, object] | None = None

    def __enter__(self) -> LineView:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def show(self, sight: Sight) -> None:
        now, what = self._clock(), (sight.task.status, sight.task.counts)
        if self._told is not None:
            too_soon = now - self._told[0] < _LINE_EVERY_S and not sight.ended
            if too_soon or self._told[1] == what:
                return
        self._told = (now, what)
        self._say(sight.line())


class JsonView:
    """A JSON object a line, whenever something has changed."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._told: object = None

    def __enter__(self) -> JsonView:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def show(self, sight: Sight) -> None:
        task = sight.task
        what = {
            "id": task.id,
            "status": task.status,
            "reason": task.reason,
            "counts": task.counts.model_dump(),
            "done": task.counts.done,
            "total": task.counts.total,
            "working": dict(sight.working),
        }
        if what != self._told:
            self._told = what
            rate = None if sight.rate is None else round(sight.rate, 3)
            self._write(json.dumps({**what, "rate": rate}, ensure_ascii=False))
