"""What an Elasticsearch index of ours looks like: its name, its settings, its fields. Unknown fields are
refused, and vectors are in no `_source`: the store has them.
"""

from __future__ import annotations

from typing import Any

from goatherd.contracts.retrieval import IndexSpec

PREFIX = "goatherd-"

MOST_RESULTS = 10_000
"""That one search gives, as servers have it by default."""

_STEMMERS = {
    "en": "english",
    "de": "german",
    "fr": "french",
    "es": "spanish",
    "it": "italian",
    "pt": "portuguese",
    "nl": "dutch",
    "sv": "swedish",
}
_SIMILARITIES = {"cosine": "cosine", "ip": "max_inner_product", "l2": "l2_norm"}


def version_name(index: str, number: int) -> str:
    """Of the Elasticsearch index that is one version of ours."""
    return f"{PREFIX}{index}-{number}".lower()


def of_index(index: str) -> str:
    """A pattern of the names of all versions of an index."""
    return f"{PREFIX}{index}-*".lower()


def words_name(index: str, number: int) -> str:
    """Of the one that has only the words of a version whose vectors are elsewhere."""
    return f"{version_name(index, number)}-words"


def to_write(name: str) -> str:
    """The alias that a version is written by."""
    return f"{name}-write"


def version_body(name: str, spec: IndexSpec) -> dict[str, Any]:
    """Of a version. It has documents of three kinds:

    - a chunk, by its key: `doc`, `key`, `text`, `vector`, `names` and `facts` (`elastic_filters.py`),
    - a mark where a chunk was: when it went (`gone`), and by which entry (`at`),
    - what the writers tell each other, in `state` (`elastic_writes.py`), which is never searched.
    """
    fields: dict[str, Any] = {
        "doc": {"type": "keyword"},
        "key": {"type": "long"},
        "names": {"type": "keyword"},
        "facts": {"type": "keyword", "doc_values": False},
        "gone": {"type": "long"},
        "at": {"type": "long"},
        "state": {"type": "object", "enabled": False},
    }
    if spec.lexical != "off":
        fields["text"] = _text()
    if spec.dimensions:
        fields["vector"] = {
            "type": "dense_vector",
            "dims": spec.dimensions,
            "index": True,
            "similarity": _SIMILARITIES[spec.metric],
            # Said, because the servers' own choice is one of shortened vectors, whose scores are not exact.
            "index_options": {"type": "hnsw", "m": 16, "ef_construction": 200},
        }
    body = _body(to_write(name), spec, fields)
    body["mappings"]["_source"] = {"excludes": ["vector"]}
    return body


def words_body(alias: str, spec: IndexSpec) -> dict[str, Any]:
    """Of words only: `key` and `text` of chunks."""
    return _body(alias, spec, {"key": {"type": "long"}, "text": _text()})


def _body(alias: str, spec: IndexSpec, fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "aliases": {alias: {}},
        "settings": {
            "number_of_shards": spec.elasticsearch.shards,
            "number_of_replicas": spec.elasticsearch.replicas,
            "refresh_interval": -1,  # Whoever has written something lets it be seen.
            "max_result_window": MOST_RESULTS,
            "analysis": _analysis(spec),
        },
        "mappings": {"dynamic": "strict", "properties": fields},
    }


def _text() -> dict[str, Any]:
    return {"type": "text", "analyzer": "words"}


def _analysis(spec: IndexSpec) -> dict[str, Any]:
    """Words of small letters, by their stems. No word is left out for being common: who looks for it wants
    it."""
    words = {"type": "custom", "tokenizer": "standard", "filter": ["lowercase"]}
    if spec.language == "none":
        return {"analyzer": {"words": words}}
    return {
        "filter": {"stems": {"type": "stemmer", "language": _STEMMERS[spec.language]}},
        "analyzer": {"words": words | {"filter": ["lowercase", "stems"]}},
    }
