"""What all routes of inference share: how long the caller waits, and running the work while he does."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import cast

from starlette.requests import Request

from api.deps import Parts
from api.errors import InvalidInput
from api.hangup import while_connected
from api.outcomes import error_of
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.inference_work import ModelEntry, Outcome, Piece, WorkItem
from goatherd.errors import Unavailable

TIMEOUT = "x-request-timeout"
_LONGEST_S = 3_600.0
_AHEAD = 64
"""Pieces that wait for a reader that is slower than the model."""


def timeout_of(request: Request) -> float | None:
    """Seconds that the caller gives it: the header `x-request-timeout`. Raises `InvalidInput`."""
    given = request.headers.get(TIMEOUT)
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST_S:
        raise InvalidInput(
            [{"header": TIMEOUT, "detail": f"Seconds, more than 0 and at most {_LONGEST_S:.0f}."}],
            code="invalid-parameter",
        )
    return seconds


def found(parts: Parts, model: str) -> ModelEntry:
    """Raises `ModelNotFound`."""
    return parts.inference.entry(model.rstrip("/"))


async def run(
    request: Request, parts: Parts, entry: ModelEntry, task: Task, items: Sequence[WorkItem]
) -> list[Outcome]:
    """As `Inference.run`, for as long as the client stays."""
    work = parts.inference.run(entry, task, items, caller=parts.principal.id, timeout_s=timeout_of(request))
    return await while_connected(request, work)


async def stream(request: Request, parts: Parts, entry: ModelEntry, task: Task, item: WorkItem) -> Talk:
    """As `Inference.stream`, when there is something of it: an error before the first piece is raised here,
    so that it still has a status."""
    talk = Talk(
        parts.inference.stream(entry, task, item, caller=parts.principal.id, timeout_s=timeout_of(request))
    )
    try:
        await while_connected(request, talk.begun())
    except BaseException:
        await talk.aclose()
        raise
    return talk


class Talk:
    """Text while it is made: pieces, then an outcome that has no problem. One that has is raised.

    A task of its own reads it, so that it has one context from its beginning to its end, however often its
    reader changes.
    """

    def __init__(self, source: AsyncIterator[Piece | Outcome]) -> None:
        self._waiting: asyncio.Queue[Piece | Outcome | Exception] = asyncio.Queue(_AHEAD)
        self._first: Piece | Outcome | None = None
        self._ended = False
        self._reading = asyncio.create_task(self._read(source))

    async def begun(self) -> None:
        """Waits for the first; raises what is raised before it."""
        self._first = await self._next()

    def __aiter__(self) -> Talk:
        return self

    async def __anext__(self) -> Piece | Outcome:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if self._ended:
            raise StopAsyncIteration
        return await self._next()

    async def aclose(self) -> None:
        """Cancels what is not done, and waits until it has ended."""
        self._ended = True
        if not self._reading.done():
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def _next(self) -> Piece | Outcome:
        one = await self._waiting.get()
        if isinstance(one, Outcome) and one.problem is not None:
            one = error_of(one.problem)
        if not isinstance(one, Piece):
            self._ended = True
        if isinstance(one, Exception):
            raise one
        return one

    async def _read(self, source: AsyncIterator[Piece | Outcome]) -> None:
        last: Outcome | Exception = Unavailable("The text has come to no end.")
        try:
            async with aclosing(cast("AsyncGenerator[Piece | Outcome]", source)):
                async for one in source:
                    if isinstance(one, Outcome):
                        last = one
                        break
                    await self._waiting.put(one)
        except Exception as error:
            last = error
        await self._waiting.put(last)
