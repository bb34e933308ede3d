"""What the outputs of BlazeFace mean.

Source: V. Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019: anchors
at the middles of cells, boxes relative to them, and a blending of boxes that overlap in place of suppression.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from activities.backends.tflite.graph import Array

_FAMILIES = ((8, 16, 16, 16), (16, 32, 32, 32), (4,))
"""Strides of the layers in the models that are published, for inputs of 128, 256 and 192 pixels."""


def anchors_of(size: tuple[int, int], count: int, strides: Sequence[int] | None) -> Array:
    """The middles of `count` anchors, as (x, y) of 0 to 1.

    Args:
        size: width and height of the input, in pixels.
        strides: of the layers; None: those of a published model that make so many.

    Raises:
        ValueError: no such layers make so many anchors.
    """
    for layers in [tuple(strides)] if strides else _FAMILIES:
        cells = sum((size[0] // stride) * (size[1] // stride) for stride in layers)
        if cells and count % cells == 0 and (strides or count // cells == (1 if len(layers) == 1 else 2)):
            return _anchors(size, layers, count // cells)
    raise ValueError(f"no known layers make {count} anchors of {size[0]} x {size[1]} pixels: options.strides")


def _anchors(size: tuple[int, int], layers: Sequence[int], per_cell: int) -> Array:
    made = []
    # Layers of the same stride lie together, cell by cell.
    for stride, alike in groupby(layers):
        columns, rows = size[0] // stride, size[1] // stride
        x, y = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
        cells = np.stack([x.ravel(), y.ravel()], axis=1)
        made.append(np.repeat(cells, per_cell * len(list(alike)), axis=0))
    return np.concatenate(made).astype(np.float32)


def decode(raw: Array, anchors: Array, size: tuple[int, int]) -> Array:
    """(count, points, 2) of 0 to 1: a box's low and high corner, then its keypoints.

    `raw` has for each anchor the box's middle, its width and height, and the keypoints, in pixels from the
    anchor.
    """
    points = raw.reshape(len(anchors), -1, 2) / np.array(size, dtype=np.float32)
    extent = points[:, 1].copy()
    points[:, 0] += anchors
    points[:, 2:] += anchors[:, None]
    middle = points[:, 0].copy()
    points[:, 0], points[:, 1] = middle - extent / 2, middle + extent / 2
    return points


def blend(points: Array, scores: Array, overlap: float) -> list[tuple[Array, float]]:
    """Detections of the same face as one, best first: boxes that overlap the best one are averaged with it
    by their scores."""
    left = np.argsort(-scores, kind="stable")
    found = []
    while len(left):
        best = left[0]
        near = _overlaps(points[best], points[left]) > overlap
        near[0] = True
        group = left[near]
        weights = scores[group][:, None, None]
        found.append(((points[group] * weights).sum(axis=0) / weights.sum(), float(scores[best])))
        left = left[~near]
    return found


def _overlaps(one: Array, others: Array) -> Array:
    """Intersection over union of boxes."""
    low = np.maximum(one[0], others[:, 0])
    high = np.minimum(one[1], others[:, 1])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    both = np.prod(one[1] - one[0]) + np.prod(others[:, 1] - others[:, 0], axis=1) - common
    return np.asarray(common / np.maximum(both, 1e-12))
