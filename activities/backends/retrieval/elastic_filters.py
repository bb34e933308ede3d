"""Metadata in Elasticsearch, and filters as its queries.

A document has two lists of keywords, whatever its keys are called, so that no mapping grows with them:

    names   its keys
    facts   a keyword for each value: the key, with its length before it, so that no key is the beginning of
            another's; the value's kind; the value, written so that the order of the keywords is its order

A comparison is one keyword, or a range of them. Keywords are ordered by their UTF-8, as code points are.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Any

from goatherd.contracts.filters import And, Exists, Filter, In, Not, Or, Range, Scalar

Query = dict[str, Any]

EVERYTHING: Query = {"match_all": {}}
NOTHING: Query = {"match_none": {}}

_NUMBER, _AFTER_NUMBERS = "n", "o"
_TEXT, _AFTER_TEXTS = "s", "t"
_BOOLEAN = "b"

_HALF = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair: JSON can say it, but no document has it, as no UTF-8 does."""


def keywords(values: Sequence[tuple[str, Scalar | None]]) -> tuple[list[str], list[str]]:
    """`names` and `facts` of a document with these values (`filters.flat_values`)."""
    names = dict.fromkeys(name for name, _ in values)
    facts = dict.fromkeys(_fact(name, value) for name, value in values if value is not None)
    return list(names), list(facts)


def filter_query(condition: Filter) -> Query:
    """Finds the documents that meet the filter, exactly as `filters.meets` says."""
    match condition:
        case In(key, _) | Range(key) | Exists(key) if _HALF.search(key):
            return NOTHING
        case In(key, values):
            facts = [_fact(key, value) for value in values if not _has_halves(value)]
            return {"terms": {"facts": facts}} if facts else NOTHING
        case Range():
            return {"range": {"facts": _bounds(condition)}}
        case Exists(key):
            # `/` is what comes after the dot. A query for a prefix takes only short ones.
            inner = {"gte": f"{key}.", "lt": f"{key}/"}
            return _any_of([{"term": {"names": key}}, {"range": {"names": inner}}])
        case And():
            return _all_of(condition)
        case Or(parts):
            return _any_of([filter_query(part) for part in parts]) if parts else NOTHING
        case Not(part):
            return {"bool": {"must_not": [filter_query(part)]}}


def _any_of(queries: list[Query]) -> Query:
    return {"bool": {"should": queries, "minimum_should_match": 1}}


def _all_of(condition: And) -> Query:
    """One query for all that is to be met together, as the server bounds how deep they may be nested."""
    found: Query = {"filter": [], "must_not": []}
    for part in _flat(condition):
        match part:
            case Not(inner):
                found["must_not"].append(filter_query(inner))
            case Or(parts) if parts and "should" not in found:
                found |= _any_of([filter_query(one) for one in parts])["bool"]
            case _:
                found["filter"].append(filter_query(part))
    given = {name: queries for name, queries in found.items() if queries}
    return {"bool": given} if given else EVERYTHING


def _flat(condition: And) -> list[Filter]:
    flat: list[Filter] = []
    for part in condition.parts:
        flat.extend(_flat(part) if isinstance(part, And) else [part])
    return flat


def _bounds(bounds: Range) -> dict[str, str]:
    kind, after = (_TEXT, _AFTER_TEXTS) if bounds.kind == "text" else (_NUMBER, _AFTER_NUMBERS)
    lower, upper = [("gte", _key(bounds.key) + kind)], [("lt", _key(bounds.key) + after)]
    for name in ("gt", "gte", "lt", "lte"):
        value = getattr(bounds, name)
        if value is None:
            continue
        operator = name
        if isinstance(value, str) and (half := _HALF.search(value)):
            # No text that is kept lies between this and the first character after all halves.
            operator, value = "gte" if name[0] == "g" else "lt", f"{value[: half.start()]}\ue000"
        (lower if name[0] == "g" else upper).append((operator, _fact(bounds.key, value)))
    # Elasticsearch takes one bound of each side: the narrowest.
    least = max(lower, key=lambda one: (one[1], one[0] == "gt"))
    most = min(upper, key=lambda one: (one[1], one[0] == "lte"))
    return dict((least, most))


def _fact(key: str, value: Scalar) -> str:
    if isinstance(value, bool):
        return f"{_key(key)}{_BOOLEAN}{value:d}"
    if isinstance(value, str):
        return f"{_key(key)}{_TEXT}{value}"
    return f"{_key(key)}{_NUMBER}{_in_order(float(value))}"


def _key(key: str) -> str:
    return f"{len(key)}:{key}"


def _in_order(number: float) -> str:
    """Sixteen digits in the order of the numbers: the bits, turned round for the negative ones."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", number + 0.0))  # -0.0 + 0.0 is 0.0
    return f"{bits ^ (0xFFFF_FFFF_FFFF_FFFF if bits >> 63 else 1 << 63):016x}"


def _has_halves(value: Scalar) -> bool:
    return isinstance(value, str) and _HALF.search(value) is not None
