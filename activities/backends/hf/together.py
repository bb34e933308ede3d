"""A pipeline's steps, with its forward step done for several inputs at once, each with its own parameters.

`pipeline(list, batch_size=…)` has one set of parameters for all, and pads what differs in size. Here only
inputs that are alike in shape are stacked: each result is what the input has alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import torch
import transformers

from activities.backends.hf.loading import memory_errors_translated


def part_of(auto: Any, folder: Path, **options: Any) -> Any:
    """A model's processor, tokenizer or config, by one of transformers' Auto classes."""
    return auto.from_pretrained(folder, local_files_only=True, **options)


def pipeline_of(task: str, model: Any, **parts: Any) -> Any:
    """transformers' pipeline for the task, of a model and parts that are loaded."""
    made: Any = transformers.pipeline
    return made(task, model=model, device=model.device, **parts)


Prepared = Mapping[str, Any]
"""What a pipeline's `preprocess` gives for one input: tensors with a first dimension of 1, lists of one."""


def forward(pipe: Any, prepared: Sequence[Prepared], cancelled: Event) -> list[Any]:
    """What the pipeline's `postprocess` takes, for each input.

    Those that were not begun when `cancelled` was set are None.
    """
    alike: dict[tuple[Any, ...], list[int]] = {}
    for place, one in enumerate(prepared):
        alike.setdefault(_shape(one), []).append(place)
    outputs: list[Any] = [None] * len(prepared)
    for places in alike.values():
        if cancelled.is_set():
            break
        with memory_errors_translated():
            made = pipe.forward(_stack([prepared[place] for place in places]))
        for row, place in enumerate(places):
            outputs[place] = _row(made, row, len(places))
    return outputs


def _shape(one: Prepared) -> tuple[Any, ...]:
    return tuple(
        (key, tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else (key,)
        for key, value in sorted(one.items())
    )


def _stack(prepared: Sequence[Prepared]) -> dict[str, Any]:
    first = prepared[0]
    return {
        key: torch.cat([one[key] for one in prepared])
        if isinstance(value, torch.Tensor)
        else [part for one in prepared for part in one[key]]
        for key, value in first.items()
    }


def _row(made: Any, row: int, rows: int) -> Any:
    """One input's part of the output, of the output's own class: `post_process_…` read its attributes."""
    cut = {key: _cut(value, row, rows) for key, value in made.items()}
    return made.__class__(cut)


def _cut(value: Any, row: int, rows: int) -> Any:
    if isinstance(value, torch.Tensor):
        # Cloned: a slice would keep the others' memory.
        return value[row : row + 1].clone() if value.ndim and len(value) == rows else value
    if isinstance(value, tuple) and all(isinstance(part, torch.Tensor) for part in value):
        return tuple(_cut(part, row, rows) for part in value)
    if isinstance(value, list) and len(value) == rows:
        return value[row : row + 1]
    return value
