"""A file of documents, one a line: all of it is checked before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NoReturn

from pydantic import ValidationError

from api.index_schemas import NewDocument
from goatherd.terminal._index_document import DIGEST, BadSource, LoadedDocument

_MOST_NAMED = 20
_BOM = b"\xef\xbb\xbf"


class Lines:
    """Each line is a JSON object with `id`, and `text`, `vector`, `metadata` as the API takes them."""

    left_out: Mapping[str, str] = {}

    def __init__(self, file: BinaryIO, *, prefix: str = "") -> None:
        self._file = file
        self._prefix = prefix

    def documents(self) -> Iterator[LoadedDocument]:
        """Raises `BadSource` at its end, if there were lines that are no documents: the first by name."""
        self._file.seek(0)
        faults: list[str] = []
        bad = 0
        for number, line in enumerate(self._file, 1):
            try:
                found = parse(line, number, prefix=self._prefix)
            except BadSource as error:
                bad += 1
                if bad <= _MOST_NAMED:
                    faults.append(str(error))
                continue
            if found is not None and not bad:
                yield found
        if bad > _MOST_NAMED:
            faults.append(f"{bad - _MOST_NAMED:,} more lines are wrong.")
        if bad:
            raise BadSource("\n".join(faults))


def parse(line: bytes, number: int, *, prefix: str = "") -> LoadedDocument | None:
    """None for an empty line."""
    if number == 1:
        line = line.removeprefix(_BOM)
    try:
        text = line.decode().strip()
        if not text:
            return None
        given = json.loads(text, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        _bad(number, f"it is not UTF-8 (at byte {error.start})")
    except json.JSONDecodeError as error:
        _bad(number, f"it is not JSON: {error.msg} (column {error.colno})")
    except (ValueError, RecursionError) as error:
        _bad(number, f"it is not JSON: {error}")
    if not isinstance(given, dict):
        _bad(number, 'it is no document: write {"id": …, "text": …}')
    if prefix and isinstance(given.get("id"), str):
        given["id"] = f"{prefix}{given['id']}"
    return _checked(given, number)


def _checked(given: dict[str, Any], number: int) -> LoadedDocument:
    try:
        json.dumps(given, ensure_ascii=False).encode()
        NewDocument.model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        _bad(number, f"`{'.'.join(map(str, fault['loc']))}`: {fault['msg'].removeprefix('Value error, ')}")
    except UnicodeEncodeError:
        _bad(number, "a text has half of a surrogate pair, which is no character")
    # What the index gave may be loaded again.
    metadata = {name: value for name, value in given.get("metadata", {}).items() if name != DIGEST}
    return LoadedDocument(given["id"], given.get("text", ""), given.get("vector"), metadata)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _bad(number: int, why: str) -> NoReturn:
    raise BadSource(f"Line {number:,}: {why}.")
