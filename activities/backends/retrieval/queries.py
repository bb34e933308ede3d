"""Searches, checked and read for the index that they ask."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np

from activities.backends.retrieval.fusion import candidates_for
from activities.retrieval_ports import Vectors
from goatherd.contracts.filters import And, Filter, read_filter
from goatherd.contracts.retrieval import IndexSpec, Metric, SearchQuery
from goatherd.errors import Invalid, Unavailable

MOST_WEIGHT = 1_000.0
MOST_NUMBER = 1e15
"""Of a vector that is not made of length 1: products of greater ones leave float32."""


@dataclass(frozen=True, slots=True)
class ReadQuery:
    """What is to be looked for. `vector` is a row of the index's length, and of length 1 for `cosine`; None:
    not by meaning. `text` is None: not by words. `filter_name` is the same for filters that say the same."""

    vector: Vectors | None
    text: str | None
    k: int
    condition: Filter | None
    filter_name: str
    per_document: bool
    explain: bool
    highlight: bool
    weights: tuple[float, float]
    """Of the dense list and of the lexical one."""
    candidates: int
    candidates_given: bool
    rank_constant: int

    @property
    def hybrid(self) -> bool:
        return self.vector is not None and self.text is not None


def read_query(spec: IndexSpec, query: SearchQuery, applied: int) -> ReadQuery:
    """The query, for an index of this spec that has all up to `applied`.

    Raises:
        Invalid: it can't be answered. The pointer is into the query.
        Unavailable: it is to be answered from newer entries than there are.
    """
    dense, lexical = query.mode != "lexical", query.mode != "dense"
    if dense and not spec.dimensions:
        raise Invalid(
            "this index has no vectors, it finds words only: search it with mode `lexical`, or make an index "
            "with a model or with dimensions",
            pointer="/mode",
        )
    if lexical and spec.lexical == "off":
        raise Invalid(
            "this index does not find words: search it with mode `dense`, or make an index whose `lexical` "
            "is not `off`",
            pointer="/mode",
        )
    if lexical and query.text is None:
        raise Invalid(f"mode `{query.mode}` needs the words to look for", pointer="/text")
    vector = read_vector(query.vector, spec.dimensions, spec.metric) if dense else None
    condition, name = _filter(query)
    weights = _weight(query, "dense"), _weight(query, "lexical")
    if not any(weights):
        raise Invalid("one of the weights must be more than 0", pointer="/weights")
    if query.min_seq > applied:
        raise Unavailable(f"the index has entries up to {applied}, and is to have {query.min_seq}")
    return ReadQuery(
        vector=vector,
        text=query.text if lexical else None,
        k=query.k,
        condition=condition,
        filter_name=name,
        per_document=query.per_document,
        explain=query.explain,
        highlight=query.highlight and lexical,
        weights=weights,
        candidates=query.candidates or candidates_for(query.k),
        candidates_given=query.candidates is not None,
        rank_constant=query.rank_constant,
    )


def read_vector(data: bytes | None, dimensions: int, metric: Metric, pointer: str = "/vector") -> Vectors:
    """A vector of so many numbers, of length 1 for `cosine`, as documents and searches bring it.

    Raises:
        Invalid: it is none that can be compared.
    """
    if not data:
        raise Invalid(f"there is no vector: give one of {dimensions} numbers", pointer=pointer)
    if len(data) != 4 * dimensions:
        count = f"{len(data) // 4} numbers" if len(data) % 4 == 0 else f"{len(data)} bytes"
        raise Invalid(f"the vector has {count}, the index's have {dimensions} numbers", pointer=pointer)
    vector = np.frombuffer(data, "<f4").astype(np.float64)
    if not np.isfinite(vector).all():
        raise Invalid("a vector's numbers are neither infinite nor NaN", pointer=pointer)
    if metric == "cosine":
        length = np.linalg.norm(vector)
        if length == 0:
            raise Invalid("a vector of zeros has no direction, and no cosine with any other", pointer=pointer)
        vector = vector / length
    elif np.abs(vector).max() > MOST_NUMBER:
        raise Invalid(f"numbers beyond {MOST_NUMBER:g} can't be compared exactly", pointer=pointer)
    return np.ascontiguousarray(vector, dtype=np.float32)


def _filter(query: SearchQuery) -> tuple[Filter | None, str]:
    if query.filter is None:
        return None, ""
    try:
        condition = read_filter(query.filter)
    except Invalid as error:
        raise Invalid(f"the filter {error.message}", pointer=f"/filter{error.pointer or ''}") from error
    if condition == And(()):
        return None, ""
    # Not by the filter itself: one that says 1 equals one that says true.
    return condition, json.dumps(query.filter, sort_keys=True)


def _weight(query: SearchQuery, name: str) -> float:
    weight = query.weights.get(name, 1.0)  # type: ignore[call-overload]
    if not math.isfinite(weight) or not 0 <= weight <= MOST_WEIGHT:
        raise Invalid(f"a weight is a number from 0 to {MOST_WEIGHT:g}", pointer=f"/weights/{name}")
    return float(weight)
