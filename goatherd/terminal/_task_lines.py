"""A file of subtasks: one a line, checked before anything is sent, and always cut into the same batches."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, BinaryIO, NoReturn

from pydantic import TypeAdapter, ValidationError

from api.task_json import MOST_DEPTH, AnyJson
from goatherd.contracts.ids import SUBTASK_ID
from goatherd.contracts.task import SubtaskSpec

BATCH_LINES = 1_000
BATCH_BYTES = 900_000
"""The API takes a little more than 1 MB at once; ids that take the place of keys may need the rest."""
LINE_BYTES = 1_000_000
_BOM = b"\xef\xbb\xbf"
_FIELDS = frozenset(SubtaskSpec.model_fields)
_IS_ID = re.compile(SUBTASK_ID)
_KEPT: TypeAdapter[Any] = TypeAdapter(AnyJson)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_CLOSE = 0.8
_LONGEST_NAME = 20
_LONGEST_INT = len(str(-(2**63)))
_MOST_NAMED = 20


class BadLine(Exception):
    """Lines that are no subtasks, or a file without any. The text names them."""


class _Unkept(ValueError):
    """JSON, but what the API does not take."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of a file that has been read once. `digest` stands for all of its content; `doubt` is
    what may be meant otherwise than it will be taken."""

    lines: int
    size: int
    digest: str
    doubt: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Some lines next to each other. `digest` stands for their content and for where they are."""

    subtasks: list[dict[str, Any]]
    first_line: int
    last_line: int
    digest: str


def check(file: BinaryIO) -> Checked:
    """Reads all of it.

    Raises:
        BadLine: for the lines that are wrong, the first of them by name; or if there is no subtask.
    """
    digest = hashlib.sha256()
    keys: dict[str, int] = {}
    faults: list[str] = []
    lines = size = bad = doubtful = 0
    doubt = ""
    for number, line in enumerate(file, 1):
        digest.update(line)
        size += len(line)
        try:
            subtask = parse(line, number)
            if subtask is None:
                continue
            lines += 1
            # A name that is not known may be of a line that is wrong itself.
            _place(subtask, number, keys, strict=not bad)
        except BadLine as error:
            bad += 1
            if bad <= _MOST_NAMED:
                faults.append(str(error))
            continue
        name = _misread(subtask)
        if name is not None:
            doubtful += 1
            doubt = doubt or f"Line {number:,} has {name!r} but no 'input': all of it is taken as the input"
    if bad > _MOST_NAMED:
        faults.append(f"{bad - _MOST_NAMED:,} more lines are wrong.")
    if bad:
        raise BadLine("\n".join(faults))
    if not lines:
        raise BadLine("It has no line that is not empty: there is no subtask, and nothing is sent.")
    if doubtful > 1:
        doubt += f" ({doubtful:,} lines are like that)"
    if doubt:
        doubt += '. To say more of a subtask than its input, write {"input": …, "labels": …}.'
    return Checked(lines, size, digest.hexdigest(), doubt or None)


def _place(subtask: dict[str, Any], number: int, keys: dict[str, int], *, strict: bool) -> None:
    """Among the lines before it, whose `keys` are given with their lines' numbers."""
    key = subtask.get("key")
    before = keys.get(key) if key is not None else None
    if key is not None and before is None:
        keys[key] = number
    for name in subtask.get("depends_on", ()):
        if name in keys and keys[name] != number:
            continue
        if (strict or name == key) and not _IS_ID.fullmatch(name):
            _bad(number, f"it depends on {name!r}, which is neither an earlier line's `key` nor an id")
    if before is not None:
        _bad(number, f"line {before:,} has the `key` {key!r} already")


def _misread(subtask: dict[str, Any]) -> str | None:
    """Of a line that is an input as a whole: what looks like a field of a subtask."""
    value = subtask["input"]
    if len(subtask) > 1 or not isinstance(value, dict):
        return None
    return next((name for name in value if _nearest(name) is not None), None)


def _nearest(name: str) -> str | None:
    """The field that it is, or nearly is."""
    return _nearest_field(name.lower()) if len(name) <= _LONGEST_NAME else None


@lru_cache
def _nearest_field(name: str) -> str | None:
    return next(iter(get_close_matches(name, sorted(_FIELDS), 1, _CLOSE)), None)


