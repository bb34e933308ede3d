"""Text classification, and zero-shot classification by models that were trained to infer (NLI)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import AutoModelForSequenceClassification

from activities.backends.hf.encoding import Encoder, Row
from activities.backends.hf.loading import Loaded, memory_of, pretrained, set_up
from activities.backends.hf.packing import pack_for_texts
from activities.backends.hf.rows import RowsRunner, finite
from activities.inference_ports import BlockingRunner, Item, LoadContext, LoadedModel
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import (
    ClassificationParameters,
    LabelScore,
    Task,
    ZeroShotParameters,
    tasks_of,
)
from goatherd.errors import Invalid

Scores = np.ndarray[Any, np.dtype[np.float32]]
Function = Literal["sigmoid", "softmax", "none"]


def load(name: str, spec: ModelSpec, folder: Path, context: LoadContext) -> LoadedModel:
    set_up(context)
    model = pretrained(AutoModelForSequenceClassification, spec, folder)
    encoder = Encoder.load(folder, model)
    runners: dict[Task, BlockingRunner] = {}
    for task in tasks_of(spec.task):
        kind = ZeroShot if task == Task.ZERO_SHOT_CLASSIFICATION else TextClasses
        runners[task] = kind(model, encoder, spec.limits)
    memory = memory_of(model)
    pack_for_texts(model, encoder)
    return Loaded(memory, runners)


class _Logits(RowsRunner[Scores]):
    def compute(self, rows: Sequence[Row]) -> list[Scores]:
        padded = self._encoder.pad(rows, self._device)
        return list(self.forward(padded).logits.float().cpu().numpy())


class TextClasses(_Logits):
    """Scores of all labels, the best first. A text that is too long is cut at its end."""

    def rows(self, item: Item) -> list[Row]:
        return [self._encoder.encode(item.inputs)]

    def finish(self, item: Item, rows: Sequence[Row], outputs: Sequence[Scores]) -> list[LabelScore]:
        wish = item.parameters
        assert isinstance(wish, ClassificationParameters)
        return best_labels(outputs[0], self._model.config, wish)


class ZeroShot(_Logits):
    """How well labels fit that the model was not trained for: whether the text entails each hypothesis."""

    def __init__(self, model: Any, encoder: Encoder, limits: Any) -> None:
        super().__init__(model, encoder, limits)
        # As the pipeline of transformers finds them. Some models name no label: their last one it is then.
        names: Mapping[str, int] = model.config.label2id
        self._entails = next((n for name, n in names.items() if name.lower().startswith("entail")), -1)
        self._contradicts = -1 if self._entails == 0 else 0

    def rows(self, item: Item) -> list[Row]:
        wish = item.parameters
        assert isinstance(wish, ZeroShotParameters)
        # Filled in, not formatted: a format can ask for a gigabyte of spaces.
        if "{}" not in wish.hypothesis_template:
            raise Invalid(
                "the template needs {} where the label goes", pointer="/parameters/hypothesis_template"
            )
        hypotheses = [wish.hypothesis_template.replace("{}", label) for label in wish.candidate_labels]
        return self._encoder.pairs(item.inputs, hypotheses, pointer="/parameters/candidate_labels")

    def finish(self, item: Item, rows: Sequence[Row], outputs: Sequence[Scores]) -> list[LabelScore]:
        wish = item.parameters
        assert isinstance(wish, ZeroShotParameters)
        logits = np.stack(outputs)
        if wish.multi_label or len(logits) == 1:
            scores = apply("softmax", logits[:, [self._contradicts, self._entails]])[:, 1]
        else:
            scores = apply("softmax", logits[:, self._entails])
        finite(scores)
        order = np.argsort(scores)[::-1]
        return [LabelScore(label=wish.candidate_labels[n], score=float(scores[n])) for n in order]


def best_labels(
    logits: Scores, config: Any, wish: ClassificationParameters, *, most: int | None = None
) -> list[LabelScore]:
    """A classifier's labels by their scores, the best first: `wish.top_k` of them, or `most`, or all."""
    scores = finite(apply(wish.function_to_apply or _own_function(config), logits))
    order = sorted(range(len(scores)), key=lambda n: -scores[n])[: wish.top_k or most]
    return [LabelScore(label=str(config.id2label[n]), score=float(scores[n])) for n in order]


def apply(function: Function, logits: Scores) -> Scores:
    """Over the last axis."""
    if function == "none":
        return logits
    # Overflow is what NaN in, or an infinity, gives: `finite` has the last word.
    with np.errstate(over="ignore", invalid="ignore"):
        if function == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-logits)), np.float32)
        raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)


def _own_function(config: Any) -> Function:
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"
