"""What is in an image: `image-classification`, `object-detection`, `image-segmentation`.

By transformers' pipelines, with Pillow's image processors: torchvision is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import transformers
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

from activities.backends.hf import loading, masks
from activities.backends.hf.together import forward, part_of, pipeline_of
from activities.backends.media.images import read_image
from activities.inference_ports import Item, LoadContext, LoadedModel, Made, Result
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import (
    Box,
    ClassificationParameters,
    Detection,
    DetectionParameters,
    LabelScore,
    Parameters,
    SegmentationParameters,
    Task,
)
from goatherd.errors import GoatherdError, Unavailable

_CLASSES: dict[Task, tuple[str, ...]] = {
    Task.IMAGE_CLASSIFICATION: ("AutoModelForImageClassification",),
    Task.OBJECT_DETECTION: ("AutoModelForObjectDetection",),
    # In the pipeline's order.
    Task.IMAGE_SEGMENTATION: (
        "AutoModelForImageSegmentation",
        "AutoModelForSemanticSegmentation",
        "AutoModelForInstanceSegmentation",
        "AutoModelForUniversalSegmentation",
    ),
}

# What an image weighs is counted in squares of so many pixels: a vision transformer's usual patch.
_PATCH = 16


def load(name: str, spec: ModelSpec, folder: Path, context: LoadContext) -> LoadedModel:
    loading.set_up(context)
    config = part_of(AutoConfig, folder)
    processor = part_of(AutoImageProcessor, folder, backend="pil")
    model = loading.pretrained(_auto_class(spec.task, config), spec, folder)
    pipe = pipeline_of(spec.task, model, image_processor=processor, tokenizer=_tokenizer(config, folder))
    return loading.Loaded(loading.memory_of(model), {spec.task: PictureRunner(pipe, _READERS[spec.task])})


def _auto_class(task: Task, config: Any) -> Any:
    """That of the task's Auto classes which has the model's own class, or one for its kind of config."""
    autos = [getattr(transformers, auto) for auto in _CLASSES[task]]
    fitting = [auto for auto in autos if type(config) in auto._model_mapping]
    own = set(config.architectures or ())
    for auto in fitting:
        kinds = auto._model_mapping[type(config)]
        if own & {kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,))}:
            return auto
    if not fitting:
        raise ValueError(f"models of type {config.model_type!r} are not for {task}")
    return fitting[0]


def _tokenizer(config: Any, folder: Path) -> Any:
    """OneFormer is told its subtask in words."""
    if config.model_type == "oneformer":
        return part_of(AutoTokenizer, folder)
    return None


Read = Callable[[Any, Any, Any], Any]
"""The task's output of the pipeline, what the model gave for one image, and its parameters."""


class PictureRunner:
    """See `BlockingRunner`. Images that the processor makes equally large are computed together."""

    def __init__(self, pipe: Any, read: Read) -> None:
        self._pipe = pipe
        self._read = read
        self._patches = _patches(pipe.image_processor)

    def weigh(self, item: Item) -> int:
        return self._patches

    def run(self, items: Sequence[Item], cancelled: Event) -> list[Result]:
        results: list[Result] = [Unavailable("cancelled")] * len(items)
        places, prepared = [], []
        for place, item in enumerate(items):
            try:
                prepared.append(self._prepare(item))
                places.append(place)
            except GoatherdError as error:
                results[place] = error
        for place, made in zip(places, forward(self._pipe, prepared, cancelled), strict=True):
            if made is None:
                continue
            try:
                results[place] = Made(self._read(self._pipe, made, items[place].parameters))
            except GoatherdError as error:
                results[place] = error
        return results

    def _prepare(self, item: Item) -> Any:
        image = read_image(item.inputs.data)
        asked: Parameters = item.parameters
        if isinstance(asked, SegmentationParameters):
            masks.check(self._pipe, asked)
            return self._pipe.preprocess(image, subtask=asked.subtask)
        return self._pipe.preprocess(image)


def _patches(processor: Any) -> int:
    """How large images are when the model sees them; 1 if the processor does not say."""
    size: Any = getattr(processor, "crop_size", None) or getattr(processor, "size", None) or {}
    size = dict(size)
    short = size.get("height") or size.get("shortest_edge")
    long = size.get("width") or size.get("longest_edge") or short
    if not short or not long:
        return 1
    return max(1, int(short) * int(long) // _PATCH**2)


def _classes(pipe: Any, made: Any, asked: ClassificationParameters) -> list[LabelScore]:
    options = {} if asked.function_to_apply is None else {"function_to_apply": asked.function_to_apply}
    found = pipe.postprocess(made, top_k=asked.top_k or 5, **_function(options))
    return [LabelScore(**one) for one in found]


def _function(options: dict[str, Any]) -> dict[str, Any]:
    from transformers.pipelines.image_classification import ClassificationFunction

    return {key: ClassificationFunction(value) for key, value in options.items()}


def _detections(pipe: Any, made: Any, asked: DetectionParameters) -> list[Detection]:
    found = pipe.postprocess(made, threshold=asked.threshold)
    return [Detection(label=one["label"], score=one["score"], box=Box(**one["box"])) for one in found]


_READERS: dict[Task, Read] = {
    Task.IMAGE_CLASSIFICATION: _classes,
    Task.OBJECT_DETECTION: _detections,
    Task.IMAGE_SEGMENTATION: masks.segments,
}
