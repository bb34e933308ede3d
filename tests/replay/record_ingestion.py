"""Records the histories of ingestion that test_replay replays: `python -m tests.replay.record_ingestion`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from unittest.mock import patch

from activities.backends.retrieval.embedding import Embedding
from activities.indexing import MadeEntries
from goatherd.contracts.retrieval import Document, DocumentIn, IndexSpec, Version
from goatherd.errors import Unavailable
from goatherd.leaving import leave
from tests.histories import record
from tests.replay.record import HISTORIES
from tests.temporal import eventually, temporal_server
from tests.workflows.ingestion_house import Barn, version

OTHER = IndexSpec(model="other", dimensions=8)


class Odd:
    """As `Embedding`, but for documents whose text says what happens."""

    def __init__(self, barn: Barn) -> None:
        self._embedding = Embedding(barn.host)
        self.reached = asyncio.Event()

    async def make(
        self, index: str, version: Version, documents: Sequence[Document]
    ) -> AsyncIterator[MadeEntries]:
        texts = [one.text for one in documents]
        if "odd" in texts:
            raise ZeroDivisionError("odd")
        if "away" in texts:
            self.reached.set()
            raise Unavailable("away")
        async for made in self._embedding.make(index, version, documents):
            yield made


async def ingestion_everything(barn: Barn, odd: Odd) -> str:
    """Documents of which some fail and some are suspected, a version that is built among writes, and one that
    is given up."""
    index = await barn.begin()
    await barn.put_many(index, 150)
    await barn.idle(index)
    await barn.put(index, DocumentIn(id="bad", text="[[fail=invalid]]"), DocumentIn(id="odd", text="odd"))
    await barn.put_many(index, 10, "again {n}")
    await barn.idle(index)
    await barn.store.build(index, version(2, OTHER))
    await barn.nudge(index)
    for n in range(5):
        await barn.put(index, DocumentIn(id=f"d{n}", text=f"meanwhile {n}"))
    await barn.serves(index, 2)
    await barn.idle(index)
    await barn.store.build(index, version(3))
    await barn.put(index, DocumentIn(id="away", text="away"))
    await odd.reached.wait()
    await barn.store.abandon(index, 3)
    await barn.store.remove(index, ["away"])
    await barn.nudge(index)
    await barn.ended(index, within_s=60)
    return index


async def ingestion_runs(barn: Barn, odd: Odd) -> str:
    """Several, of a few parts each."""
    barn.rounds = 3
    index = await barn.begin()
    await barn.put_many(index, 900)
    await barn.idle(index)
    await barn.ended(index)
    return index


async def ingestion_paused(barn: Barn, odd: Odd) -> str:
    """While its documents wait for their model."""
    barn.rounds = 0
    index = await _waiting(barn, odd)
    await barn.store.set_paused(index, True)
    await barn.nudge(index)
    await barn.ended(index)
    return index


async def ingestion_cancelled(barn: Barn, odd: Odd) -> str:
    index = await _waiting(barn, odd)
    await barn.ingestion(index).cancel()
    await barn.ended(index)
    return index


async def ingestion_dropped(barn: Barn, odd: Odd) -> str:
    index = await _waiting(barn, odd)
    await barn.store.drop(index)
    await barn.nudge(index)
    await barn.ended(index)
    return index


async def _waiting(barn: Barn, odd: Odd) -> str:
    odd.reached.clear()
    index = await barn.begin()
    await barn.put_many(index, 100)
    await barn.put(index, DocumentIn(id="away", text="away"))
    await odd.reached.wait()

    async def others() -> bool:
        return len(await barn.store.todo(index, 1, 40)) < 40

    await eventually(others)
    return index


async def main() -> None:
    async with temporal_server() as environment:
        barn = Barn(environment.client)
        odd = Odd(barn)
        with patch("activities.indexing.MOST_BROKEN", 1):
            async with barn.workers(maker=odd):
                for scenario in (
                    ingestion_everything,
                    ingestion_runs,
                    ingestion_paused,
                    ingestion_cancelled,
                    ingestion_dropped,
                ):
                    index = await scenario(barn, odd)
                    await record(environment.client, barn.ingestion(index).id, HISTORIES, scenario.__name__)


if __name__ == "__main__":
    asyncio.run(main())
    leave()  # Temporal's threads may abort an interpreter that ends.
