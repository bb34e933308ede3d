"""How many of the nearest are found with the default settings, on real embeddings.

They are fewer than the engines begin to be approximate with: they are told to begin sooner.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from activities.backends.retrieval import faiss_ivf_vectors, faiss_vectors, scann_vectors
from activities.retrieval_ports import Vectors
from tests.activities.retrieval.vector_cases import Kind, keys_of, recall
from tests.activities.retrieval.vector_sentences import embedded

pytest.importorskip("torch")
pytest.importorskip("scann")

KINDS = [
    Kind("auto", faiss_vectors.open_vectors, True),
    Kind("ivf", faiss_vectors.open_vectors, False, {"faiss": {"kind": "ivf"}}),
    Kind("hnsw", faiss_vectors.open_vectors, False, {"faiss": {"kind": "hnsw"}}),
    Kind("scann", scann_vectors.open_vectors, False),
]
QUERIES = 200


@pytest.fixture(scope="module")
def minilm() -> Vectors:
    return embedded(2_200)


@pytest.mark.model
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_98_of_100_of_the_nearest_sentences_are_found(
    kind: Kind, minilm: Vectors, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(faiss_ivf_vectors, "_SMALLEST", 1_000)
    monkeypatch.setattr(scann_vectors, "_ENOUGH", 1_000)
    queries, rows = minilm[:QUERIES], minilm[QUERIES:]
    keys, index = keys_of(len(rows)), kind.open(384)
    least = 1.0 if kind.exact else 0.98
    for start in range(0, len(rows), 250):
        index.upsert(keys[start : start + 250], rows[start : start + 250])
    assert index.exact == kind.exact
    assert recall(index, rows, keys, queries) >= least
    gone = np.arange(len(rows)) % 4 == 0
    index.remove(keys[gone])
    index.save(tmp_path)
    for one in (index, kind.open(384, folder=tmp_path)):
        assert recall(one, rows[~gone], keys[~gone], queries) >= least
