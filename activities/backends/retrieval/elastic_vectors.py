"""Vectors in Elasticsearch: queries for the nearest, and their scores, which it never lets be negative."""

from __future__ import annotations

from activities.backends.retrieval.elastic_filters import Query
from activities.retrieval_ports import Vectors
from goatherd.contracts.retrieval import Metric

HAS_VECTOR: Query = {"exists": {"field": "vector"}}

_SCRIPTS: dict[Metric, str] = {
    "cosine": "Math.max(0.0, (1.0 + cosineSimilarity(params.query, 'vector')) / 2.0)",
    "ip": "double p = dotProduct(params.query, 'vector'); return p < 0 ? 1 / (1 - p) : p + 1;",
    "l2": "double d = l2norm(params.query, 'vector'); return 1 / (1 + d * d);",
}
"""The same scores as its own search gives."""


def nearest(vector: Vectors, k: int, looked_at: int, condition: Query | None) -> Query:
    """The part `knn` of a search: about the nearest, of those that meet the filter."""
    made: Query = {"field": "vector", "query_vector": vector.tolist(), "k": k, "num_candidates": looked_at}
    return made if condition is None else made | {"filter": condition}


def scored(vector: Vectors, metric: Metric, condition: Query | None) -> Query:
    """The query that compares with each that meets the filter."""
    conditions = [HAS_VECTOR] if condition is None else [HAS_VECTOR, condition]
    return {
        "script_score": {
            "query": {"bool": {"filter": conditions}},
            "script": {"source": _SCRIPTS[metric], "params": {"query": vector.tolist()}},
        }
    }


def our_score(metric: Metric, score: float) -> float:
    """What `score` of Elasticsearch's says of the metric."""
    match metric:
        case "cosine":
            return 2 * score - 1
        case "ip":
            return score - 1 if score >= 1 else 1 - 1 / score
        case "l2":
            return score
