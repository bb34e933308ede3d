"""Models of images and sounds, loaded as a worker loads them, and called as its batches call them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

from activities.backends.hf.provider import HuggingFaceProvider
from activities.inference_ports import Item, LoadContext, LoadedModel, Made
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import SHAPES, Media, Task
from goatherd.settings import Settings


def context() -> LoadContext:
    """One thread: several that wait for each other are slow where other tests take their cores."""
    return LoadContext(Settings().cache, ThreadPoolExecutor(1), threads=1)


def loaded(source: Path, task: Task, **fields: Any) -> LoadedModel:
    spec = ModelSpec(source=str(source), task=task, device="cpu", **fields)
    return HuggingFaceProvider().load("a-model", spec, context())


def item(task: Task, inputs: Any, /, **parameters: Any) -> Item:
    """Of a file's bytes, or a text; with the task's parameters."""
    if isinstance(inputs, bytes):
        inputs = Media(data=inputs)
    return Item(inputs, SHAPES[task].parameters.model_validate(parameters))


def run(model: LoadedModel, items: Sequence[Item], cancelled: Event | None = None) -> list[Any]:
    """The outputs, in the task's own types; errors where there is none."""
    task = model.tasks[0]
    results = model.runner(task).run(items, cancelled or Event())  # type: ignore[union-attr, call-arg]
    assert isinstance(results, list)
    for one in results:
        if isinstance(one, Made):
            SHAPES[task].read_output.validate_python(one.output)
    return [one.output if isinstance(one, Made) else one for one in results]
