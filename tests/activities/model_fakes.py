"""Models whose computing is in a test's hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from activities.inference_ports import Item, LoadContext, LoadedModel, Made, Result, Runner
from activities.ports import ChatModel
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import NoParameters, Task
from goatherd.errors import Invalid, Unavailable

TASK = Task.TEXT_CLASSIFICATION


def item(text: str) -> Item:
    return Item(text, NoParameters())


@dataclass
class GatedRunner:
    """Computes when it is let, and notes what it computed. A text is as heavy as it is long; `bad` ones fail
    the batch, and one that is `unweighable` says so when it is weighed."""

    free: bool = True
    most: int | None = None
    batches: list[list[str]] = field(default_factory=list)
    cancelled: int = 0

    def __post_init__(self) -> None:
        self.gate = threading.Event()
        self.began = threading.Semaphore(0)
        if self.free:
            self.gate.set()

    def weigh(self, item: Item) -> int:
        if item.inputs.startswith("unweighable"):
            raise Invalid("it can't be weighed")
        return len(item.inputs)

    def run(self, items: Sequence[Item], cancelled: threading.Event) -> list[Result]:
        texts = [one.inputs for one in items]
        self.batches.append(texts)
        self.began.release()
        while not self.gate.wait(0.005):
            if cancelled.is_set():
                self.cancelled += 1
                return []
        if self.most is not None and len(texts) > self.most:
            raise Unavailable("no memory", code="out-of-memory")
        if any(text.startswith("bad") for text in texts):
            raise ValueError("a bad one is among them")
        if any(text.startswith("short") for text in texts):
            return []
        return [Made(text.upper()) for text in texts]

    async def begun(self) -> None:
        """Until one more batch is computed."""
        await asyncio.to_thread(self.began.acquire)


@dataclass
class RemoteRunner:
    """Elsewhere: computes when it is let."""

    under_way: int = 0
    most_under_way: int = 0
    cancelled: int = 0
    batches: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate = asyncio.Event()
        self.began = asyncio.Semaphore(0)

    def weigh(self, item: Item) -> int:
        return 1

    async def run(self, items: Sequence[Item]) -> list[Result]:
        self.batches.append([one.inputs for one in items])
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        self.began.release()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        return [Made(one.inputs.upper()) for one in items]


@dataclass(eq=False)
class FakeModel:
    """`LoadedModel` with the runner given."""

    the_runner: Runner
    memory_bytes: int = 0
    chat: ChatModel | None = None
    tasks: Sequence[Task] = (TASK,)
    closed: bool = False

    def runner(self, task: Task) -> Runner:
        return self.the_runner

    async def close(self) -> None:
        self.closed = True


@dataclass
class FakeProvider:
    """Loads at once, or when it is let. A model takes its spec's `options.mb`, and says that before, or
    `options.guess`."""

    failures: int = 0
    loads: list[str] = field(default_factory=list)
    models: list[FakeModel] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Semaphore(0)
        self.make: Callable[[], GatedRunner] = GatedRunner

    def check(self, name: str, spec: ModelSpec) -> None: ...

    def prepare(self, name: str, spec: ModelSpec, context: LoadContext) -> None: ...

    def estimate(self, name: str, spec: ModelSpec, context: LoadContext) -> int:
        guess: Any = spec.options.get("guess", spec.options.get("mb", 0))
        return int(guess) << 20

    def load(self, name: str, spec: ModelSpec, context: LoadContext) -> LoadedModel:
        self.loads.append(name)
        context.progress(f"loading {name}: weights …")
        self.began.release()
        self.gate.wait()
        if len(self.loads) <= self.failures:
            raise Unavailable("the disk is asleep", code="model-unavailable")
        model = FakeModel(self.make(), memory_bytes=int(spec.options.get("mb", 0)) << 20)
        self.models.append(model)
        return model

    async def begun(self) -> None:
        await asyncio.to_thread(self.began.acquire)
