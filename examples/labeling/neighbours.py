"""A worker that has seen a few labelled sentences, and goes by those that are most alike."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path

SEED = Path(__file__).with_name("seed.jsonl")
NEIGHBOURS = 3


class Neighbours:
    """Sentences as counts of their words, each weighed by how rare it is; alike is the cosine."""

    def __init__(self, seed: list[dict[str, str]]) -> None:
        self._labels = [example["label"] for example in seed]
        words = [_words(example["text"]) for example in seed]
        seen = Counter(word for one in words for word in set(one))
        self._weights = {word: math.log((1 + len(seed)) / (1 + count)) + 1 for word, count in seen.items()}
        self._examples = [self._vector(one) for one in words]

    def label(self, text: str) -> str:
        """`unsure` for a sentence that has no word in common with any."""
        asked = self._vector(_words(text))
        known = zip(self._examples, self._labels, strict=True)
        near = sorted(((_dot(asked, example), label) for example, label in known), reverse=True)[:NEIGHBOURS]
        score = sum(alike if label == "positive" else -alike for alike, label in near)
        return "positive" if score > 0 else "negative" if score < 0 else "unsure"

    async def answer(self, sentence: dict[str, str]) -> str:
        return self.label(sentence["text"])

    def _vector(self, words: list[str]) -> dict[str, float]:
        counts = Counter(word for word in words if word in self._weights)
        vector = {word: count * self._weights[word] for word, count in counts.items()}
        length = math.sqrt(sum(value * value for value in vector.values())) or 1.0
        return {word: value / length for word, value in vector.items()}


def from_file(path: Path = SEED) -> Neighbours:
    return Neighbours([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def _dot(one: dict[str, float], other: dict[str, float]) -> float:
    return sum(value * other.get(word, 0.0) for word, value in one.items())
