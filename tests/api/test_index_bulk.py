"""Many documents at once, and those who send something else: others have their turn all the while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from time import perf_counter

import orjson
import pytest

from goatherd.contracts.retrieval import Document, DocumentIn
from tests.api.conftest import check_problem
from tests.api.index_house import IndexHouse, index_house

LINES = {"content-type": "application/x-ndjson"}


@pytest.fixture
async def words() -> AsyncIterator[IndexHouse]:
    """With an index of words."""
    async with index_house() as house:
        await house.create()
        yield house


@asynccontextmanager
async def longest_wait() -> AsyncIterator[list[float]]:
    """How long others of this loop had to wait for their turn, at most."""
    waited, ended = [0.0], asyncio.Event()

    async def others() -> None:
        while not ended.is_set():
            began = perf_counter()
            await asyncio.sleep(0)
            waited[0] = max(waited[0], perf_counter() - began)

    watching = asyncio.create_task(others())
    await asyncio.sleep(0)
    try:
        yield waited
    finally:
        ended.set()
        await watching


async def test_whoever_sends_no_documents_is_stopped(words: IndexHouse) -> None:
    good = b'{"id": "a", "text": "Goats."}\n'
    async with longest_wait() as waited:
        answer = await words.http.post("/index/docs/doc", content=good + b"0\n" * (2 << 20), headers=LINES)
    problem = check_problem(answer, 422, "invalid")
    assert len(problem["errors"]) == 20
    assert problem["errors"][0]["detail"].startswith(
        "1,001 lines up to line 1002 are refused, and nothing after it is read. The other 1 are kept."
    )
    assert problem["errors"][1]["detail"] == "Line 2: Has to be an object."
    assert (await words.http.get("/index/docs/doc/a")).json()["text"] == "Goats."
    assert waited[0] < 0.5


@pytest.mark.parametrize(
    "body",
    [
        b"\n" * (8 << 20),
        b"".join(b'{"id":"%d","text":"x"}\n' % n for n in range(60_000)),
        b"".join(b'{"id":"a","metadata":{%b}}\n' % (b'"a":1e999,' * 20_000)[:-1] for _ in range(20)),
    ],
    ids=["blank", "good", "bad"],
)
async def test_others_have_their_turn_while_lines_are_read(
    words: IndexHouse, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    await words.put("a", text="Goats.")

    async def kept(index: str, documents: Sequence[DocumentIn]) -> list[Document]:
        document = await words.store.document(index, "a")
        assert document is not None
        return [document]

    # The store of these tests never waits.
    monkeypatch.setattr(words.store, "put", kept)
    async with longest_wait() as waited:
        answer = await words.http.post("/index/docs/doc", content=body, headers=LINES)
    assert answer.status_code in (202, 422)
    assert waited[0] < 0.5


def _faulty_documents() -> bytes:
    fields = {f"field{n}": 0 for n in range(90)}
    return orjson.dumps({"documents": [{"id": str(n), "text": "x", **fields} for n in range(9_000)]})


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (_faulty_documents, "wrong in 810,000 places"),
        (
            lambda: (
                b'{"documents":[{"id":"a","text":"x","metadata":{%b}}]}'
                % b",".join(b'"%d":1e999' % n for n in range(900_000))
            ),
            "metadata has at most 16384 bytes",
        ),
        (lambda: b'{"documents":[' + b"0," * (4 << 20) + b"0]}", "more than 10000"),
    ],
    ids=["unknown fields", "metadata", "numbers"],
)
async def test_others_have_their_turn_while_a_large_json_is_read(
    words: IndexHouse, body: Callable[[], bytes], told: str
) -> None:
    content, headers = body(), {"content-type": "application/json"}
    async with longest_wait() as waited:
        answer = await words.http.post("/index/docs/doc", content=content, headers=headers)
    assert told.lower() in check_problem(answer, 422, "invalid")["detail"].lower()
    assert waited[0] < 2.0
