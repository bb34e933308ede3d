"""The language of metadata filters: a small JSON that means the same for every backend.

    {"lang": "en"}                                   the key has this value, or one of its values has
    {"year": {"gte": 2020, "lt": 2024}}              a range, of numbers or of texts (by code point)
    {"lang": {"in": ["en", "de"]}}                   any of these
    {"source": {"exists": true}}                     there is such a key, whatever its value; false: none
    {"and": [F, …]}  {"or": [F, …]}  {"not": F}      of filters; several keys in one object are an `and`

A key that a document has not meets no comparison. `not` is the opposite of its filter, for documents without
the key as well. A list of values meets what one of them meets. Numbers and texts never equal each other, nor
do numbers and booleans; a range looks at values of its own kind only. A key named as an operator (`and`,
`or`, `not`) can be had by `{"key": "not", "eq": …}`. Keys of nested objects are written with dots:
`author.name`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from goatherd.errors import Invalid

Scalar = str | float | bool
"""Integers are floats here: metadata may have them up to 2**53."""

MOST_NODES = 512
"""Conditions of a filter, and objects that it is written in: `{"lang": "en"}` has one of each."""
MOST_DEPTH = 16
MOST_VALUES = 1_000
MOST_TEXT = 1_024
"""Characters of a metadata text that comparisons look at. Longer ones are refused where documents come in."""


@dataclass(frozen=True, slots=True)
class In:
    """The key has one of these values.

    To Python, true equals 1: what is kept by filter is kept by its `repr`.
    """

    key: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The key has a value of this kind (`number` or `text`) within the bounds that are given."""

    key: str
    kind: str
    gt: str | float | None = None
    gte: str | float | None = None
    lt: str | float | None = None
    lte: str | float | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    key: str


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Filter, ...]
    """None: everything."""


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Filter, ...]
    """None: nothing."""


@dataclass(frozen=True, slots=True)
class Not:
    part: Filter


Filter = In | Range | Exists | And | Or | Not

_BOUNDS = ("gt", "gte", "lt", "lte")
_OPERATORS = ("eq", "in", "exists", *_BOUNDS)


def read_filter(given: object) -> Filter:
    """The filter that a JSON object says.

    Raises:
        Invalid: it says none. The pointer is within the filter.
    """
    return _Reader().read(given, "", 1)


class _Reader:
    def __init__(self) -> None:
        self._count = 0

    def read(self, given: object, at: str, depth: int) -> Filter:
        if depth > MOST_DEPTH:
            raise Invalid(f"is deeper than {MOST_DEPTH} levels", pointer=at)
        self._node(at)
        if not isinstance(given, Mapping):
            raise Invalid('is no filter: write an object such as {"lang": "en"}', pointer=at)
        if "key" in given and set(given) - {"key"} <= set(_OPERATORS) and len(given) > 1:
            key = given["key"]
            if not isinstance(key, str) or not key:
                raise Invalid("is no key: write a text", pointer=f"{at}/key")
            return self._condition(key, {name: v for name, v in given.items() if name != "key"}, at)
        parts = [self._part(key, value, at, depth) for key, value in given.items()]
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _part(self, key: object, value: object, at: str, depth: int) -> Filter:
        here = f"{at}/{_escaped(str(key))}"
        if key in ("and", "or"):
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise Invalid(f"{key!r} takes a list of filters", pointer=here)
            parts = tuple(self.read(part, f"{here}/{n}", depth + 1) for n, part in enumerate(value))
            return And(parts) if key == "and" else Or(parts)
        if key == "not":
            return Not(self.read(value, here, depth + 1))
        if not isinstance(key, str) or not key:
            raise Invalid("is no key: write a text", pointer=here)
        if isinstance(value, Mapping):
            return self._condition(key, value, here)
        self._node(here)
        return In(key, (_scalar(value, here),))

    def _node(self, at: str) -> None:
        self._count += 1
        if self._count > MOST_NODES:
            raise Invalid(f"has more than {MOST_NODES} conditions and objects", pointer=at)

    def _condition(self, key: str, operators: Mapping[str, Any], at: str) -> Filter:
        self._node(at)
        unknown = set(operators) - set(_OPERATORS)
        if unknown or not operators:
            raise Invalid(
                f"{', '.join(sorted(map(repr, unknown))) or 'nothing'} is no operator: "
                f"there are {', '.join(_OPERATORS)}",
                pointer=at,
            )
        parts: list[Filter] = []
        if "eq" in operators:
            parts.append(In(key, (_scalar(operators["eq"], f"{at}/eq"),)))
        if "in" in operators:
            values = operators["in"]
            if not isinstance(values, Sequence) or isinstance(values, str) or len(values) > MOST_VALUES:
                raise Invalid(f"`in` takes a list of at most {MOST_VALUES} values", pointer=f"{at}/in")
            parts.append(In(key, tuple(_scalar(one, f"{at}/in/{n}") for n, one in enumerate(values))))
        if "exists" in operators:
            if not isinstance(operators["exists"], bool):
                raise Invalid("`exists` takes true or false", pointer=f"{at}/exists")
            parts.append(Exists(key) if operators["exists"] else Not(Exists(key)))
        bounds = {name: operators[name] for name in _BOUNDS if name in operators}
        if bounds:
            parts.append(_range(key, bounds, at))
        return parts[0] if len(parts) == 1 else And(tuple(parts))


