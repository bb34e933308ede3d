"""Batches of a loaded model: what arrives while one is computed forms the next.

Nothing waits while the model is idle. Under load the batches grow, up to the model's limits, and callers take
turns (`turns.py`). Belongs to one event loop; the model computes in a thread of its own.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import cast

from activities.backends.turns import Turns, Waiting
from activities.inference_ports import (
    AsyncRunner,
    BlockingRunner,
    Computed,
    Item,
    LoadedModel,
    Result,
    Runner,
)
from goatherd.contracts.inference import Limits
from goatherd.contracts.inference_tasks import Task
from goatherd.errors import DeadlineExceeded, GoatherdError, Unavailable
from goatherd.telemetry import metrics

REMOTE_AT_ONCE = 8
"""Batches that one model elsewhere is asked for at the same time."""
_OUT_OF_MEMORY = "out-of-memory"

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Asked:
    """One item on its way to a result."""

    item: Item
    future: asyncio.Future[Computed]
    since: float
    batch: _Batch | None = None
    place: Waiting[_Asked] | None = None


class _Batch:
    """One that is computed: stopped when nobody who is in it waits any more."""

    def __init__(self, asked: list[_Asked], stop: Callable[[], None]) -> None:
        self.asked = asked
        self._left = len(asked)
        self._stop = stop

    def lose(self) -> None:
        self._left -= 1
        if not self._left:
            self._stop()


@dataclass(eq=False)
class _Line:
    """Of one task."""

    task: Task
    runner: Runner
    blocking: bool
    waiting: Turns[_Asked] = field(default_factory=Turns)
    unweighed: list[tuple[_Asked, str]] = field(default_factory=list)
    weighing: bool = False


class Batches:
    """All that is asked of one model. `limits` may be changed at any time.

    A blocking runner computes one batch at a time over all tasks of the model; of a runner elsewhere,
    `REMOTE_AT_ONCE` are under way.

    If a batch fails as a whole, its items are tried one by one, so that a bad one fails alone; if memory did
    not suffice, by halves; if the model can't be had now, all of them fail.
    """

    def __init__(self, model: str, loaded: LoadedModel, limits: Limits) -> None:
        self._model = model
        self._loaded = loaded
        self.limits = limits
        self._lines: dict[Task, _Line] = {}
        self._order: list[_Line] = []
        self._running: dict[asyncio.Task[None], _Batch] = {}
        self._blocked = False
        self._remote = 0
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"model {model}")
        self._scales = ThreadPoolExecutor(1, thread_name_prefix=f"weighing {model}")
        self._weighings: set[asyncio.Task[None]] = set()

    async def compute(
        self, task: Task, items: Sequence[Item], *, callers: Sequence[str], deadline: float | None = None
    ) -> list[Computed]:
        """See `HostedModel.compute`."""
        line = self._line(task)
        loop = asyncio.get_running_loop()
        now = loop.time()
        asked = [_Asked(item, loop.create_future(), now) for item in items]
        for one in asked:
            one.future.add_done_callback(lambda _, one=one: self._done(line, one))  # type: ignore[misc]
        metrics.INFER_WAITING.labels(self._model, task).inc(len(asked))
        timer = None
        if deadline is not None:
            timer = loop.call_later(max(0.0, deadline - time.time()), self._expire, asked)
        try:
            if deadline is not None and deadline <= time.time():
                self._expire(asked)
            elif self._closed:
                raise Unavailable(f"the model {self._model!r} is being put out")
            elif line.blocking and len(asked) == 1 and self._idle():
                # Nothing to sort: it is weighed where it is computed, which saves a hop between threads.
                self._start(line, [*asked], weigh=True)
            else:
                line.unweighed += zip(asked, callers, strict=True)
                self._weigh(line)
            return list(await asyncio.gather(*(one.future for one in asked)))
        finally:
            if timer is not None:
                timer.cancel()
            for one in asked:
                one.future.cancel()

    def waiting(self) -> int:
        return sum(len(line.waiting) + len(line.unweighed) for line in self._lines.values())

    async def close(self) -> None:
        """Takes no more, answers those who wait that it is unavailable, and stops what runs."""
        self._closed = True
        gone = Unavailable(f"the model {self._model!r} is being put out")
        for line in self._lines.values():
            for place in line.waiting.drain():
                self._leave_queue(line)
                _settle(place.what, Computed(gone))
            for one, _ in line.unweighed:
                _settle(one, Computed(gone))
        for batch in self._running.values():
            for one in batch.asked:
                _settle(one, Computed(gone))
        await asyncio.gather(*self._running, *self._weighings, return_exceptions=True)
        self._thread.shutdown(wait=False)
        self._scales.shutdown(wait=False)

    def _line(self, task: Task) -> _Line:
        line = self._lines.get(task)
        if line is None:
            runner = self._loaded.runner(task)
            line = _Line(task, runner, blocking=not inspect.iscoroutinefunction(runner.run))
            self._lines[task] = line
            self._order.append(line)
        return line

    # -- those who wait

    def _done(self, line: _Line, one: _Asked) -> None:
        """Its future has a result, or whoever waited has gone."""
        if one.place is not None and line.waiting.discard(one.place):
            self._leave_queue(line)
        if one.batch is not None:
            one.batch.lose()
        elif one.place is None:
            self._leave_queue(line)

    def _leave_queue(self, line: _Line) -> None:
        metrics.INFER_WAITING.labels(self._model, line.task).dec()

    def _expire(self, asked: Sequence[_Asked]) -> None:
        for one in asked:
            if one.batch is None:
                _settle(one, Computed(DeadlineExceeded("The deadline passed before it was computed.")))

    def _weigh(self, line: _Line) -> None:
        if not line.weighing:
            line.weighing = True
            weighing = asyncio.create_task(self._keep_weighing(line), name=f"weigh for {self._model}")
            self._weighings.add(weighing)
            weighing.add_done_callback(self._weighings.discard)

    async def _keep_weighing(self, line: _Line) -> None:
        loop = asyncio.get_running_loop()
        try:
            while line.unweighed:
                some, line.unweighed = line.unweighed, []
                weights = await loop.run_in_executor(
                    self._scales, _weigh_all, line.runner, [one.item for one, _ in some]
                )
                for (one, caller), weight in zip(some, weights, strict=True):
                    if one.future.done():
                        continue
                    if isinstance(weight, GoatherdError):
                        _settle(one, Computed(weight))
                        continue
                    one.place = Waiting(one, caller, weight)
                    line.waiting.add(one.place)
                    if self._closed:
                        _settle(one, Computed(Unavailable(f"the model {self._model!r} is being put out")))
                self._pump()
        finally:
            line.weighing = False

    # -- those who are computed

    def _idle(self) -> bool:
        return not self._blocked and not any(len(line.waiting) or line.unweighed for line in self._order)

    def _pump(self) -> None:
        """Starts what can be started. Tasks take turns, too."""
        for line in list(self._order):
            while len(line.waiting) and not self._taken(line):
                places = line.waiting.take(self.limits.batch, self.limits.batch_tokens)
                self._order.remove(line)
                self._order.append(line)
                self._start(line, [place.what for place in places])

    def _taken(self, line: _Line) -> bool:
        return self._blocked if line.blocking else self._remote >= REMOTE_AT_ONCE

    def _start(self, line: _Line, asked: list[_Asked], *, weigh: bool = False) -> None:
        cancelled = Event()
        now = asyncio.get_running_loop().time()
        labels = (self._model, line.task)
        task: asyncio.Task[None] | None = None

        def stop() -> None:
            cancelled.set()
            if task is not None and not line.blocking:
                task.cancel()

        batch = _Batch(asked, stop)
        waited = metrics.INFER_QUEUE_SECONDS.labels(*labels)
        for one in asked:
            one.batch = batch
            self._leave_queue(line)
            waited.observe(now - one.since)
        metrics.INFER_BATCH.labels(*labels).observe(len(asked))
        if line.blocking:
            self._blocked = True
        else:
            self._remote += 1
        task = asyncio.create_task(self._compute(line, batch, cancelled, weigh), name=f"{self._model} batch")
        self._running[task] = batch
        task.add_done_callback(lambda done: self._ended(line, done))

    def _ended(self, line: _Line, done: asyncio.Task[None]) -> None:
        batch = self._running.pop(done)
        if line.blocking:
            self._blocked = False
        else:
            self._remote -= 1
        error = None if done.cancelled() else done.exception()
        if error is not None:  # a fault of ours: nobody should wait for it for ever
            _log.error("a batch of %s broke", self._model, exc_info=error)
        for one in batch.asked:
            _settle(one, Computed(_problem(self._model, error or Unavailable("the computation was stopped"))))
        self._pump()

    async def _compute(self, line: _Line, batch: _Batch, cancelled: Event, weigh: bool) -> None:
        began = asyncio.get_running_loop().time()
        try:
            await self._attempt(line, batch.asked, cancelled, weigh)
        finally:
            took = asyncio.get_running_loop().time() - began
            metrics.INFER_COMPUTE_SECONDS.labels(self._model, line.task).observe(took)

    async def _attempt(
        self, line: _Line, asked: Sequence[_Asked], cancelled: Event, weigh: bool = False
    ) -> None:
        """Computes them, and hands each its result."""
        items = [one.item for one in asked]
        try:
            results = await self._run(line, items, cancelled, weigh)
        except Exception as error:
            if cancelled.is_set():
                return
            parts = _apart(asked, error)
            if parts is None:
                if not isinstance(error, GoatherdError):
                    _log.error("%s of %s failed", line.task, self._model, exc_info=error)
                for one in asked:
                    _settle(one, Computed(_problem(self._model, error), len(asked)))
                return
            for part in parts:
                left = [one for one in part if not one.future.done()]
                if left:
                    await self._attempt(line, left, cancelled)
            return
        if len(results) != len(asked):
            if cancelled.is_set():
                return
            _log.error("%s of %s gave %d results for %d", line.task, self._model, len(results), len(asked))
            wrong = GoatherdError(
                f"the model {self._model!r} gave {len(results)} results for {len(asked)} inputs"
            )
            results = [wrong] * len(asked)
        for one, result in zip(asked, results, strict=True):
            _settle(one, Computed(result, len(asked)))

    async def _run(self, line: _Line, items: list[Item], cancelled: Event, weigh: bool) -> Sequence[Result]:
        if not line.blocking:
            return await cast(AsyncRunner, line.runner).run(items)
        runner = cast(BlockingRunner, line.runner)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, _run_here, runner, items, cancelled, weigh)


def _run_here(runner: BlockingRunner, items: list[Item], cancelled: Event, weigh: bool) -> Sequence[Result]:
    if weigh and isinstance(error := _weigh_all(runner, items)[0], GoatherdError):
        return [error]
    if cancelled.is_set():
        return []
    return runner.run(items, cancelled)


def _weigh_all(runner: Runner, items: Sequence[Item]) -> list[int | GoatherdError]:
    weights: list[int | GoatherdError] = []
    for item in items:
        try:
            weights.append(max(1, runner.weigh(item)))
        except GoatherdError as error:
            weights.append(error)
        except Exception as error:
            # Of an input that can't even be weighed, running it will tell more, and alone.
            _log.debug("can't weigh an input", exc_info=error)
            weights.append(1)
    return weights


def _apart(asked: Sequence[_Asked], error: Exception) -> list[Sequence[_Asked]] | None:
    """How to try a failed batch again; None: not at all."""
    if len(asked) == 1:
        return None
    if _is_out_of_memory(error):
        half = len(asked) // 2
        return [asked[:half], asked[half:]]
    if isinstance(error, GoatherdError) and error.retryable:
        return None  # it concerns the model, not an input
    return [[one] for one in asked]


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, GoatherdError) and error.code == _OUT_OF_MEMORY
    )


def _problem(model: str, error: BaseException) -> GoatherdError:
    if isinstance(error, GoatherdError):
        return error
    if isinstance(error, MemoryError):
        return Unavailable("not enough memory for the model", code=_OUT_OF_MEMORY, retry_after_s=5)
    why = str(error).strip().splitlines()
    return GoatherdError(
        f"the model {model!r} failed on this input: {type(error).__name__}" + (f": {why[0]}" if why else "")
    )


def _settle(one: _Asked, computed: Computed) -> None:
    if not one.future.done():
        one.future.set_result(computed)
