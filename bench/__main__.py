"""`make bench`: every benchmark, each as a ratio against raw Temporal or the raw library in the same run.

`make bench ARGS=actors`, `ARGS=chat`, `ARGS=tasks`, `ARGS=inference` or `ARGS=retrieval` runs a part.
"""

from __future__ import annotations

import asyncio
import sys

from bench.actors import durable, local
from bench.chat import run as chat
from bench.inference import run as inference
from bench.retrieval import run as retrieval
from bench.tasks import run as tasks

PARTS = {
    "actors": (local.main, durable.main),
    "chat": (chat.main,),
    "tasks": (tasks.main,),
    "inference": (inference.main,),
    "retrieval": (retrieval.main,),
}


async def main(wanted: list[str]) -> None:
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        raise SystemExit(f"There is no benchmark {unknown[0]!r}: {' or '.join(PARTS)}.")
    for name in wanted or PARTS:
        for measure in PARTS[name]:
            await measure()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
