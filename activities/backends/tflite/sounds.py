"""Audio classification by graphs that take a waveform, as YAMNet does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from activities.backends.media.audio import read_sound
from activities.backends.tflite.graph import Array, Graph, Port
from activities.backends.tflite.running import GraphRunner, classes
from activities.inference_ports import Item
from goatherd.contracts.inference_tasks import ClassificationParameters, LabelScore
from goatherd.contracts.providers import TFLiteOptions

_LEAST_S = 0.975
"""Of a sound for a graph that takes any length: the window of YAMNet; a shorter one is filled up."""


class SoundClasses(GraphRunner):
    """A long sound goes through in windows, and its scores are theirs pooled."""

    def __init__(self, graph: Graph, labels: Sequence[str], options: TFLiteOptions) -> None:
        """Raises ValueError if the graph's input is no waveform."""
        self._graph = graph
        self._labels = labels
        self._options = options
        self._port = _wave_port(graph)
        self._long = next(n for n, size in enumerate(self._port.shape) if size != 1)

    def compute(self, item: Item) -> list[LabelScore]:
        wish = item.parameters
        assert isinstance(wish, ClassificationParameters)
        samples = read_sound(item.inputs.data, self._options.sample_rate).samples
        output = self._graph.outputs[0]
        rows = []
        for window in self._windows(samples):
            made = output.real(self._graph.run(self._shaped(window))[0])
            # Some graphs give a row for each frame of the window.
            rows.append(made.reshape(-1, made.shape[-1]))
        table = np.concatenate(rows)
        scores = table.mean(axis=0) if self._options.pooling == "mean" else table.max(axis=0)
        return classes(scores, self._labels, wish, self._options)

    def _windows(self, samples: Array) -> Iterator[Array]:
        """The last one begins wherever it ends with the sound; a sound that is too short gets silence."""
        size = self._port.shape[self._long]
        if size < 0:
            yield _filled(samples, int(_LEAST_S * self._options.sample_rate))
            return
        hop = max(1, round(size * self._options.hop))
        last = max(0, len(samples) - size)
        for start in sorted({*range(0, last + 1, hop), last}):
            yield _filled(samples[start : start + size], size)

    def _shaped(self, window: Array) -> Array:
        shape = [1] * len(self._port.shape)
        shape[self._long] = len(window)
        return self._port.quantized(window.reshape(shape))


def _wave_port(graph: Graph) -> Port:
    """[samples], [1, samples] or [1, samples, 1]."""
    if len(graph.inputs) == 1:
        port = graph.inputs[0]
        if 1 <= len(port.shape) <= 3 and len([size for size in port.shape if size != 1]) == 1:
            return port
        if len(port.shape) == 2 and port.shape[0] == -1 and port.shape[1] > 1:
            return Port(port.name, port.index, port.dtype, (1, port.shape[1]), port.scale, port.zero)
    raise ValueError(f"it takes no waveform: {', '.join(map(str, graph.inputs))}")


def _filled(samples: Array, least: int) -> Array:
    return np.pad(samples, (0, max(0, least - len(samples))))
