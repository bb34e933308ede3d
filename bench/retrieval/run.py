"""Indexes by HTTP, on a whole `goatherd up` of its own, against FAISS and the embedding model called
directly.

Both sides of every ratio run alternately in the same run, each in processes of its own that are idle while
the other side is measured; the median round counts.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from activities.backends.model_host import FOLLOW_S
from activities.backends.resting import AFTER_S
from bench import processes
from bench.chat.stack import Stack, running
from bench.inference import models
from bench.inference.library import library
from bench.inference.texts import mixed
from bench.measure import Load, load, median, ratio
from bench.retrieval.vectors import Vectors, embedded, spread

COUNT, CENTERS, DIMENSIONS = 100_000, 2_000, 384
CLIENTS, QUERIES, ROUNDS, K, BATCH = 32, 1_024, 3, 10, 32
TEXTS, SLICE = 2_000, 2_000
SETTLE_S = 2.0
REST_S = AFTER_S + 2 * FOLLOW_S
MODEL = "minilm"


async def main() -> None:
    specs = {MODEL: {"source": str(models.embedder()), "task": "feature-extraction"}}
    more = {
        "GOATHERD_MODELS": json.dumps(specs),
        "GOATHERD_MODEL": MODEL,
        "GOATHERD_PRELOAD": "false",
    }
    with tempfile.TemporaryDirectory() as made:
        centers = await asyncio.to_thread(embedded, mixed(CENTERS, seed=3), models.embedder())
        vectors, queries = spread(centers, COUNT, seed=4), spread(centers, QUERIES, seed=5)
        files = [Path(made) / name for name in ("vectors.npy", "queries.npy")]
        for file, data in zip(files, (vectors, queries), strict=True):
            np.save(file, data)
        async with running(more) as stack, bare(*files) as faiss:
            await searches(stack, faiss, vectors, queries)
        async with running(more) as stack, library(models.embedder(), "feature-extraction") as model:
            await ingestion(stack, model)


async def searches(stack: Stack, faiss: Process, vectors: Vectors, queries: Vectors) -> None:
    print(f"{COUNT:,} vectors of {DIMENSIONS} numbers, an index of FAISS, flat")
    await call(stack, "/index", {"name": "bench", "dimensions": DIMENSIONS, "lexical": "off"})
    await search(stack, queries[0])  # So that a worker has it, empty.
    before = memory(stack)
    began = time.perf_counter()
    for start in range(0, COUNT, SLICE):
        lines = [
            json.dumps({"id": str(start + n), "vector": packed(row)})
            for n, row in enumerate(vectors[start : start + SLICE])
        ]
        await bulk(stack, "bench", lines)
    await taken_in(stack, "bench")
    print(f"  taken in, with their vectors given: {COUNT / (time.perf_counter() - began):,.0f}/s")
    await search(stack, queries[0])
    await asyncio.sleep(REST_S)
    grown, own = memory(stack) - before, vectors.nbytes
    print(f"  memory, at rest: {grown / 1e6:.0f} MB more for {own / 1e6:.0f} MB of vectors")
    print(f"  → memory against the vectors' own: {grown / own:.2f} (aim 1.3 or less)\n")

    print(f"the best {K}, {CLIENTS} clients, {ROUNDS} rounds of {QUERIES} searches")
    found = await asyncio.gather(*(search(stack, row) for row in queries[:64]))
    exact = (await ask(faiss, batch=BATCH, k=K, ids=True))["ids"]
    hits = sum(
        len({hit["id"] for hit in one} & set(map(str, ids))) for one, ids in zip(found, exact, strict=False)
    )
    print(f"  recall against the library: {hits / (64 * K):.3f}")
    ours, theirs = [], []
    for _ in range(ROUNDS):
        await asyncio.sleep(SETTLE_S)
        seconds = (await ask(faiss, batch=BATCH, k=K))["seconds"]
        theirs.append(Load(QUERIES / sum(seconds), seconds))
        await asyncio.sleep(SETTLE_S)
        cpu = processes.spent(stack.pid)
        ours.append(await load(lambda n: search(stack, queries[n]), clients=CLIENTS, total=QUERIES))
        cost = processes.told(cpu, processes.spent(stack.pid), QUERIES)
        print(
            f"  the library, {BATCH} a batch {theirs[-1]}\n  ours                    {ours[-1]}\n    {cost}",
            flush=True,
        )
    ratio("searches by HTTP against the library in full batches", median(ours), median(theirs), 0.5)


async def ingestion(stack: Stack, model: Any) -> None:
    print(f"{TEXTS:,} texts, embedded by the index's own model, {ROUNDS} rounds")
    ours, theirs = [], []
    for round_ in range(ROUNDS):
        texts = mixed(TEXTS, seed=10 + round_)
        await asyncio.sleep(SETTLE_S)
        seconds = await model.compute(texts, batch=BATCH)
        theirs.append(Load(TEXTS / sum(seconds), seconds))
        await asyncio.sleep(SETTLE_S)
        name = f"texts-{round_}"
        await call(stack, "/index", {"name": name, "model": MODEL})
        lines = [json.dumps({"id": str(n), "text": text}) for n, text in enumerate(texts)]
        began = time.perf_counter()
        await bulk(stack, name, lines)
        await taken_in(stack, name)
        spent = time.perf_counter() - began
        ours.append(Load(TEXTS / spent, [spent]))
        print(
            f"  the model alone {theirs[-1].rate:8.1f} texts/s\n"
            f"  ours            {ours[-1].rate:8.1f} texts/s",
            flush=True,
        )
    ratio("documents taken in against the model alone, in full batches", median(ours), median(theirs), 0.8)


# -- the two sides


@asynccontextmanager
async def bare(vectors: Path, queries: Path) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.retrieval.library", str(vectors), str(queries),
        stdin=PIPE, stdout=PIPE, limit=64 << 20,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield process
    finally:
        process.kill()
        await process.wait()


async def ask(process: Process, **order: Any) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(order).encode() + b"\n")
    answer: dict[str, Any] = json.loads(await process.stdout.readline())
    return answer


async def call(stack: Stack, path: str, body: dict[str, Any]) -> dict[str, Any]:
    async with stack.http.post(path, json=body) as answer:
        assert answer.status < 300, await answer.text()
        found: dict[str, Any] = await answer.json()
        return found


async def bulk(stack: Stack, name: str, lines: list[str]) -> None:
    headers = {"content-type": "application/x-ndjson"}
    async with stack.http.post(f"/index/{name}/doc", data="\n".join(lines), headers=headers) as answer:
        assert answer.status < 300, await answer.text()
        await answer.read()


async def taken_in(stack: Stack, name: str) -> None:
    while True:
        async with stack.http.get(f"/index/{name}") as answer:
            counts = (await answer.json())["counts"]
        assert not counts["failed"], counts
        if not counts["pending"]:
            return
        await asyncio.sleep(0.2)


async def search(stack: Stack, vector: Vectors) -> list[dict[str, Any]]:
    body = {"vector": packed(vector), "k": K, "mode": "dense"}
    return list((await call(stack, "/index/bench/search", body))["hits"])


def packed(vector: Vectors) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def memory(stack: Stack) -> float:
    """Bytes of the worker that searches."""
    return float(processes.find(stack.pid, "actors").memory_full_info().uss)


if __name__ == "__main__":
    asyncio.run(main())
