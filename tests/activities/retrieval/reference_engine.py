"""What a version of an index has, kept in plain Python: the model that engines are compared with.

Vectors are compared one by one in float64, filters by `filters.meets`. Of words it knows only which chunks
have one of them: how well these fit is each engine's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from goatherd.contracts.filters import flat_values, meets, read_filter
from goatherd.contracts.model import Json
from goatherd.contracts.retrieval import Entry, IndexSpec, SearchQuery, chunk_key

STEMS = {
    form: stem
    for stem, forms in {
        "connect": ("connect", "connected", "connection", "connections", "connecting"),
        "jump": ("jump", "jumps", "jumped", "jumping"),
        "cat": ("cat", "cats"),
        "run": ("run", "runs", "running"),
        "zebra": ("zebra", "zebras"),
        "quartz": ("quartz",),
        "violet": ("violet", "violets"),
        "lantern": ("lantern", "lanterns"),
        "harbor": ("harbor", "harbors"),
        "meadow": ("meadow", "meadows"),
    }.items()
    for form in forms
}
"""English words, and what every English stemmer makes one of. Texts of tests are made of these."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Chunk:
    doc: str
    n: int
    seq: int
    text: str
    vector: Numbers
    metadata: Json


def floats(numbers: Iterable[float]) -> bytes:
    """A vector as queries and documents have it."""
    return np.asarray(list(numbers), dtype="<f4").tobytes()


def words(text: str) -> list[str]:
    """The stems of its words; what is no word of the tests is left out."""
    letters = "".join(c if c.isalnum() else " " for c in text.lower())
    return [STEMS[word] for word in letters.split() if word in STEMS]


class Reference:
    """The model of one version. `put` and `delete` give the entries that an engine is to take in."""

    def __init__(self, spec: IndexSpec) -> None:
        self.spec = spec
        self.seq = 0
        self.written: list[Entry] = []
        self._entries: dict[str, Entry] = {}

    def put(
        self,
        doc: str,
        texts: Sequence[str],
        vectors: Sequence[Sequence[float]] | NDArray[np.generic] = (),
        metadata: Json | None = None,
    ) -> Entry:
        rows = np.asarray(vectors, dtype=np.float64).reshape(-1, max(self.spec.dimensions, 1))
        if self.spec.metric == "cosine" and len(rows):
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self.seq += 1
        entry = Entry(
            doc=doc,
            rev=self.seq,
            seq=self.seq,
            texts=list(texts),
            spans=[(0, len(text)) for text in texts],
            vectors=rows.astype("<f4").tobytes() if self.spec.dimensions else b"",
            metadata=metadata or {},
        )
        self.written.append(entry)
        self._entries[doc] = entry
        return entry

    def delete(self, doc: str) -> Entry:
        self.seq += 1
        entry = Entry(doc=doc, rev=self.seq, seq=self.seq, deleted=True)
        self.written.append(entry)
        self._entries.pop(doc, None)
        return entry

    @property
    def docs(self) -> list[str]:
        return list(self._entries)

    def chunks(self, given: Json | None = None) -> dict[int, Chunk]:
        """By their keys: those whose documents meet the filter."""
        condition = None if given is None else read_filter(given)
        found: dict[int, Chunk] = {}
        for entry in self._entries.values():
            if condition is not None and not meets(condition, flat_values(entry.metadata)):
                continue
            rows = np.frombuffer(entry.vectors, "<f4").astype(np.float64)
            rows = rows.reshape(len(entry.texts), self.spec.dimensions)
            for n, text in enumerate(entry.texts):
                found[chunk_key(entry.seq, n)] = Chunk(entry.doc, n, entry.seq, text, rows[n], entry.metadata)
        return found

    def dense(self, query: SearchQuery) -> dict[int, float]:
        """The exact scores of all that meet the query's filter, best first."""
        wanted = np.frombuffer(query.vector or b"", "<f4").astype(np.float64)
        scores = {key: self._score(wanted, chunk.vector) for key, chunk in self.chunks(query.filter).items()}
        return dict(sorted(scores.items(), key=lambda one: (-one[1], one[0])))

    def _score(self, query: Numbers, vector: Numbers) -> float:
        match self.spec.metric:
            case "cosine":
                return float(query @ vector / np.linalg.norm(query) / np.linalg.norm(vector))
            case "ip":
                return float(query @ vector)
            case "l2":
                return float(1 / (1 + np.sum((query - vector) ** 2)))

    def having(self, query: SearchQuery) -> set[int]:
        """Keys of the chunks that have one of the query's words, and meet its filter."""
        wanted = set(words(query.text or ""))
        return {key for key, chunk in self.chunks(query.filter).items() if wanted & set(words(chunk.text))}
