"""Provider `scripted`: a model for every task without any model, for tests and to try the house out.

The outputs follow from the inputs alone (`scripted_outputs.py`); how it behaves is steered by the spec's
options, and by directives in texts.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from threading import Event
from typing import Any, Literal

from pydantic import Field, ValidationError

from activities.backends.scripted import ScriptedChatModel
from activities.backends.scripted_outputs import OUTPUTS, Wish, size_of, texts_of
from activities.inference_ports import Item, LoadContext, LoadedModel, Made, Result, Runner
from activities.ports import ChatModel
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task, tasks_of
from goatherd.contracts.inference_work import TextUsage
from goatherd.contracts.model import Contract
from goatherd.errors import GoatherdError, Invalid, Unavailable, WrongTask, from_code

_FAIL = re.compile(r"\[\[fail=([a-z-]+)\]\]")
_TALKS = (Task.CONVERSATIONAL, Task.TEXT_GENERATION)
_STEP_S = 0.005


class ScriptedOptions(Contract):
    """Options of a scripted model's spec."""

    load_ms: float = Field(0, ge=0, description="So long it takes to load.")
    batch_ms: float = Field(0, ge=0, description="So long each batch takes …")
    item_ms: float = Field(0, ge=0, description="… and so long each input of it besides.")
    fail_load: str = Field("", description="Loading fails, and says this.")
    fail_code: Literal["model-broken", "model-unavailable"] = Field(
        "model-broken", description="How loading fails: `model-unavailable` may pass."
    )
    most: int | None = Field(None, ge=1, description="A batch of more inputs runs out of memory.")
    dimensions: int = Field(16, ge=1, le=4_096, description="Of vectors.")
    labels: dict[str, list[str]] | None = Field(
        None, description="Of texts, images and sounds: each with the words that speak for it."
    )


class ScriptedRunner:
    """One task. A text with `[[fail=CODE]]` fails alone with that code (`invalid`, `unavailable`, …), one
    with `[[fail=batch]]` fails the whole batch that it is in."""

    def __init__(self, task: Task, options: ScriptedOptions) -> None:
        self._task = task
        self._options = options
        self._wish = Wish(options.dimensions, options.labels)

    def weigh(self, item: Item) -> int:
        return size_of(item.inputs)

    def run(self, items: Sequence[Item], cancelled: Event) -> list[Result]:
        options = self._options
        if options.most is not None and len(items) > options.most:
            raise Unavailable("the script says out of memory", code="out-of-memory", retry_after_s=5)
        until = time.monotonic() + (options.batch_ms + options.item_ms * len(items)) / 1000
        while (left := until - time.monotonic()) > 0:
            if cancelled.wait(min(left, _STEP_S)):
                return [Unavailable("nobody waits for it any more")] * len(items)
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Result:
        found = _FAIL.search(" ".join(texts_of(item.inputs)))
        if found is not None and found[1] == "batch":
            raise RuntimeError("the script says that the whole batch fails")
        try:
            if found is not None:
                raise _error(found[1])
            output = OUTPUTS[self._task](item.inputs, item.parameters, self._wish)
        except GoatherdError as error:
            return error
        return Made(output, usage=TextUsage(input_tokens=size_of(item.inputs)))


class ScriptedModel:
    """`LoadedModel` of any task."""

    def __init__(self, spec: ModelSpec, options: ScriptedOptions) -> None:
        self._tasks = tasks_of(spec.task)
        self._options = options
        self._chat = ScriptedChatModel() if spec.task in _TALKS else None
        self.memory_bytes = (spec.memory_mb or 0) << 20

    @property
    def tasks(self) -> Sequence[Task]:
        return self._tasks

    def runner(self, task: Task) -> Runner:
        if task not in self._tasks or task in _TALKS:
            raise WrongTask(f"a scripted model for {self._tasks[0]} does not compute {task}")
        return ScriptedRunner(task, self._options)

    @property
    def chat(self) -> ChatModel | None:
        return self._chat

    async def close(self) -> None:
        """Holds nothing."""


class ScriptedProvider:
    """See the module."""

    def check(self, name: str, spec: ModelSpec) -> None:
        _options(name, spec)

    def prepare(self, name: str, spec: ModelSpec, context: LoadContext) -> None:
        """There are no files."""

    def estimate(self, name: str, spec: ModelSpec, context: LoadContext) -> int:
        return (spec.memory_mb or 0) << 20

    def load(self, name: str, spec: ModelSpec, context: LoadContext) -> LoadedModel:
        options = _options(name, spec)
        context.progress(f"loading {name}: its script …")
        time.sleep(options.load_ms / 1000)
        if options.fail_load:
            raise from_code(options.fail_code, options.fail_load)
        return ScriptedModel(spec, options)


def _options(name: str, spec: ModelSpec) -> ScriptedOptions:
    unknown = spec.options.keys() - ScriptedOptions.model_fields.keys()
    if unknown:
        first = min(unknown)
        raise Invalid(f"the model {name!r} has an unknown option {first!r}", pointer=f"/options/{first}")
    try:
        return ScriptedOptions.model_validate(spec.options)
    except ValidationError as error:
        place: Any = error.errors()[0]
        where = "/".join(map(str, place["loc"]))
        raise Invalid(f"the model {name!r}: {place['msg']}", pointer=f"/options/{where}") from error


def _error(code: str) -> GoatherdError:
    if code in ("unavailable", "out-of-memory", "model-unavailable"):
        return Unavailable(f"the script says {code}", code=code)
    return Invalid(f"the script says {code}", code=code)
