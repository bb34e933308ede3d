"""Parts of an engine in plain Python, exact and slow, that fail when they are told to."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from activities.backends.retrieval.entry_table import open_table
from activities.backends.retrieval.local_parts import Parts
from activities.retrieval_ports import Found, Keys, LexicalIndex, VectorIndex, Vectors
from goatherd.contracts.retrieval import IndexSpec
from tests.activities.retrieval.reference_engine import STEMS, words


class Failing:
    """`fail_at`: names of the methods that fail, each once."""

    def __init__(self) -> None:
        self.fail_at: list[str] = []
        self.calls: list[str] = []

    def called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fail_at:
            self.fail_at.remove(name)
            raise OSError(28, "No space left on device")


class PlainVectors(Failing, VectorIndex):
    exact = True

    def __init__(self, spec: IndexSpec) -> None:
        super().__init__()
        self._spec = spec
        self.rows: dict[int, Vectors] = {}

    @property
    def size(self) -> int:
        return len(self.rows)

    @property
    def memory_bytes(self) -> int:
        return 4 * self.size * self._spec.dimensions

    def upsert(self, keys: Keys, vectors: Vectors) -> None:
        self.called("upsert")
        self.rows |= dict(zip(keys.tolist(), vectors, strict=True))

    def remove(self, keys: Keys) -> None:
        self.called("remove")
        for key in keys.tolist():
            self.rows.pop(key, None)

    def vectors(self, keys: Keys) -> Vectors:
        return np.stack([self.rows[key] for key in keys.tolist()])

    def search(self, queries: Vectors, k: int, allowed: Keys | None = None) -> list[tuple[Keys, Vectors]]:
        self.called(f"search {len(queries)}")
        return [self._search(query, k, allowed) for query in queries]

    def _search(self, query: Vectors, k: int, allowed: Keys | None) -> tuple[Keys, Vectors]:
        among = set(self.rows) if allowed is None else set(allowed.tolist()) & set(self.rows)
        keys = np.array(sorted(among), np.int64)
        if not len(keys):
            return keys, np.empty(0, np.float32)
        rows = self.vectors(keys).astype(np.float64)
        far = ((rows - query) ** 2).sum(axis=1)
        scores = 1 / (1 + far) if self._spec.metric == "l2" else rows @ query
        best = np.argsort(-scores)[:k]
        return keys[best], scores[best].astype(np.float32)

    def save(self, folder: Path) -> None:
        self.called("save")
        keys = np.array(list(self.rows), np.int64)
        with open(folder / "rows.npz", "wb") as file:
            np.savez(file, keys=keys, rows=self.vectors(keys) if len(keys) else np.empty(0))
            file.flush()
            os.fsync(file.fileno())

    def load(self, folder: Path) -> None:
        with np.load(folder / "rows.npz") as saved:
            self.rows = dict(zip(saved["keys"].tolist(), saved["rows"], strict=True))


class PlainTexts(Failing, LexicalIndex):
    """Knows the words of the tests' texts. The more of a text's words are looked for, the better it is."""

    memory_bytes = 0

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[int, str] = {}
        self.closed = False

    def upsert(self, keys: Keys, texts: Sequence[str]) -> None:
        self.called("upsert")
        self.texts |= dict(zip(keys.tolist(), texts, strict=True))

    def remove(self, keys: Keys) -> None:
        self.called("remove")
        for key in keys.tolist():
            self.texts.pop(key, None)

    def search(
        self, text: str, k: int, allowed: Keys | None = None, *, highlight: bool = False
    ) -> list[Found]:
        self.called("search")
        wanted = set(words(text))
        among = self.texts if allowed is None else [key for key in allowed.tolist() if key in self.texts]
        scores = {key: self._score(self.texts[key], wanted) for key in among}
        best = sorted((-score, key) for key, score in scores.items() if score)[:k]
        return [
            Found(key, -score, _marked(self.texts[key], wanted) if highlight else ()) for score, key in best
        ]

    def _score(self, text: str, wanted: set[str]) -> float:
        has = words(text)
        return 10 * len(wanted & set(has)) + sum(word in wanted for word in has) / (1 + len(has))

    def save(self, folder: Path) -> None:
        self.called("save")
        with open(folder / "texts.json", "w") as file:
            json.dump(list(self.texts.items()), file)
            file.flush()
            os.fsync(file.fileno())

    def load(self, folder: Path) -> None:
        self.texts = dict(json.loads((folder / "texts.json").read_text()))

    def close(self) -> None:
        self.closed = True


def _marked(text: str, wanted: set[str]) -> tuple[str, ...]:
    """A piece of it."""
    found = [
        f"\2{word}\3" if STEMS.get(word.strip(".,:").lower()) in wanted else word for word in text.split(" ")
    ]
    return (" ".join(found[:10]).replace(":\3", "\3:"),)


def open_plain(spec: IndexSpec, folder: Path | None, live: Path) -> Parts:
    """`OpenParts`."""
    vectors = PlainVectors(spec) if spec.dimensions else None
    texts = PlainTexts() if spec.lexical != "off" else None
    if folder is not None:
        if vectors is not None:
            vectors.load(folder / "vectors")
        if texts is not None:
            texts.load(folder / "texts")
    return Parts(open_table(None if folder is None else folder / "table", live / "table"), vectors, texts)
