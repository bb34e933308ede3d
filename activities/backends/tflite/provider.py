"""`Provider` by TensorFlow Lite graphs, in this process. Light until a model is loaded."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from activities.backends.model_sources import broken, unusable
from activities.backends.tflite.files import find_graph, read_labels
from activities.inference_ports import LoadContext, LoadedModel, Runner
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.providers import TFLiteOptions, read_options
from goatherd.errors import Invalid, WrongTask

if TYPE_CHECKING:
    from activities.backends.tflite.graph import Graph

_TASKS = (Task.IMAGE_CLASSIFICATION, Task.OBJECT_DETECTION, Task.AUDIO_CLASSIFICATION, Task.TENSORS)
_ROOM = 2
"""Times its file: the graph is mapped, and what it computes with is of about the same size."""


class TFLiteProvider:
    """`source` is a `.tflite` file, or a folder or package (`package:NAME`) with one. Every graph serves
    `tensors` as well."""

    def check(self, name: str, spec: ModelSpec) -> None:
        if spec.task not in _TASKS:
            raise WrongTask(f"model {name!r}: the provider tflite has no {spec.task}")
        if not spec.source:
            raise Invalid(f"model {name!r} has no source: its file", pointer="/source")
        if spec.device not in ("auto", "cpu"):
            raise Invalid(f"model {name!r}: the provider tflite computes on the CPU", pointer="/device")
        read_options(TFLiteOptions, spec)

    def prepare(self, name: str, spec: ModelSpec, context: LoadContext) -> None:
        find_graph(name, spec, read_options(TFLiteOptions, spec))

    def estimate(self, name: str, spec: ModelSpec, context: LoadContext) -> int:
        return _ROOM * find_graph(name, spec, read_options(TFLiteOptions, spec)).stat().st_size

    def load(self, name: str, spec: ModelSpec, context: LoadContext) -> LoadedModel:
        self.check(name, spec)
        options = read_options(TFLiteOptions, spec)
        file = find_graph(name, spec, options)
        labels = read_labels(name, spec, file, options)
        context.progress(f"loading {name}: {file.name} …")
        try:
            from activities.backends.tflite.detection import detector
            from activities.backends.tflite.graph import Graph
            from activities.backends.tflite.images import ImageClasses
            from activities.backends.tflite.sounds import SoundClasses
            from activities.backends.tflite.tensors import TensorsRunner
        except ModuleNotFoundError as error:
            raise broken(name, f"{error.name} is not installed", "install goatherd[tflite]") from error
        kinds: dict[Task, Any] = {
            Task.IMAGE_CLASSIFICATION: ImageClasses,
            Task.OBJECT_DETECTION: detector,
            Task.AUDIO_CLASSIFICATION: SoundClasses,
        }
        try:
            graph = Graph(file, options.threads or context.threads)
            runners: dict[Task, Runner] = {}
            if spec.task in kinds:
                runners[spec.task] = kinds[spec.task](graph, labels, options)
            runners[Task.TENSORS] = TensorsRunner(graph)
        except (ValueError, RuntimeError) as error:
            raise unusable(
                name, error, f"{file.name} can't be used ({error})", "check its file and task"
            ) from error
        return _Loaded(_ROOM * file.stat().st_size, runners, graph)


class _Loaded:
    """See `LoadedModel`."""

    chat = None

    def __init__(self, memory_bytes: int, runners: dict[Task, Runner], graph: Graph) -> None:
        self.memory_bytes = memory_bytes
        self.tasks = tuple(runners)
        self._runners = runners
        self._graph: Graph | None = graph

    def runner(self, task: Task) -> Runner:
        try:
            return self._runners[task]
        except KeyError:
            raise WrongTask(f"the model is for {', '.join(self.tasks)}, not for {task}") from None

    async def close(self) -> None:
        self._runners.clear()
        self._graph = None
        gc.collect()
