"""Models by HTTP, on a whole `goatherd up` of its own, against the library called directly.

Both sides of every ratio run alternately in the same run, each in processes of its own that are idle while
the other side is measured; the median round counts.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import struct
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.client import Client

from activities.backends.model_host import FOLLOW_S
from activities.backends.resting import AFTER_S
from bench import processes
from bench.chat.stack import Stack, running
from bench.inference import alone, models
from bench.inference.library import Library, library
from bench.inference.texts import mixed
from bench.measure import Load, load, median, ratio
from goatherd.contracts.inference_work import INFER
from goatherd.embedded._ports import any_free

CLIENTS, TEXTS, ROUNDS, WARM = 64, 512, 3, 128
BATCH = 32
"""Of the library's full batches: on CPUs larger ones are slower."""
MANY = 1_000
SETTLE_S = 1.0  # torch's threads spin for a while after a call, on the cores that the other side needs
REST_S = AFTER_S + 2 * FOLLOW_S
EMBEDDER, CLASSIFIER = "minilm", "opinions"
EXACT = 1e-5


@dataclass(frozen=True, slots=True)
class Side:
    """One task: how it is asked by HTTP, and the library that does the same."""

    name: str
    library: Library
    ask: Callable[[str], Awaitable[Any]]
    differs: Callable[[Any, Any], float]
    """Of an answer by HTTP from the library's result: how much at most."""


async def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        classifier = Path(made) / CLASSIFIER
        await asyncio.to_thread(models.train_classifier, classifier)
        specs = {
            EMBEDDER: {"source": str(models.embedder()), "task": "feature-extraction"},
            CLASSIFIER: {"source": str(classifier), "task": "text-classification"},
        }
        port = any_free()
        more = {
            "GOATHERD_MODELS": json.dumps(specs),
            "GOATHERD_MODEL": EMBEDDER,
            "GOATHERD_PRELOAD": "false",
            "GOATHERD_METRICS_PORT": str(port),
        }
        async with (
            running(more) as stack,
            library(models.embedder(), "feature-extraction") as vectors,
            library(classifier, "text-classification") as labels,
        ):
            bench = Bench(stack, port + 2)
            embeddings = Side("embeddings", vectors, lambda text: embed(stack, text), _far)
            classes = Side("text classification", labels, lambda text: classify(stack, text), _unlike)
            empty = bench.memory()
            for side in (embeddings, classes):
                await bench.throughput(side)
            await alone.measure(stack, embeddings.library, embeddings.ask, bench.metrics)
            await bench.many(vectors)
            await asyncio.sleep(REST_S)
            bench.tell_memory(empty, vectors, labels)