def batches(file: BinaryIO) -> Iterator[Batch]:
    """The subtasks of a file that was checked, in batches that the API takes. The cut follows from the
    lines alone: the same lines give the same batches."""
    subtasks: list[dict[str, Any]] = []
    digest = hashlib.sha256()
    weight = first = last = 0
    for number, line in enumerate(file, 1):
        subtask = parse(line, number)
        if subtask is None:
            continue
        heavy = max(len(line), _sent_bytes(subtask)) + 32 + 40 * len(subtask.get("depends_on", ()))
        if subtasks and (len(subtasks) == BATCH_LINES or weight + heavy > BATCH_BYTES):
            yield Batch(subtasks, first, last, digest.hexdigest())
            subtasks, digest, weight = [], hashlib.sha256(), 0
        if not subtasks:
            first = number
            digest.update(b"%d\n" % number)
        digest.update(line)
        subtasks.append(subtask)
        last = number
        weight += heavy
    if subtasks:
        yield Batch(subtasks, first, last, digest.hexdigest())


def parse(line: bytes, number: int) -> dict[str, Any] | None:
    """A subtask as the API takes it; None for an empty line.

    An object with `input` says it all; any other value is the input itself. What the API would refuse is
    refused here.
    """
    if number == 1:
        line = line.removeprefix(_BOM)
    line = line.rstrip(b"\r\n")
    if len(line) > LINE_BYTES:
        _bad(number, f"it has {len(line):,} bytes, and a subtask at most {LINE_BYTES:,}")
    try:
        text = line.decode().strip()
        if not text:
            return None
        value = json.loads(text, parse_constant=_no_constant, parse_int=_int, parse_float=_float)
    except UnicodeDecodeError as error:
        _bad(number, f"it is not UTF-8 (at byte {error.start})")
    except json.JSONDecodeError as error:
        _bad(number, f"it is not JSON: {error.msg} (column {error.colno})")
    except _Unkept as error:
        _bad(number, str(error))
    except ValueError as error:
        _bad(number, f"it is not JSON: {error}")
    except RecursionError:
        _bad(number, f"it is nested more than {MOST_DEPTH} deep")
    subtask = _subtask(value, number)
    _check_input(subtask["input"], number)
    if _SURROGATE.search(line) and not _is_text(subtask):
        _bad(number, "a text has half of a surrogate pair, which is no character")
    size = _sent_bytes(subtask)
    if size > LINE_BYTES:
        _bad(number, f"it has {size:,} bytes as it is sent, and a subtask at most {LINE_BYTES:,}")
    return subtask


def _subtask(value: Any, number: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {"input": value}
    if "input" not in value:
        near = next((name for name in value if _nearest(name) == "input"), None)
        if near is not None:
            _bad(
                number,
                f"it has {near!r}, which is not 'input'. If that is what is meant, call it so;"
                ' if all of this is the input, write {"input": {…}}',
            )
        return {"input": value}
    unknown = sorted(value.keys() - _FIELDS)
    if unknown:
        _bad(
            number,
            f"a subtask has no {unknown[0]!r}, but {', '.join(sorted(_FIELDS))}."
            ' If all of this is the input, write {"input": {…}}',
        )
    try:
        SubtaskSpec.model_validate(value, strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        _bad(number, f"`{'.'.join(map(str, fault['loc']))}`: {fault['msg']}")
    return value


def _check_input(value: Any, number: int) -> None:
    try:
        _KEPT.validate_python(value)
    except ValidationError as error:
        _bad(number, str(error.errors()[0]["ctx"]["error"]))


def _is_text(subtask: dict[str, Any]) -> bool:
    try:
        json.dumps(subtask, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _sent_bytes(subtask: dict[str, Any]) -> int:
    """How many bytes it has in a request: numbers may be longer there than in the file."""
    return len(json.dumps(subtask, ensure_ascii=False, separators=(",", ":")).encode())


def _int(text: str) -> int:
    # Python would not even read those of some thousand digits.
    if len(text) > _LONGEST_INT:
        raise _Unkept("a number has more than 64 bits: send it as a text")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Unkept("a number is too large: send it as a text")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _bad(number: int, why: str) -> NoReturn:
    raise BadLine(f"Line {number:,}: {why}.")
