"""What the routes of inference stand on: models by name, calls sent to workers together, text as it grows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from temporalio.client import Client

from activities.model_ports import PieceFeed
from api.grouped_calls import GroupedCalls, check_task, deadline_of, order_of
from api.model_registry import ModelRegistry
from api.piece_readers import PieceReaders
from api.placement import Placement
from goatherd.contracts.ids import new_id
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.inference_work import InferAnswer, ModelEntry, Outcome, Piece, WorkItem
from goatherd.errors import TooManyRequests
from goatherd.payloads import PayloadStore
from goatherd.waiting import put_down


@dataclass(frozen=True, slots=True)
class InferenceParts:
    """What calls need from outside."""

    client: Client
    registry: ModelRegistry
    placement: Placement
    pieces: PieceFeed
    payloads: PayloadStore | None


class ModelInference:
    """`Inference`, by workers of the pool `inference`. Belongs to one event loop. `stream` works while it is
    `running`."""

    def __init__(self, parts: InferenceParts) -> None:
        self._registry = parts.registry
        self._calls = GroupedCalls(parts.client, parts.placement, parts.payloads)
        self._readers = PieceReaders(parts.pieces)
        self._streams: Counter[str] = Counter()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Follows the text that models make."""
        try:
            async with self._readers.running():
                yield self
        finally:
            await self.close()

    async def close(self) -> None:
        """Ends what is under way."""
        await self._calls.close()

    def entry(self, model: str) -> ModelEntry:
        """See `ModelRegistry.entry`."""
        return self._registry.entry(model)

    def entries(self) -> list[ModelEntry]:
        return self._registry.entries()

    async def run(
        self,
        entry: ModelEntry,
        task: Task,
        items: Sequence[WorkItem],
        *,
        caller: str,
        timeout_s: float | None = None,
    ) -> list[Outcome]:
        """See `Inference.run`. Files in outcomes come with their bytes."""
        return await self._calls.run(entry, task, items, caller=caller, timeout_s=timeout_s)

    async def stream(
        self,
        entry: ModelEntry,
        task: Task,
        item: WorkItem,
        *,
        caller: str,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Piece | Outcome]:
        """See `Inference.stream`."""
        check_task(entry, task)
        deadline = deadline_of(entry, timeout_s)
        if self._streams[entry.name] >= entry.spec.limits.queue:
            raise TooManyRequests("As many texts are being made as may be. Try again in a moment.")
        stream = new_id("call")
        item = item.model_copy(update={"caller": caller})
        order = order_of(entry, task, [item], deadline).model_copy(update={"stream": stream})
        shown = tokens = n = 0
        self._streams[entry.name] += 1
        with self._readers.reading(stream) as pieces:
            flight = asyncio.create_task(self._calls.flights.fly(order, resend=False))
            try:
                async for piece in _until_done(flight, pieces):
                    # What comes after one that was missed can't be shown: the answer makes up for it.
                    if piece.n == n:
                        n += 1
                        shown += len(piece.text)
                        tokens += len(piece.tokens or ())
                        yield piece
                outcome = flight.result().outcomes[0]
                if (rest := _rest(outcome, stream, shown, tokens)) is not None:
                    yield rest
                yield outcome
            finally:
                self._streams[entry.name] -= 1
                await put_down(flight)


async def _until_done(
    flight: asyncio.Task[InferAnswer], pieces: asyncio.Queue[Piece]
) -> AsyncIterator[Piece]:
    """The pieces that come before the flight is done."""
    while True:
        coming = asyncio.create_task(pieces.get())
        try:
            await asyncio.wait({flight, coming}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                return
            yield coming.result()
        finally:
            coming.cancel()


def _rest(outcome: Outcome, stream: str, shown: int, tokens: int) -> Piece | None:
    """What of the whole text was not shown yet."""
    if outcome.output is None:
        return None
    text = str(outcome.output.get("generated_text", ""))
    left = (outcome.tokens or [])[tokens:]
    if len(text) <= shown and not left:
        return None
    return Piece(stream=stream, n=-1, offset=shown, text=text[shown:], tokens=left or None)
