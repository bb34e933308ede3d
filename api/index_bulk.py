"""Many documents in one request, a line of JSON for each: read as they come, and kept in parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import orjson
from starlette.requests import Request

from api.body import check_coding, check_type, parse_any
from api.errors import BodyTooLarge, InvalidInput, UnsupportedMediaType
from api.index_documents import (
    MOST_BYTES_TOGETHER,
    MOST_TOGETHER,
    DocumentService,
    check_document,
    document_in,
    size_of,
)
from api.index_schemas import MOST_ID, BadLine, NewDocument
from api.turns import Turns
from goatherd.contracts.retrieval import DocumentIn, Index
from goatherd.errors import Invalid, Unavailable

LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
MOST_LINE_BYTES = 8 << 20
MOST_WHOLE_BYTES = 16 << 20
"""Of a body that is not read line by line."""
MOST_REFUSED = 1_000
"""Lines: whoever sends more such sends something else than documents."""
_MOST_TOLD = 100
_PIECE = 16 << 10
"""Of what came at once: all its lines are cut apart in one go."""


@dataclass(slots=True)
class Bulk:
    """What became of the lines so far. `rev`: the greatest of what was kept."""

    received: int = 0
    kept: int = 0
    rev: int = 0
    refused: int = 0
    errors: list[BadLine] = field(default_factory=list)

    def refuse(self, line: int, detail: str, *, id: str | None = None, pointer: str | None = None) -> None:
        self.refused += 1
        if len(self.errors) < _MOST_TOLD:
            self.errors.append(BadLine(line=line, id=id, pointer=pointer, detail=detail))

    def check(self) -> None:
        """Raises `InvalidInput` if there were lines, and none of them could be kept."""
        if self.refused and not self.kept:
            raise InvalidInput(self._first(20))

    def check_so_far(self, line: int) -> None:
        """Raises `InvalidInput` if so many were refused that no more lines are to be read."""
        if self.refused > MOST_REFUSED:
            why = (
                f"{self.refused:,} lines up to line {line} are refused, and nothing after it is read. The "
                f"other {self.kept:,} are kept. Put the lines right, and send all again, or what is missing."
            )
            raise InvalidInput([{"pointer": "", "detail": why}, *self._first(19)])

    def _first(self, count: int) -> list[dict[str, str]]:
        return [
            {"pointer": bad.pointer or "", "detail": f"Line {bad.line}: {bad.detail}"}
            for bad in self.errors[:count]
        ]


def in_lines(request: Request) -> bool:
    """Whether the body is lines of JSON; else it is to be one JSON. Raises `UnsupportedMediaType`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    check_coding(request.headers.get("content-encoding"))
    if kind in LINES:
        return True
    if kind == "application/json":
        check_type(request.headers.get("content-type"))
        return False
    raise UnsupportedMediaType(
        "Send JSON with 'Content-Type: application/json', or a line of JSON for each document with "
        f"'Content-Type: {LINES[0]}'; the header says {kind or 'nothing'!r}."
    )


async def whole_body(request: Request) -> bytes:
    """Raises `BodyTooLarge` for what is better sent in lines."""
    body, chunks = bytearray(), request.stream()
    async for chunk in chunks:
        body += chunk
        if len(body) > MOST_WHOLE_BYTES:
            await drained(chunks)
            raise BodyTooLarge(
                f"More than {MOST_WHOLE_BYTES >> 20} MB are taken in lines ('Content-Type: {LINES[0]}'), "
                "without Idempotency-Key; or send them in several requests."
            )
    return bytes(body)


async def drained(chunks: AsyncIterator[bytes]) -> None:
    """Reads the rest and drops it: a client that is still sending reads no answer."""
    async for _ in chunks:
        pass


async def keep_lines(service: DocumentService, index: Index, chunks: AsyncIterator[bytes]) -> Bulk:
    """Keeps what the lines say, and notes which of them say nothing that can be kept: these hinder no others.

    Raises:
        InvalidInput: more than `MOST_REFUSED` are such; it says what was kept.
        Unavailable: the store is away in between; it says what was kept.
    """
    turns = Turns()
    bulk = Bulk()
    waiting: list[DocumentIn] = []
    first = room = 0

    async def flush() -> None:
        nonlocal waiting, room
        try:
            kept = await service.keep(index, waiting)
        except Unavailable as error:
            raise Unavailable(
                f"{error.message} What stands before line {first} is kept: send the rest again, or all.",
                code=error.code,
                retry_after_s=error.retry_after_s,
            ) from error
        bulk.kept += len(waiting)
        bulk.rev = max(bulk.rev, *(document.rev for document in kept))
        waiting, room = [], 0

    async for number, line in _lines(chunks, turns):
        bulk.received += 1
        await turns.give_way()
        if line is None:
            bulk.refuse(number, f"The line has more than {MOST_LINE_BYTES >> 20} MB.")
            document = None
        else:
            document = await _read(bulk, index, number, line)
        if document is None:
            if bulk.refused > MOST_REFUSED and waiting:
                await flush()
            bulk.check_so_far(number)
            continue
        size = size_of(document)
        if waiting and (size > room or len(waiting) == MOST_TOGETHER):
            await flush()
        if not waiting:
            first, room = number, MOST_BYTES_TOGETHER
        waiting.append(document)
        room -= size
    if waiting:
        await flush()
    return bulk


async def _read(bulk: Bulk, index: Index, number: int, line: bytes) -> DocumentIn | None:
    id = None
    try:
        document = await parse_any(line, NewDocument)
        id = document.id
        check_document(index, document)
    except InvalidInput as error:
        wrong = error.errors[0]
        id = _id_of(line) if len(bulk.errors) < _MOST_TOLD else None
        bulk.refuse(number, wrong["detail"], id=id, pointer=wrong.get("pointer"))
        return None
    except Invalid as error:
        detail = error.message.replace("The body", "The line")
        bulk.refuse(number, detail, id=id, pointer=error.pointer)
        return None
    return document_in(document.id, document)


def _id_of(line: bytes) -> str | None:
    """The id that a line has that is JSON, but no document."""
    try:
        given = orjson.loads(line)
    except ValueError:
        return None
    id = given.get("id") if isinstance(given, dict) else None
    return id[:MOST_ID] if isinstance(id, str) else None


async def _pieces(chunks: AsyncIterator[bytes], turns: Turns) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        for begin in range(0, len(chunk), _PIECE):
            await turns.give_way()
            yield chunk[begin : begin + _PIECE]


async def _lines(chunks: AsyncIterator[bytes], turns: Turns) -> AsyncIterator[tuple[int, bytes | None]]:
    """Lines that are not blank, by number; None for one that is too long to be held."""
    rest, number, too_long = bytearray(), 0, False
    async for piece in _pieces(chunks, turns):
        *ended, last = piece.split(b"\n")
        for part in ended:
            number += 1
            line = bytes(rest) + part
            if too_long or len(line) > MOST_LINE_BYTES:
                yield number, None
            elif line.strip():
                yield number, line
            rest.clear()
            too_long = False
        rest += last
        if len(rest) > MOST_LINE_BYTES:
            rest.clear()
            too_long = True
    if too_long:
        yield number + 1, None
    elif rest.strip():
        yield number + 1, bytes(rest)
