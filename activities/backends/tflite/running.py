"""What the runners of graphs share: one item after the other, each with a result of its own."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event
from typing import Any

import numpy as np

from activities.backends.tflite.graph import Array
from activities.inference_ports import Item, Made, Result
from goatherd.contracts.inference_tasks import ClassificationParameters, LabelScore
from goatherd.contracts.providers import TFLiteOptions
from goatherd.errors import GoatherdError, Unavailable

_TOP = 5


class GraphRunner:
    """Graphs mostly have a batch of one, and on a CPU larger ones gain little."""

    def weigh(self, item: Item) -> int:
        return 1

    def run(self, items: Sequence[Item], cancelled: Event) -> list[Result]:
        results: list[Result] = []
        for item in items:
            if cancelled.is_set():
                results.append(Unavailable("the computation was cancelled", code="cancelled"))
                continue
            try:
                results.append(Made(self.compute(item)))
            except GoatherdError as error:
                results.append(error)
        return results

    def compute(self, item: Item) -> Any:
        """The output. Raises an error of ours."""
        raise NotImplementedError


def named(labels: Sequence[str], place: int) -> str:
    """A class that no label is for has its number."""
    return labels[place] if 0 <= place < len(labels) and labels[place] else str(place)


def classes(
    scores: Array, labels: Sequence[str], wish: ClassificationParameters, options: TFLiteOptions
) -> list[LabelScore]:
    """The likeliest, best first; as many as are wished for, or five."""
    function = wish.function_to_apply or options.activation
    scores = activated(scores, function)
    order = np.argsort(-scores, kind="stable")[: wish.top_k or _TOP]
    return [LabelScore(label=named(labels, int(n)), score=float(scores[n])) for n in order]


def activated(scores: Array, function: str) -> Array:
    scores = scores.astype(np.float64)
    if function == "softmax":
        powers = np.exp(scores - scores.max())
        return np.asarray(powers / powers.sum())
    if function == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-np.clip(scores, -80, 80))))
    return scores
