"""Models of a provider, loaded as a worker loads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event
from typing import Any

from activities.inference_ports import Item, LoadContext, LoadedModel, Made, Provider, Result
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import SHAPES, Parameters, Task


@asynccontextmanager
async def loaded(provider: Provider, spec: ModelSpec) -> AsyncIterator[LoadedModel]:
    with ThreadPoolExecutor(2) as threads:
        context = LoadContext(cache=Path("unused"), executor=threads)
        provider.check("m", spec)
        await asyncio.to_thread(provider.prepare, "m", spec, context)
        model = await asyncio.to_thread(provider.load, "m", spec, context)
        try:
            yield model
        finally:
            await model.close()


def item(task: Task, inputs: Any, /, **parameters: Any) -> Item:
    shape = SHAPES[task]
    read: Parameters = shape.parameters.model_validate(parameters)
    return Item(shape.read_inputs.validate_python(inputs), read)


async def run(model: LoadedModel, task: Task, *items: Item) -> Sequence[Result]:
    """As the worker does: computed in a thread, or awaited if the model is elsewhere."""
    runner: Any = model.runner(task)
    assert all(runner.weigh(one) >= 1 for one in items)
    if asyncio.iscoroutinefunction(runner.run):
        results: Sequence[Result] = await runner.run(items)
    else:
        results = await asyncio.to_thread(runner.run, items, Event())
    assert len(results) == len(items)
    return results


async def outputs(model: LoadedModel, task: Task, *items: Item) -> list[Any]:
    """Of items that all succeed, in the type that the task's outputs are of."""
    made = []
    for result in await run(model, task, *items):
        assert isinstance(result, Made), result
        as_json = SHAPES[task].read_output.dump_python(result.output, mode="json")
        made.append(SHAPES[task].read_output.validate_python(as_json))
    return made
