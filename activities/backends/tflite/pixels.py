"""Images as a graph's input takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from activities.backends.media.images import read_image
from activities.backends.tflite.graph import Array, Graph, Port
from goatherd.contracts.providers import TFLiteOptions

_MIDDLE = 127.5
_UNKNOWN = 224
"""The side of an input that leaves it open."""

Resize = Literal["stretch", "crop", "letterbox"]


@dataclass(frozen=True, slots=True)
class Seen:
    """An image as the graph sees it, and the way back to its own pixels."""

    numbers: Array
    width: int
    height: int
    """Of the image as it came."""
    _scale: tuple[float, float]
    _shift: tuple[float, float]

    def pixels(self, points: Array) -> Array:
        """Points (x, y) of 0 to 1 in what the graph saw, in pixels of the image."""
        return np.asarray(points * np.array(self._scale) + np.array(self._shift))


class Eye:
    """Makes an input of images: as large as it takes, in its layout, normalized, quantized."""

    def __init__(self, graph: Graph, options: TFLiteOptions, *, resize: Resize) -> None:
        """Raises ValueError if the graph's input is no image."""
        self.port = _image_port(graph)
        self._resize = options.resize or resize
        _, *rest = self.port.shape
        self._channels_first = rest[0] in (1, 3) and rest[2] not in (1, 3)
        self._grey = rest[0 if self._channels_first else 2] == 1
        height, width = rest[1:] if self._channels_first else rest[:2]
        self.size = (width if width > 0 else _UNKNOWN, height if height > 0 else _UNKNOWN)
        # Quantized inputs that say nothing else mostly take the pixels themselves, or 0 to 1 or -1 to 1 by
        # their scale.
        self._mean, self._std = _normalization(self.port, options)

    def see(self, data: bytes) -> Seen:
        """Raises `UnreadableMedia`."""
        image = read_image(data)
        sized, scale, shift = self._sized(image)
        if self._grey:
            sized = sized.convert("L")
        numbers: Array = np.asarray(sized, dtype=np.float32)
        numbers = numbers[:, :, None] if numbers.ndim == 2 else numbers
        numbers = (numbers - self._mean) / self._std
        if self._channels_first:
            numbers = numbers.transpose(2, 0, 1)
        return Seen(self.port.quantized(numbers)[None], image.width, image.height, scale, shift)

    def _sized(self, image: Any) -> tuple[Any, tuple[float, float], tuple[float, float]]:
        """The image at the input's size; what a side of that is in the image's pixels; where it begins."""
        from PIL import Image, ImageOps

        width, height = self.size
        whole = (float(image.width), float(image.height))
        if self._resize == "stretch":
            return image.resize(self.size, Image.Resampling.BILINEAR), whole, (0.0, 0.0)
        choose = min if self._resize == "letterbox" else max
        factor = choose(width / image.width, height / image.height)
        scale = (width / factor, height / factor)
        shift = ((image.width - scale[0]) / 2, (image.height - scale[1]) / 2)
        fit = ImageOps.pad if self._resize == "letterbox" else ImageOps.fit
        return fit(image, self.size, Image.Resampling.BILINEAR), scale, shift


def _image_port(graph: Graph) -> Port:
    if len(graph.inputs) == 1 and len(graph.inputs[0].shape) == 4 and graph.inputs[0].shape[0] in (-1, 1):
        return graph.inputs[0]
    raise ValueError(f"it takes no image: {', '.join(map(str, graph.inputs))}")


def _normalization(port: Port, options: TFLiteOptions) -> tuple[Array, Array]:
    mean, std = options.mean, options.std
    if mean is None and std is None and port.scale:
        return _by_scale(port)
    if mean is None and std is None and port.dtype.kind in "iu":
        mean, std = 0.0, 1.0
    return (
        np.asarray(_MIDDLE if mean is None else mean, dtype=np.float32),
        np.asarray(_MIDDLE if std is None else std, dtype=np.float32),
    )


def _by_scale(port: Port) -> tuple[Array, Array]:
    """So that black is the lowest number of a quantized input, and white the highest: what it was quantized
    by is the range that it was trained with."""
    limits = np.iinfo(port.dtype)
    low, high = ((number - port.zero) * port.scale for number in (limits.min, limits.max))
    std = 255.0 / (high - low)
    return np.asarray(-low * std, dtype=np.float32), np.asarray(std, dtype=np.float32)