class Bench:
    """The measures, and what they read of the stack."""

    def __init__(self, stack: Stack, metrics_port: int) -> None:
        self._stack = stack
        self._metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"

    async def throughput(self, side: Side) -> None:
        texts = mixed(TEXTS, seed=1)
        print(f"{side.name}, one text a request, {CLIENTS} clients, {ROUNDS} rounds of {TEXTS} texts")
        await self._check(side, texts[:8])
        await load(lambda n: side.ask(texts[n]), clients=CLIENTS, total=WARM)
        await side.library.compute(texts[:WARM], batch=BATCH)
        single, full, ours = [], [], []
        orders = batches = items = 0.0
        for _ in range(ROUNDS):
            await asyncio.sleep(SETTLE_S)
            single.append(_load(await side.library.compute(texts, batch=1), TEXTS))
            full.append(_load(await side.library.compute(texts, batch=BATCH), TEXTS))
            await asyncio.sleep(SETTLE_S)
            client = await Client.connect(self._stack.temporal)
            before, counted = await self.metrics(), await _orders(client)
            cpu = processes.spent(self._stack.pid)
            ours.append(await load(lambda n: side.ask(texts[n]), clients=CLIENTS, total=TEXTS))
            cost = processes.told(cpu, processes.spent(self._stack.pid), TEXTS)
            after = await self.metrics()
            orders += await _orders(client) - counted
            batches += after["batch_count"] - before["batch_count"]
            items += after["batch_sum"] - before["batch_sum"]
            print(f"  one by one   {single[-1]}\n  full batches {full[-1]}\n  ours         {ours[-1]}")
            print(f"    {cost}", flush=True)
        asked = TEXTS * ROUNDS
        print(
            f"  mean batch {items / max(1, batches):.1f};"
            f" activities for 1,000 calls: {orders / asked * 1e3:.0f}"
        )
        ratio(f"{side.name} by HTTP against the library one by one", median(ours), median(single), 3)
        ratio(f"{side.name} by HTTP against full batches of the library", median(ours), median(full), 0.8)

    async def many(self, side: Library) -> None:
        texts = mixed(MANY, seed=2)
        print(f"{MANY:,} texts in one call")
        ours, theirs = [], []
        for _ in range(ROUNDS):
            await asyncio.sleep(SETTLE_S)
            theirs.append(_load(await side.compute(texts, batch=BATCH), MANY))
            await asyncio.sleep(SETTLE_S)
            started = time.perf_counter()
            answer = await embed(self._stack, texts)
            seconds = time.perf_counter() - started
            assert len(answer) == MANY
            ours.append(Load(MANY / seconds, [seconds]))
            print(
                f"  full batches {theirs[-1].rate:8.1f} texts/s\n  ours         {ours[-1].rate:8.1f} texts/s"
            )
        ratio("a thousand texts in one call against full batches", median(ours), median(theirs), 0.8)

    async def metrics(self) -> dict[str, float]:
        """Sums and counts of the inference worker's histograms."""
        async with self._stack.http.get(self._metrics_url) as answer:
            text = await answer.text()
        found: dict[str, float] = {}
        for name, kind, value in re.findall(r"^goatherd_infer_(\w+)_(sum|count)\{.*\} (\S+)$", text, re.M):
            key = f"{name}_{kind}"
            found[key] = found.get(key, 0.0) + float(value)
        return {"batch_count": 0.0, "batch_sum": 0.0, **found}

    def memory(self) -> float:
        """Bytes that only the inference worker has."""
        return float(processes.find(self._stack.pid, "inference").memory_full_info().uss)

    def tell_memory(self, empty: float, vectors: Library, labels: Library) -> None:
        full = self.memory()
        weights = vectors.memory["weights"] + labels.memory["weights"]
        libraries = vectors.memory["libraries"]
        print("memory of the inference worker, both models loaded, at rest after all this load")
        for name, size in (
            ("empty worker", empty), ("torch and transformers alone", libraries), ("weights", weights),
            ("worker now", full),
        ):  # fmt: skip
            print(f"  {size / 1e6:7.0f} MB  {name}")
        times = (full - empty - libraries) / weights
        print(f"  → beside an empty worker and the libraries: {times:.2f} × the weights\n")

    async def _check(self, side: Side, texts: list[str]) -> None:
        theirs = await side.library.results(texts)
        ours = await asyncio.gather(*(side.ask(text) for text in texts))
        most = max(side.differs(one, other) for one, other in zip(ours, theirs, strict=True))
        print(f"  differs from the library by at most {most:.1e}")
        assert most < EXACT


async def embed(stack: Stack, text: str | list[str]) -> Any:
    """As the `openai` client asks: vectors come as base64."""
    body = {"model": EMBEDDER, "input": text, "encoding_format": "base64"}
    async with stack.http.post("/v1/embeddings", json=body) as answer:
        assert answer.status == 200, await answer.text()
        return [one["embedding"] for one in (await answer.json())["data"]]


async def classify(stack: Stack, text: str) -> Any:
    async with stack.http.post(f"/models/{CLASSIFIER}", json={"inputs": text}) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


def _far(ours: Any, theirs: Any) -> float:
    vector = struct.unpack(f"<{len(theirs)}f", base64.b64decode(ours[0]))
    return float(max(abs(one - other) for one, other in zip(vector, theirs, strict=True)))


def _unlike(ours: Any, theirs: Any) -> float:
    found = {one["label"]: one["score"] for one in ours[0]} if isinstance(ours[0], list) else {
        one["label"]: one["score"] for one in ours
    }  # fmt: skip
    return float(max(abs(found.get(one["label"], math.inf) - one["score"]) for one in theirs))


def _load(seconds: list[float], texts: int) -> Load:
    return Load(texts / sum(seconds), seconds)


async def _orders(client: Client) -> float:
    """Activities of inference that there were, once Temporal's list has settled."""
    found, again = -1, -2
    while found != again:
        again = found
        found = (await client.count_activities(f"ActivityType = '{INFER}'")).count
        await asyncio.sleep(0.5)
    return float(found)


if __name__ == "__main__":
    asyncio.run(main())
