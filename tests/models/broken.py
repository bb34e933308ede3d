"""Models whose numbers are none: what a training that went wrong leaves behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def broken(source: Path, folder: Path) -> Path:
    """A copy of a model in `folder`, all of whose weights are NaN."""
    shutil.copytree(source, folder)
    file = folder / "model.safetensors"
    weights = {name: torch.full_like(value, torch.nan) for name, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    return folder
