"""The language of metadata filters: what it says, what it refuses, and which documents meet it."""

from __future__ import annotations

from typing import Any

import pytest

from goatherd.contracts.filters import (
    MOST_DEPTH,
    MOST_NODES,
    MOST_TEXT,
    MOST_VALUES,
    And,
    Exists,
    In,
    Not,
    Or,
    Range,
    flat_values,
    meets,
    read_filter,
)
from goatherd.errors import Invalid


def met(condition: object, metadata: dict[str, Any]) -> bool:
    return meets(read_filter(condition), flat_values(metadata))


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({}, And(())),
        ({"lang": "en"}, In("lang", ("en",))),
        ({"lang": {"eq": "en"}}, In("lang", ("en",))),
        ({"lang": {"in": ["en", "de"]}}, In("lang", ("en", "de"))),
        ({"lang": {"in": []}}, In("lang", ())),
        ({"year": {"gte": 2020, "lt": 2024}}, Range("year", "number", gte=2020.0, lt=2024.0)),
        ({"name": {"gt": "a", "lte": "b"}}, Range("name", "text", gt="a", lte="b")),
        ({"source": {"exists": True}}, Exists("source")),
        ({"source": {"exists": False}}, Not(Exists("source"))),
        ({"a": 1, "b": True}, And((In("a", (1.0,)), In("b", (True,))))),
        ({"a": {"gt": 1, "in": [2, 3]}}, And((In("a", (2.0, 3.0)), Range("a", "number", gt=1.0)))),
        ({"and": []}, And(())),
        ({"or": []}, Or(())),
        ({"or": [{"a": 1}, {"not": {"b": 2}}]}, Or((In("a", (1.0,)), Not(In("b", (2.0,)))))),
        ({"key": "not", "eq": 1}, In("not", (1.0,))),
        ({"key": "a", "exists": True, "lt": 3}, And((Exists("a"), Range("a", "number", lt=3.0)))),
        ({"key": "a"}, In("key", ("a",))),
        ({"key": "a", "lang": "en"}, And((In("key", ("a",)), In("lang", ("en",))))),
        ({"eq": 1}, In("eq", (1.0,))),
        ({"n": 2**53}, In("n", (2.0**53,))),
        ({"t": "x" * MOST_TEXT}, In("t", ("x" * MOST_TEXT,))),
    ],
)
def test_what_a_filter_says(given: object, read: object) -> None:
    assert repr(read_filter(given)) == repr(read)


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ([], ""),
        ("lang", ""),
        (None, ""),
        ({"a": None}, "/a"),
        ({"a": ["x", "y"]}, "/a"),
        ({"a": {}}, "/a"),
        ({"a": {"like": "x"}}, "/a"),
        ({"a/b~c": {"eq": None}}, "/a~1b~0c/eq"),
        ({"a": {"eq": {"x": 1}}}, "/a/eq"),
        ({"a": {"in": "xy"}}, "/a/in"),
        ({"a": {"in": [1, None]}}, "/a/in/1"),
        ({"a": {"in": [0] * (MOST_VALUES + 1)}}, "/a/in"),
        ({"a": {"exists": 1}}, "/a/exists"),
        ({"a": {"gt": 1, "lt": "b"}}, "/a"),
        ({"a": {"gt": True}}, "/a"),
        ({"a": {"gte": None}}, "/a/gte"),
        ({"a": float("nan")}, "/a"),
        ({"a": float("inf")}, "/a"),
        ({"a": 2**53 + 1}, "/a"),
        ({"a": 10**400}, "/a"),
        ({"a": "x" * (MOST_TEXT + 1)}, "/a"),
        ({"": 1}, "/"),
        ({"key": "", "eq": 1}, "/key"),
        ({"key": 1, "eq": 1}, "/key"),
        ({"key": "a", "eq": None}, "/eq"),
        ({"and": {"a": 1}}, "/and"),
        ({"or": "a"}, "/or"),
        ({"and": [{"a": 1}, {"or": [{"b": 1}, 7]}]}, "/and/1/or/1"),
        ({"not": [{"a": 1}]}, "/not"),
    ],
)
def test_what_is_no_filter_is_refused_with_the_place_in_it(given: object, pointer: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_filter(given)
    assert refused.value.pointer == pointer


def nested(depth: int) -> dict[str, Any]:
    condition: dict[str, Any] = {"a": 1}
    for _ in range(depth - 1):
        condition = {"not": condition}
    return condition


def test_a_filter_has_a_greatest_depth() -> None:
    read_filter(nested(MOST_DEPTH))
    with pytest.raises(Invalid, match="deeper"):
        read_filter(nested(MOST_DEPTH + 1))


@pytest.mark.parametrize(
    ("part", "nodes"), [({}, 1), ({"a": 1}, 2), ({"or": []}, 1), ({"a": {"gt": 1}, "b": 1}, 3)]
)
def test_a_filter_has_a_greatest_size(part: dict[str, Any], nodes: int) -> None:
    most = (MOST_NODES - 1) // nodes
    read_filter({"and": [part] * most})
    with pytest.raises(Invalid, match="more than"):
        read_filter({"and": [part] * (most + 1)})


@pytest.mark.parametrize(
    ("metadata", "values"),
    [
        ({}, []),
        ({"a": 1, "b": "x", "c": True}, [("a", 1.0), ("b", "x"), ("c", True)]),
        ({"a": {"b": {"c": 1}, "d": 2}}, [("a.b.c", 1.0), ("a.d", 2.0)]),
        ({"a": [1, "x", None, False]}, [("a", 1.0), ("a", "x"), ("a", None), ("a", False)]),
        ({"a": None, "b": [], "c": {}}, [("a", None), ("b", None), ("c", None)]),
        ({"": 1, "a": {"": 2}}, [("", 1.0), ("a.", 2.0)]),
    ],
)
def test_what_filters_see_of_a_document(metadata: dict[str, Any], values: object) -> None:
    assert repr(flat_values(metadata)) == repr(values)


@pytest.mark.parametrize(
    ("metadata", "pointer"),
    [
        ({"a": {"b/c": [1, {"d": 1}]}}, "/a/b~1c/1"),
        ({"a": [[1]]}, "/a/0"),
        ({"a": float("nan")}, "/a"),
        ({"a": 2**60}, "/a"),
        ({"a": "x" * (MOST_TEXT + 1)}, "/a"),
    ],
)
def test_metadata_that_nothing_can_be_compared_with_is_refused(
    metadata: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(Invalid) as refused:
        flat_values(metadata)
    assert refused.value.pointer == pointer


def test_metadata_has_a_greatest_depth() -> None:
    metadata: dict[str, Any] = {"a": 1}
    for _ in range(MOST_DEPTH - 1):
        metadata = {"a": metadata}
    flat_values(metadata)
    with pytest.raises(Invalid, match="deeper"):
        flat_values({"a": metadata})


GOAT: dict[str, Any] = {
    "lang": "en",
    "year": 2021,
    "open": True,
    "tags": ["hill", "Milk", 7],
    "author": {"name": "Ann", "age": None},
    "none": [],
    "empty": {},
    "not": "x",
}


@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"lang": "en"},
        {"year": 2021.0},
        {"open": True},
        {"lang": {"in": ["de", "en"]}},
        {"tags": "hill"},
        {"tags": 7},
        {"tags": {"gte": "M", "lt": "N"}},
        {"year": {"gt": 2020, "lte": 2021}},
        {"author.name": "Ann"},
        {"key": "not", "eq": "x"},
        {"lang": "en", "year": {"lt": 2022}},
        {"or": [{"lang": "de"}, {"year": 2021}]},
        {"not": {"lang": "de"}},
        {"not": {"missing": 1}},
        {"not": {"missing": {"gt": 1}}},
        {"not": {"or": []}},
        {"missing": {"exists": False}},
        *({key: {"exists": True}} for key in ("lang", "author", "author.age", "none", "empty")),
        # Two values meet one bound each, and 7 lies within neither kind of the other's.
        {"and": [{"tags": {"lt": "N"}}, {"tags": {"gt": "b"}}]},
    ],
)
def test_a_document_meets(condition: object) -> None:
    assert met(condition, GOAT)


@pytest.mark.parametrize(
    "condition",
    [
        {"lang": "EN"},
        {"lang": {"in": []}},
        {"year": "2021"},
        {"year": True},
        {"open": 1},
        {"open": {"gte": 0}},
        {"open": {"gte": ""}},
        {"year": {"gte": ""}},
        {"lang": {"gte": 0}},
        {"year": {"gt": 2021}},
        {"tags": {"gt": "N", "lt": "b"}},
        {"author": "Ann"},
        {"author.age": {"in": [0, False, ""]}},
        {"none": ""},
        {"missing": {"lt": "z"}},
        {"missing": {"exists": True}},
        {"auth": {"exists": True}},
        {"lang.x": {"exists": True}},
        {"empty": {"exists": False}},
        {"not": {}},
        {"or": []},
        {"and": [{"lang": "en"}, {"year": 2020}]},
    ],
)
def test_a_document_does_not_meet(condition: object) -> None:
    assert not met(condition, GOAT)


def test_texts_are_in_the_order_of_their_code_points() -> None:
    assert met({"a": {"gt": "\uffff"}}, {"a": "\U00010000"})
    assert met({"a": {"lt": "a"}}, {"a": "Z"})
    assert met({"a": {"gt": "a"}}, {"a": "a\x00"})