def _range(key: str, bounds: Mapping[str, Any], at: str) -> Range:
    read = {name: _scalar(value, f"{at}/{name}") for name, value in bounds.items()}
    if all(isinstance(value, str) for value in read.values()):
        kind = "text"
    elif all(isinstance(value, float) for value in read.values()):
        kind = "number"
    else:
        raise Invalid("the bounds of a range are all numbers or all texts", pointer=at)
    return Range(key, kind, **read)


def _scalar(value: object, at: str) -> Scalar:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        number = float(value) if abs(value) <= 2**53 or isinstance(value, float) else float("inf")
        if number - number != 0:  # neither infinite nor NaN
            raise Invalid("is no number that JSON and every backend keep exactly", pointer=at)
        return number
    if isinstance(value, str) and len(value) <= MOST_TEXT:
        return value
    raise Invalid(
        f"is no value to compare with: a text of at most {MOST_TEXT}, a number or a boolean", pointer=at
    )


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def flat_values(metadata: Mapping[str, Any]) -> list[tuple[str, Scalar | None]]:
    """All that filters can see of a document: its keys, with dots where objects are nested, and their values.

    A list gives its key once for each value; what is null, or empty, gives the key with None: it exists,
    and equals nothing.

    Raises:
        Invalid: a value can't be compared by every backend; the pointer is within the metadata.
    """
    found: list[tuple[str, Scalar | None]] = []
    _flatten(metadata, "", "", found, 1)
    return found


def _flatten(
    given: Mapping[str, Any], prefix: str, at: str, found: list[tuple[str, Scalar | None]], depth: int
) -> None:
    if depth > MOST_DEPTH:
        raise Invalid(f"is deeper than {MOST_DEPTH} levels", pointer=at)
    for name, value in given.items():
        key, here = f"{prefix}{name}", f"{at}/{_escaped(name)}"
        if isinstance(value, Mapping):
            if not value:
                found.append((key, None))
            _flatten(value, f"{key}.", here, found, depth + 1)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if not value:
                found.append((key, None))
            for n, one in enumerate(value):
                found.append((key, None if one is None else _scalar(one, f"{here}/{n}")))
        else:
            found.append((key, None if value is None else _scalar(value, here)))


def meets(condition: Filter, values: Sequence[tuple[str, Scalar | None]]) -> bool:
    """Whether a document with these values (`flat_values`) meets the filter. What every backend is compared
    with."""
    match condition:
        case In(key, wanted):
            return any(name == key and _equal_to_one(value, wanted) for name, value in values)
        case Range():
            return any(name == condition.key and _within(value, condition) for name, value in values)
        case Exists(key):
            return any(name == key or name.startswith(f"{key}.") for name, _ in values)
        case And(parts):
            return all(meets(part, values) for part in parts)
        case Or(parts):
            return any(meets(part, values) for part in parts)
        case Not(part):
            return not meets(part, values)


def _equal_to_one(value: Scalar | None, wanted: Sequence[Scalar]) -> bool:
    return any(type(value) is type(one) and value == one for one in wanted)


def _within(value: Scalar | None, bounds: Range) -> bool:
    if type(value) is not (str if bounds.kind == "text" else float):
        return False
    return (
        (bounds.gt is None or value > bounds.gt)  # type: ignore[operator]
        and (bounds.gte is None or value >= bounds.gte)  # type: ignore[operator]
        and (bounds.lt is None or value < bounds.lt)  # type: ignore[operator]
        and (bounds.lte is None or value <= bounds.lte)  # type: ignore[operator]
    )
