"""A hundred thousand vectors that lie as embeddings of real texts do, made in seconds from some that are
real."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

SPREAD = 0.045
"""Of each number, about a real embedding: neighbours of one text have a cosine of about 0.75 with it."""


def embedded(texts: Sequence[str], folder: Path, *, batch: int = 32) -> Vectors:
    """What MiniLM makes of texts: means over their tokens, of length 1."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(texts), batch):
            tokens = tokenizer(
                list(texts[start : start + batch]), padding=True, truncation=True, return_tensors="pt"
            )
            states = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1)
            rows.append(((states * mask).sum(1) / mask.sum(1)).numpy())
    return unit(np.concatenate(rows))


def unit(vectors: Vectors) -> Vectors:
    made: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return made


def spread(centers: Vectors, count: int, *, seed: int) -> Vectors:
    """`count` vectors about these."""
    random = np.random.default_rng(seed)
    chosen = centers[random.integers(0, len(centers), count)]
    noise = random.standard_normal(chosen.shape, dtype=np.float32)
    return unit(chosen + SPREAD * noise)
