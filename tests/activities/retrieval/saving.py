"""A process that saves an engine again and again, until it is killed.

    python -m tests.activities.retrieval.saving ROOT INDEX PARTS

Says what it began with, and each number that it has saved.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np

from activities.backends.retrieval.local_engine import LocalEngine
from activities.backends.retrieval.local_parts import OpenParts, opening
from activities.backends.retrieval.snapshots import Snapshots
from goatherd.contracts.retrieval import Entry, IndexSpec
from tests.activities.retrieval.plain_parts import open_plain

SPEC = IndexSpec(dimensions=16)
DOCUMENTS = 40
"""Each is written anew when its turn comes: an index has as many as were ever there, and at most so many."""


def entry_of(seq: int) -> Entry:
    """The entry of this number, whoever makes it."""
    vectors = np.random.default_rng(seq).standard_normal((3, SPEC.dimensions))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Entry(
        doc=f"doc {seq % DOCUMENTS}",
        rev=seq,
        seq=seq,
        texts=["cats", "zebra", "quartz"],
        spans=[(0, 4), (0, 5), (0, 6)],
        vectors=vectors.astype("<f4").tobytes(),
        metadata={"seq": seq},
    )


PARTS: dict[str, OpenParts] = {"plain": open_plain, "libraries": opening()}


async def save_for_ever(root: Path, index: str, parts: str) -> None:
    engine = LocalEngine(SPEC, Snapshots(root, index, 1, SPEC), PARTS[parts])
    print("began", engine.applied, flush=True)
    while True:
        upto = engine.applied + 7
        await engine.apply([entry_of(seq) for seq in range(engine.applied + 1, upto + 1)], upto)
        await engine.save()
        print("saved", engine.applied, flush=True)


if __name__ == "__main__":
    asyncio.run(save_for_ever(Path(sys.argv[1]), *sys.argv[2:]))
