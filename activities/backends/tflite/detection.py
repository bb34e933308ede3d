"""Object detection: graphs that end in `TFLite_Detection_PostProcess`, and BlazeFace."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from activities.backends.tflite.blazeface import anchors_of, blend, decode
from activities.backends.tflite.graph import Array, Graph
from activities.backends.tflite.pixels import Eye, Seen
from activities.backends.tflite.running import GraphRunner, activated, named
from activities.inference_ports import Item
from goatherd.contracts.inference_tasks import Box, Detection, DetectionParameters
from goatherd.contracts.providers import TFLiteOptions

_SSD = "TFLite_Detection_PostProcess"


def detector(graph: Graph, labels: Sequence[str], options: TFLiteOptions) -> GraphRunner:
    """The runner for the graph's outputs. Raises ValueError if they are of no kind that is known."""
    kind = options.detector or ("ssd" if len(graph.outputs) == 4 else "blazeface")
    return (SSDRunner if kind == "ssd" else BlazeFaceRunner)(graph, labels, options)


class SSDRunner(GraphRunner):
    """Boxes, classes, scores and their count, as the graph's own last operation gives them."""

    def __init__(self, graph: Graph, labels: Sequence[str], options: TFLiteOptions) -> None:
        if len(graph.outputs) != 4:
            raise ValueError(f"{len(graph.outputs)} outputs, not the four of {_SSD}")
        self._graph = graph
        self._labels = labels
        self._eye = Eye(graph, options, resize="stretch")

    def compute(self, item: Item) -> list[Detection]:
        wish = item.parameters
        assert isinstance(wish, DetectionParameters)
        seen = self._eye.see(item.inputs.data)
        boxes, kinds, scores, count = self._sorted(self._graph.run(seen.numbers))
        found = []
        for n in range(min(count, len(scores))):
            if scores[n] < wish.threshold or not np.isfinite(boxes[n]).all():
                continue
            low, high = boxes[n].reshape(2, 2)[:, ::-1]
            box = _box(seen, low, high)
            if box is not None:
                found.append(
                    Detection(label=named(self._labels, int(kinds[n])), score=float(scores[n]), box=box)
                )
        return sorted(found, key=lambda one: -one.score)

    def _sorted(self, given: Sequence[Array]) -> tuple[Array, Array, Array, int]:
        """Whatever order a converter left them in: boxes have three dimensions, the count is one number, and
        of the other two the classes are whole numbers."""
        values = [port.real(value) for port, value in zip(self._graph.outputs, given, strict=True)]
        boxes = next(n for n, value in enumerate(values) if value.ndim == 3)
        counts = [n for n, value in enumerate(values) if n != boxes and value.size == 1]
        # With room for one detection only, all of them are one number: then their order is the operation's.
        count = counts[-1]
        first, second = (n for n in range(4) if n not in (boxes, count))
        whole = [bool((values[n] == np.rint(values[n])).all()) for n in (first, second)]
        kinds, scores = (second, first) if whole == [False, True] else (first, second)
        return (
            values[boxes][0],
            values[kinds].ravel(),
            values[scores].ravel(),
            int(values[count].ravel()[0]),
        )


class BlazeFaceRunner(GraphRunner):
    """Faces with six keypoints: the eyes, the tip of the nose, the mouth, the ears."""

    def __init__(self, graph: Graph, labels: Sequence[str], options: TFLiteOptions) -> None:
        self._graph = graph
        self._label = labels[0] if labels else "face"
        self._overlap = options.overlap
        self._eye = Eye(graph, options, resize="letterbox")
        self._boxes, self._scores = _outputs(graph)
        self._anchors = anchors_of(self._eye.size, graph.outputs[self._boxes].shape[1], options.strides)

    def compute(self, item: Item) -> list[Detection]:
        wish = item.parameters
        assert isinstance(wish, DetectionParameters)
        seen = self._eye.see(item.inputs.data)
        given = self._graph.run(seen.numbers)
        raw, logits = (self._graph.outputs[n].real(given[n])[0] for n in (self._boxes, self._scores))
        scores = activated(logits.ravel(), "sigmoid").astype(np.float32)
        points = decode(raw, self._anchors, self._eye.size)
        kept = (scores >= wish.threshold) & (points[:, 1] > points[:, 0]).all(axis=1)
        found = []
        for face, score in blend(points[kept], scores[kept], self._overlap):
            box = _box(seen, face[0], face[1])
            if box is not None:
                marks = [(float(x), float(y)) for x, y in seen.pixels(face[2:])]
                found.append(Detection(label=self._label, score=score, box=box, keypoints=marks))
        return found


def _outputs(graph: Graph) -> tuple[int, int]:
    """The places of boxes and scores."""
    shapes = [port.shape for port in graph.outputs]
    if len(shapes) == 2 and all(len(shape) == 3 for shape in shapes):
        scores = next((n for n, shape in enumerate(shapes) if shape[2] == 1), None)
        if scores is not None and shapes[1 - scores][2] >= 4 and shapes[0][1] == shapes[1][1]:
            return 1 - scores, scores
    raise ValueError(f"its outputs are no detector's that is known: {', '.join(map(str, graph.outputs))}")


def _box(seen: Seen, low: Array, high: Array) -> Box | None:
    """In pixels, within the image; None if nothing of it is."""
    (xmin, ymin), (xmax, ymax) = seen.pixels(np.stack([low, high]))
    xmin, xmax = (float(np.clip(x, 0, seen.width)) for x in (xmin, xmax))
    ymin, ymax = (float(np.clip(y, 0, seen.height)) for y in (ymin, ymax))
    box = Box(xmin=round(xmin), ymin=round(ymin), xmax=round(xmax), ymax=round(ymax))
    return box if box.xmax > box.xmin and box.ymax > box.ymin else None
