"""What a sound is: `audio-classification`, by transformers' pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from activities.backends.hf import loading
from activities.backends.hf.together import forward, part_of, pipeline_of
from activities.backends.media.audio import peek_s, read_sound
from activities.inference_ports import Item, LoadContext, LoadedModel, Made, Result
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import ClassificationParameters, LabelScore
from goatherd.errors import GoatherdError, Unavailable

MOST_S = 120.0
"""A sound is classified as a whole, in memory that grows with the square of its length."""

_PER_S = 50


def load(name: str, spec: ModelSpec, folder: Path, context: LoadContext) -> LoadedModel:
    loading.set_up(context)
    model = loading.pretrained(AutoModelForAudioClassification, spec, folder)
    pipe = pipeline_of(spec.task, model, feature_extractor=part_of(AutoFeatureExtractor, folder))
    return loading.Loaded(loading.memory_of(model), {spec.task: SoundRunner(pipe)})


def fills_alike(feature_extractor: Any) -> bool:
    """Whether sounds of different lengths, filled up to one, are what they are alone: if the model is told
    where they end. Those trained without a mask (wav2vec2-base and others) hear the silence after a sound."""
    return bool(getattr(feature_extractor, "return_attention_mask", False))


class SoundRunner:
    """See `BlockingRunner`. Sounds of the same length are computed together."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def weigh(self, item: Item) -> int:
        return max(1, int(_PER_S * peek_s(item.inputs.data)))

    def run(self, items: Sequence[Item], cancelled: Event) -> list[Result]:
        results: list[Result] = [Unavailable("cancelled")] * len(items)
        places, prepared = [], []
        for place, item in enumerate(items):
            try:
                prepared.append(self._prepare(item.inputs.data))
                places.append(place)
            except GoatherdError as error:
                results[place] = error
        for place, made in zip(places, forward(self._pipe, prepared, cancelled), strict=True):
            if made is not None:
                asked = items[place].parameters
                assert isinstance(asked, ClassificationParameters)
                results[place] = Made(self._read(made, asked))
        return results

    def _prepare(self, data: bytes) -> Any:
        rate = self._pipe.feature_extractor.sampling_rate
        return self._pipe.preprocess(read_sound(data, rate, most_s=MOST_S).samples)

    def _read(self, made: Any, asked: ClassificationParameters) -> list[LabelScore]:
        top_k = min(asked.top_k or 5, self._pipe.model.config.num_labels)
        found = self._pipe.postprocess(made, top_k=top_k, function_to_apply=asked.function_to_apply)
        return [LabelScore(**one) for one in found]
