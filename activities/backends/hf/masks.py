"""Segments of an image, by the pipeline's rules, in memory that does not grow with image times labels.

transformers makes the scores of all labels, or the masks of all that was found, as large as the image before
it compares them: 5 GB for a 4k image and 150 labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from activities.backends.media.images import write_mask
from goatherd.contracts.inference_tasks import Segment, SegmentationParameters
from goatherd.errors import Invalid

MOST_SCORES = 1 << 27
"""Numbers that are made at once: 512 MB of float32. Masks of more are found in a smaller image, and made
larger then; scores of labels are compared a few labels at a time, which changes nothing."""

_METHODS = ("panoptic", "instance", "semantic")


def check(pipe: Any, asked: SegmentationParameters) -> None:
    """Raises `Invalid` if the model can't do the subtask."""
    able = [one for one in _METHODS if hasattr(pipe.image_processor, _method(one))]
    if asked.subtask is not None and asked.subtask not in able:
        raise Invalid(
            f"the model has no {asked.subtask} segmentation, but {' and '.join(able) or 'none'}",
            pointer="/parameters/subtask",
        )


def segments(pipe: Any, made: Any, asked: SegmentationParameters) -> list[Segment]:
    """What the pipeline's `postprocess` gives, masks written as PNG."""
    subtask: str = asked.subtask or next(
        one for one in _METHODS if hasattr(pipe.image_processor, _method(one))
    )
    if subtask == "semantic":
        return _semantic(pipe, made)
    height, width = made["target_size"][0]
    shrink = (_found(made, asked.threshold) * height * width / MOST_SCORES) ** 0.5
    if shrink > 1:
        made["target_size"] = [(max(1, int(height / shrink)), max(1, int(width / shrink)))]
    found = pipe.postprocess(
        made,
        subtask=subtask,
        threshold=asked.threshold,
        mask_threshold=asked.mask_threshold,
        overlap_mask_area_threshold=asked.overlap_mask_area_threshold,
    )
    result = []
    for one in found:
        mask = one["mask"]
        if mask.size != (width, height):
            mask = mask.resize((width, height), Image.Resampling.NEAREST)
        result.append(Segment(label=one["label"], score=one["score"], mask=write_mask(np.asarray(mask) > 0)))
    return result


def _method(subtask: str) -> str:
    return f"post_process_{subtask}_segmentation"


def _found(made: Any, threshold: float) -> int:
    """How many masks pass the threshold, or a few more. The last class of a query is `nothing`."""
    logits = made.get("class_queries_logits", made.get("logits"))
    if logits is None:
        return 1
    return int((logits.softmax(-1)[..., :-1].amax(-1) > threshold).sum())


def _semantic(pipe: Any, made: Any) -> list[Segment]:
    height, width = made["target_size"][0]
    scores = pipe.image_processor.post_process_semantic_segmentation(made, return_segmentation_scores=True)
    labels = _likeliest(scores[0].segmentation_scores, (height, width))
    names = pipe.model.config.id2label
    return [Segment(label=names[int(label)], mask=write_mask(labels == label)) for label in np.unique(labels)]


def _likeliest(scores: torch.Tensor, size: tuple[int, int]) -> Any:
    """The label of each pixel of an image of this size, of scores (labels, height, width)."""
    at_once = max(1, MOST_SCORES // (4 * size[0] * size[1]))
    best = torch.full(size, -torch.inf)
    labels = torch.zeros(size, dtype=torch.int32)
    for first in range(0, len(scores), at_once):
        some = torch.nn.functional.interpolate(
            scores[None, first : first + at_once].float(), size=size, mode="bilinear", align_corners=False
        )[0]
        highest, which = some.max(dim=0)
        better = highest > best
        best = torch.where(better, highest, best)
        labels = torch.where(better, which.int() + first, labels)
    return labels.numpy()
