"""Image classification."""

from __future__ import annotations

from collections.abc import Sequence

from activities.backends.tflite.graph import Graph
from activities.backends.tflite.pixels import Eye
from activities.backends.tflite.running import GraphRunner, classes
from activities.inference_ports import Item
from goatherd.contracts.inference_tasks import ClassificationParameters, LabelScore
from goatherd.contracts.providers import TFLiteOptions


class ImageClasses(GraphRunner):
    """The middle of an image, unless the options say otherwise; scores as the graph gives them."""

    def __init__(self, graph: Graph, labels: Sequence[str], options: TFLiteOptions) -> None:
        self._graph = graph
        self._labels = labels
        self._options = options
        self._eye = Eye(graph, options, resize="crop")

    def compute(self, item: Item) -> list[LabelScore]:
        wish = item.parameters
        assert isinstance(wish, ClassificationParameters)
        seen = self._eye.see(item.inputs.data)
        scores = self._graph.outputs[0].real(self._graph.run(seen.numbers)[0]).ravel()
        return classes(scores, self._labels, wish, self._options)
