"""Models of texts as tests ask them: loaded from a folder, one batch or one by one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any, cast

from activities.backends.hf.provider import HuggingFaceProvider
from activities.inference_ports import BlockingRunner, Item, LoadContext, LoadedModel, Made, Result
from goatherd.contracts.inference import Limits, ModelSpec
from goatherd.contracts.inference_tasks import SHAPES, Task
from goatherd.errors import Invalid
from goatherd.settings import Settings

ODD = [
    "   ",
    "🐐🐐 a family 👨‍👩‍👧‍👦 in 🇨🇭!",
    "الماعز تأكل العشب على الجبل",
    "你好,世界。山羊在山上吃草。",
    "naïve œuvre\u0000\ufffd\u200b",
    "goat " * 5_000,
    "x" * 20_000,
    ".",
]
"""Texts of other alphabets, very long ones, and such as have hardly any words."""


def context() -> LoadContext:
    """One thread: several that wait for each other are slow where other tests take their cores."""
    return LoadContext(Settings().cache, ThreadPoolExecutor(1), threads=1)


def load(source: Path | str, task: Task, **limits: int) -> LoadedModel:
    spec = ModelSpec(source=str(source), task=task, device="cpu", limits=Limits(**limits))
    return HuggingFaceProvider().load("tested", spec, context())


def item(task: Task, inputs: Any, **parameters: Any) -> Item:
    shape = SHAPES[task]
    return Item(shape.read_inputs.validate_python(inputs), shape.parameters(**parameters))


def run(
    model: LoadedModel, task: Task, items: Sequence[Item], cancelled: Event | None = None
) -> list[Result]:
    """In one batch, weighed before as the batcher does it."""
    runner = cast(BlockingRunner, model.runner(task))
    for one in items:
        # What is wrong with an item a runner says again, in the item's place.
        with suppress(Invalid):
            assert runner.weigh(one) > 0
    return runner.run(items, cancelled or Event())


def ask(model: LoadedModel, task: Task, *inputs: Any, **parameters: Any) -> list[Any]:
    """Outputs of inputs that have the same parameters; none of them fails."""
    results = run(model, task, [item(task, one, **parameters) for one in inputs])
    outputs = []
    for result in results:
        assert isinstance(result, Made), result
        SHAPES[task].read_output.validate_python(result.output)
        outputs.append(result.output)
    return outputs


def one_by_one(model: LoadedModel, task: Task, *inputs: Any, **parameters: Any) -> list[Any]:
    return [output for one in inputs for output in ask(model, task, one, **parameters)]
