"""A file of subtasks: one a line, checked before anything is sent, and always cut into the same batches."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from pydantic import ValidationError

from goatherd.contracts.ids import SUBTASK_ID
from goatherd.contracts.task import SubtaskSpec

BATCH_LINES = 1_000
BATCH_BYTES = 900_000
"""The API takes a little more than 1 MB at once; ids that take the place of keys may need the rest."""
LINE_BYTES = 1_000_000
_BOM = b"\xef\xbb\xbf"
_FIELDS = frozenset(SubtaskSpec.model_fields)
_IS_ID = re.compile(SUBTASK_ID)


class BadLine(Exception):
    """A line that is no subtask. The text names it."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of a file that has been read once. `digest` stands for all of its content."""

    lines: int
    size: int
    digest: str


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
        BadLine: for the first line that is wrong.
    """
    digest = hashlib.sha256()
    keys: dict[str, int] = {}
    lines = size = 0
    for number, line in enumerate(file, 1):
        digest.update(line)
        size += len(line)
        subtask = parse(line, number)
        if subtask is None:
            continue
        lines += 1
        for name in subtask.get("depends_on", ()):
            if name not in keys and not _IS_ID.fullmatch(name):
                _bad(number, f"it depends on {name!r}, which is neither an earlier line's `key` nor an id")
        key = subtask.get("key")
        if key is not None:
            if key in keys:
                _bad(number, f"line {keys[key]} has the `key` {key!r} already")
            keys[key] = number
    return Checked(lines, size, digest.hexdigest())


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
        heavy = len(line) + 32 + 40 * len(subtask.get("depends_on", ()))
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

    An object with `input` says it all; any other value is the input itself.
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
        value = json.loads(text, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        _bad(number, f"it is not UTF-8 (at byte {error.start})")
    except json.JSONDecodeError as error:
        _bad(number, f"it is not JSON: {error.msg} (column {error.colno})")
    except (ValueError, RecursionError) as error:
        _bad(number, f"it is not JSON: {error}")
    if not (isinstance(value, dict) and "input" in value):
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


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _bad(number: int, why: str) -> NoReturn:
    raise BadLine(f"Line {number:,}: {why}.")
