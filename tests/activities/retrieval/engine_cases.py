"""What the tests of engines take in and ask."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

import numpy as np

from goatherd.contracts.model import Json
from goatherd.contracts.retrieval import Hit, Index, IndexSpec, Version, chunk_key
from tests.activities.retrieval.reference_engine import Reference, floats

DIMENSIONS = 8
METRICS = ("cosine", "ip", "l2")
TOPICS = ("connected cats", "jumping zebras", "quartz", "violet lanterns", "running", "harbor meadow")

FILTERS: list[Json] = [
    {},
    {"lang": "en"},
    {"lang": {"eq": "en"}},
    {"lang": {"in": ["de", "fr"]}},
    {"lang": {"in": []}},
    {"lang": "EN"},
    {"lang": 'it\'s "odd" %_*?\\ 💡'},
    {"year": 2001},
    {"year": {"gte": 2001, "lt": 2004}},
    {"year": {"gt": 2001, "lte": 2004}},
    {"year": {"gt": 2004, "lt": 2001}},
    {"year": {"gte": 2001.5}},
    {"year": "2001"},
    {"year": {"gte": "2001"}},
    {"lang": {"gte": "de", "lt": "en"}},
    {"lang": {"gt": "en"}},
    {"tags": "a"},
    {"tags": {"in": ["b", "c"]}},
    {"tags": {"gte": "b"}},
    {"mixed": 1},
    {"mixed": True},
    {"mixed": False},
    {"mixed": "1"},
    {"mixed": {"gte": 0}},
    {"mixed": {"exists": True}},
    {"mixed": {"exists": False}},
    {"author.name": "Ada"},
    {"author": {"exists": True}},
    {"author.name": {"exists": False}},
    {"author": "Ada"},
    {"none": {"exists": True}},
    {"none": {"in": ["", 0, False]}},
    {"empty": {"exists": True}},
    {"hollow": {"exists": True}},
    {"nowhere": {"exists": True}},
    {"nowhere": "x"},
    {"key": "not", "eq": "yes"},
    {"big": 2**53},
    {"big": {"lt": 2**53}},
    {"small": {"gt": -1e-300, "lt": 1e-300}},
    {"not": {"lang": "en"}},
    {"not": {"tags": "a"}},
    {"not": {"nowhere": "x"}},
    {"not": {"not": {"year": {"lt": 2003}}}},
    {"and": []},
    {"or": []},
    {"not": {"or": []}},
    {"and": [{"lang": "en"}, {"year": {"gte": 2002}}]},
    {"or": [{"lang": "de"}, {"year": {"lt": 2001}}]},
    {"lang": "en", "tags": "b", "not": {"year": 2003}},
    {"or": [{"and": [{"lang": "en"}, {"mixed": 1}]}, {"not": {"mixed": {"exists": True}}}]},
]
"""All operators, and what they might mistake."""

BAD_FILTERS: list[Json] = [
    {"year": {"near": 3}},
    {"and": {"lang": "en"}},
    {"or": [{"lang": "en"}, 7]},
    {"year": {"gte": 1, "lt": "2"}},
    {"a/b": {"in": "x"}},
    {"not": {"lang": None}},
]


def index_of(**wish: Any) -> tuple[Index, Version]:
    """An index of its own, and its first version."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    spec = IndexSpec.model_validate({"dimensions": DIMENSIONS, **wish})
    version = Version(number=1, spec=spec, created_at=now)
    id = f"ix{secrets.token_hex(8)}"
    return Index(id=id, name=id, owner="o", serving=version, created_at=now, updated_at=now), version


def metadata_of(n: int) -> Json:
    """Of the n-th document: something for each of the filters."""
    metadata: Json = {"lang": ("en", "de", "fr", 'it\'s "odd" %_*?\\ 💡')[n % 4], "n": n}
    if n % 3:
        metadata["year"] = 2000 + n % 6
    metadata["tags"] = [tag for place, tag in enumerate("abc") if n >> place & 1]
    mixed: list[Any] = [1, True, "1", [1, "1"], None, 0, False]
    if n % 8 < 7:
        metadata["mixed"] = mixed[n % 8]
    if n % 5 == 0:
        metadata["author"] = {"name": "Ada", "born": {"year": 1815}}
    elif n % 5 == 1:
        metadata["author"] = {"name": ["Ada", "Bob"]}
    if n % 7 == 0:
        metadata |= {"none": None, "empty": [], "hollow": {}}
    if n % 6 == 2:
        metadata |= {"not": "yes", "big": 2**53 - n % 2, "small": 0.0 if n % 4 else -0.0}
    return metadata


def fill(reference: Reference, documents: int = 60, seed: int = 7) -> None:
    """Documents of one to three chunks."""
    random = np.random.default_rng(seed)
    for n in range(documents):
        texts = [
            f"{TOPICS[(n + place) % len(TOPICS)]} {TOPICS[n * 5 % 7 % len(TOPICS)]}"
            for place in range(1 + n % 3)
        ]
        vectors = random.standard_normal((len(texts), max(reference.spec.dimensions, 1)))
        reference.put(f"doc {n}", texts, vectors, metadata_of(n))


def some_vector(seed: int = 1, dimensions: int = DIMENSIONS) -> bytes:
    return floats(np.random.default_rng(seed).standard_normal(dimensions).tolist())


def key_of(hit: Hit) -> int:
    return chunk_key(hit.seq, hit.chunk)
