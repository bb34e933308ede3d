"""Coalescing, or group commit: what waits while a batch is under way forms the next batch.

It adds no delay when nothing is under way, and under load it turns many small calls into few large ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


class Coalescer(Generic[In, Out]):
    """Groups concurrent `submit`s into calls of `run`, one call at a time, at most `max_batch` items each.

    `linger`, asked before each call, gives seconds to wait for more: for callers who know that more is on its
    way (as PostgreSQL's `commit_delay` does with `commit_siblings`). Without it nothing ever waits.

    With `weigh`, a batch weighs at most `max_weight`, unless it is one item that is heavier alone.

    `run` returns one result for each item, in order; a result that is an exception is raised at its own
    `submit` alone. If `run` itself raises, every item of that batch gets the exception.
    A caller that is cancelled does not take its item back: it may be under way already.
    """

    def __init__(
        self,
        run: Callable[[Sequence[In]], Awaitable[Sequence[Out | BaseException]]],
        *,
        max_batch: int = 256,
        linger: Callable[[], float] | None = None,
        weigh: Callable[[In], int] | None = None,
        max_weight: int = 0,
    ) -> None:
        self._run = run
        self._linger = linger
        self._max_batch = max_batch
        self._weigh = weigh
        self._max_weight = max_weight
        self._waiting: deque[tuple[In, asyncio.Future[Out]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: In) -> Out:
        future: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._drain())
        # Not shielded: nothing runs in it, so that a caller who is cancelled takes only its answer away.
        return await future

    async def _drain(self) -> None:
        try:
            while self._waiting:
                if self._linger is not None and (delay := self._linger()) > 0:
                    await asyncio.sleep(delay)
                batch = self._next()
                try:
                    results = await self._run([item for item, _ in batch])
                except Exception as error:
                    results = [error] * len(batch)
                for (_, future), result in zip(batch, results, strict=True):
                    if future.done():
                        continue
                    if isinstance(result, BaseException):
                        future.set_exception(result)
                        future.exception()  # a caller that went away leaves nobody to retrieve it
                    else:
                        future.set_result(result)
        finally:
            self._worker = None

    def _next(self) -> list[tuple[In, asyncio.Future[Out]]]:
        most = min(self._max_batch, len(self._waiting))
        if self._weigh is None:
            return [self._waiting.popleft() for _ in range(most)]
        batch = [self._waiting.popleft()]
        room = self._max_weight - self._weigh(batch[0][0])
        while len(batch) < most and (room := room - self._weigh(self._waiting[0][0])) >= 0:
            batch.append(self._waiting.popleft())
        return batch
