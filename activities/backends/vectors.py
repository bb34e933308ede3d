"""Vectors that came from elsewhere, as the embedding tasks give them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from goatherd.contracts.inference_tasks import FeatureParameters, Vectors
from goatherd.errors import Invalid

Numbers = NDArray[np.float32]


def shaped(numbers: Numbers, wish: FeatureParameters) -> Numbers:
    """Only the first `dimensions`, and of length 1 if that is wished for, or something was left out.

    Raises:
        Invalid: there are not so many dimensions.
    """
    cut = wish.dimensions is not None and wish.dimensions != numbers.shape[-1]
    if cut and wish.dimensions is not None:
        if wish.dimensions > numbers.shape[-1]:
            raise Invalid(
                f"the model has only {numbers.shape[-1]} dimensions", pointer="/parameters/dimensions"
            )
        numbers = numbers[..., : wish.dimensions]
    if wish.normalize or (cut and wish.normalize is None):
        length = np.linalg.norm(numbers, axis=-1, keepdims=True)
        numbers = numbers / np.maximum(length, np.float32(1e-12))
    return numbers


def packed(numbers: Numbers, tokens: int = 0) -> Vectors:
    data = np.ascontiguousarray(numbers, dtype="<f4").tobytes()
    return Vectors(shape=list(numbers.shape), data=data, tokens=tokens)


def cosines(source: Numbers, others: Sequence[Numbers]) -> list[float]:
    table = np.stack(others)
    lengths = np.linalg.norm(table, axis=1) * np.linalg.norm(source)
    return [float(score) for score in table @ source / np.maximum(lengths, 1e-12)]


def shared(total: int, weights: Sequence[int]) -> list[int]:
    """A count of all of them, as a share for each by its weight. Their sum is `total`."""
    whole = sum(weights) or 1
    ends = np.rint(np.cumsum(weights) * (total / whole)).astype(int).tolist() if weights else []
    return [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
