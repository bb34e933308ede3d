"""The library called directly, in a process of its own that is idle while the other side is measured.

`python -m bench.inference.library FOLDER TASK` reads an order a line and answers a line, both JSON:
`{"texts": [...], "batch": 32}` computes the texts in batches of like lengths (one by one, as they come, if
the batch is 1) and gives the seconds that each batch took, and the results if `results` is asked for.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

_LONGEST_LINE = 64 << 20


class Library:
    """The process, asked."""

    def __init__(self, process: Process, memory: dict[str, int]) -> None:
        self._process = process
        self.memory = memory
        """Bytes: `libraries`, once imported, and `weights`."""

    async def compute(self, texts: Sequence[str], *, batch: int) -> list[float]:
        """Seconds that each batch took."""
        answer = await _ask(self._process, {"texts": list(texts), "batch": batch})
        return list(answer["seconds"])

    async def results(self, texts: Sequence[str]) -> list[Any]:
        """One by one."""
        answer = await _ask(self._process, {"texts": list(texts), "batch": 1, "results": True})
        return list(answer["results"])

    @property
    def pid(self) -> int:
        return self._process.pid


@asynccontextmanager
async def library(folder: Path, task: str) -> AsyncIterator[Library]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.inference.library", str(folder), task,
        stdin=PIPE, stdout=PIPE, limit=_LONGEST_LINE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield Library(process, json.loads(await process.stdout.readline()))
    finally:
        process.kill()
        await process.wait()


async def _ask(process: Process, order: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(order).encode() + b"\n")
    await process.stdin.drain()
    answer: dict[str, Any] = json.loads(await process.stdout.readline())
    return answer


def _serve(folder: Path, task: str) -> None:
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # What is imported late is the library's, too: a model's own module.
    AutoModelForSequenceClassification._model_mapping[_config(folder).__class__]
    libraries = psutil.Process().memory_full_info().uss
    auto = AutoModel if task == "feature-extraction" else AutoModelForSequenceClassification
    model = auto.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    weights = sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()))
    print(json.dumps({"libraries": libraries, "weights": weights}), flush=True)

    def compute(texts: list[str]) -> list[Any]:
        padded = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            made = model(**padded)
            if task != "feature-extraction":
                scores = made.logits.softmax(-1)
                return [
                    [
                        {"label": model.config.id2label[n], "score": float(score)}
                        for n, score in enumerate(row)
                    ]
                    for row in scores
                ]
            mask = padded["attention_mask"].unsqueeze(-1).float()
            pooled = (made.last_hidden_state * mask).sum(1) / mask.sum(1)
            return list(torch.nn.functional.normalize(pooled, dim=-1).tolist())

    for line in sys.stdin:
        order = json.loads(line)
        texts, size = order["texts"], order["batch"]
        if size > 1:
            texts = sorted(texts, key=len, reverse=True)
        seconds, results = [], []
        for begin in range(0, len(texts), size):
            started = time.perf_counter()
            results += compute(texts[begin : begin + size])
            seconds.append(time.perf_counter() - started)
        answer = {"seconds": seconds, "results": results if order.get("results") else None}
        print(json.dumps(answer), flush=True)


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2])
