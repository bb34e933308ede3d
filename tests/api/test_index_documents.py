"""Documents of indexes over HTTP: put, one or many, waited for, read, removed."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from temporalio.service import RPCError, RPCStatusCode

from activities.ports import Page
from api import index_nudges
from goatherd.contracts.retrieval import Document, DocumentIn
from goatherd.errors import Unavailable
from tests.api.conftest import check_problem
from tests.api.index_house import MODEL, IndexHouse, index_house, packed

LINES = {"content-type": "application/x-ndjson"}


@pytest.fixture
async def house() -> AsyncIterator[IndexHouse]:
    async with index_house() as house:
        yield house


@pytest.fixture
async def words(house: IndexHouse) -> IndexHouse:
    """With an index of words."""
    await house.create()
    return house


def lines(*documents: Any) -> bytes:
    return b"\n".join(json.dumps(one).encode() for one in documents)


async def test_a_document_is_kept_and_then_taken_in(words: IndexHouse) -> None:
    made = await words.put("goats", text="Goats climb.", metadata={"lang": "en"})
    assert (made["id"], made["rev"], made["status"], made["characters"]) == ("goats", 1, "pending", 12)
    await words.indexes.nudges.said(made["index"])
    assert words.nudged() == [f"ingest-{made['index']}"]
    await words.take_in()
    found = (await words.http.get("/index/docs/doc/goats")).json()
    assert (found["status"], found["text"], found["metadata"]) == ("ready", "Goats climb.", {"lang": "en"})
    assert found["vector"] is None
    counts = (await words.http.get("/index/docs")).json()["counts"]
    assert counts == {"documents": 1, "pending": 0, "failed": 0, "chunks": 1}


@pytest.mark.parametrize(
    "id", ["a/b/c.md", "ä ö?#&=+%", '"quoted"', "__delete", "..a", "x" * 512, ".a/b../...", "%2e.md"]
)
async def test_an_id_is_any_text_in_one_line(words: IndexHouse, id: str) -> None:
    path = f"/index/docs/doc/{quote(id, safe='')}"
    put = await words.http.put(path, json={"text": "Goats."})
    assert (put.status_code, put.json()["id"]) == (202, id)
    assert put.headers["location"].startswith("/index/docs/doc/")
    listed = await words.http.get("/index/docs/doc")
    assert (listed.json()["first_id"], listed.json()["data"][0]["id"]) == (id, id)
    assert (await words.http.get(put.headers["location"])).json()["text"] == "Goats."
    assert (await words.http.delete(path)).status_code == 204
    check_problem(await words.http.get(path), 404, "not-found")


@pytest.mark.parametrize("id", ["%0a", "a%00b", "x" * 513, ""])
async def test_an_id_that_is_none(words: IndexHouse, id: str) -> None:
    path = f"/index/docs/doc/{id}"
    check_problem(await words.http.put(path, json={"text": "Goats."}), 422, "invalid-parameter")
    check_problem(await words.http.get(path), 404, "not-found")
    check_problem(await words.http.delete(path), 422, "invalid-parameter")


@pytest.mark.parametrize(
    "id", ["..", ".", "a/../b", "../a", "a/.", "/a", "a/", "a//b", "/", "%2e%2E", "a/.%2e/b", "%2E"]
)
async def test_an_id_that_would_make_another_path_is_none(words: IndexHouse, id: str) -> None:
    path = f"/index/docs/doc/{quote(id, safe='').replace('.', '%2E')}"
    for answer in (await words.http.put(path, json={"text": "Goats."}), await words.http.delete(path)):
        problem = check_problem(answer, 422, "invalid-parameter")
        assert problem["errors"][0]["parameter"] == "doc"
        assert "name the document otherwise" in problem["detail"]
    check_problem(await words.http.get(path), 404, "not-found")
    document = {"id": id, "text": "Goats."}
    for where, body in (("doc", {"documents": [document]}), ("doc/__delete", {"ids": [id]})):
        problem = check_problem(await words.http.post(f"/index/docs/{where}", json=body), 422, "invalid")
        assert problem["errors"][0]["pointer"] == ("/documents/0/id" if where == "doc" else "/ids/0")
        assert "name the document otherwise" in problem["detail"]
    good = {"id": "good", "text": "Goats."}
    answer = await words.http.post("/index/docs/doc", content=lines(document, good), headers=LINES)
    assert (answer.json()["kept"], answer.json()["errors"][0]["pointer"]) == (1, "/id")
    assert (await words.http.get("/index/docs")).json()["counts"]["documents"] == 1


@pytest.mark.parametrize(
    ("wish", "fields", "pointer", "detail"),
    [
        ({}, {"text": " \n"}, "/text", "no text"),
        ({}, {}, "/text", "no text"),
        ({}, {"text": "a", "vector": [1, 2]}, "/vector", "has no vectors"),
        ({"model": MODEL}, {"text": "a", "vector": [1, 2]}, "/vector", "makes vectors of texts itself"),
        ({"model": MODEL}, {"text": ""}, "/text", "no text"),
        ({"dimensions": 2}, {"text": "a"}, "/vector", "send a vector of 2 numbers"),
        ({"dimensions": 2}, {"vector": [1, 2, 3]}, "/vector", "Has 3 numbers"),
        ({"dimensions": 2}, {"vector": [0, 0.0]}, "/vector", "only zeros"),
        ({"dimensions": 2}, {"vector": [1e-60, 0]}, "/vector", "only zeros"),
        ({"dimensions": 2, "metric": "ip"}, {"vector": [1e16, 0]}, "/vector", "beyond 1e+15"),
        ({"dimensions": 2}, {"vector": [1e300, 0]}, "/vector", "no float32 holds"),
        ({"dimensions": 2}, {"vector": ["1", "2"]}, "/vector", "neither a list"),
        ({"dimensions": 2}, {"vector": [True, 1]}, "/vector", "neither a list"),
        ({"dimensions": 2}, {"vector": "no base64!"}, "/vector", "neither a list"),
        ({"dimensions": 2}, {"vector": "AAAA"}, "/vector", "neither a list"),
        (
            {"dimensions": 2},
            {"vector": base64.b64encode(packed(float("nan"), 1)).decode()},
            "/vector",
            "finite",
        ),
        ({"dimensions": 2}, {"vector": [1] * 5_000}, "/vector", "more than 4096"),
        ({}, {"text": "a", "metadata": {"x": {"y": [1, {"z": 1}]}}}, "/metadata/x/y/1", "no value"),
        ({}, {"text": "a", "metadata": {"n": 2**60}}, "/metadata/n", "no number"),
        ({}, {"text": "a", "metadata": {"n": "x" * 17_000}}, "/metadata", "16384"),
        ({}, {"text": "ä" * 600_000}, "/text", "1048576 bytes"),
        ({}, {"text": "a", "colour": 1}, "/colour", "Unknown"),
    ],
)
async def test_a_document_that_the_index_can_not_have(
    house: IndexHouse, wish: dict[str, Any], fields: dict[str, Any], pointer: str, detail: str
) -> None:
    await house.create(**wish)
    problem = check_problem(await house.http.put("/index/docs/doc/a", json=fields), 422, "invalid")
    assert problem["errors"][0]["pointer"] == pointer
    assert detail in problem["detail"]


async def test_a_vector_comes_as_numbers_or_as_base64(house: IndexHouse) -> None:
    await house.create(dimensions=2, metric="l2")
    await house.put("a", vector=[0, 0.5])
    await house.put("b", vector=base64.b64encode(packed(0, 0.5)).decode(), text="Goats.")
    for id in "ab":
        assert (await house.http.get(f"/index/docs/doc/{id}")).json()["vector"] == [0, 0.5]


async def test_waiting_answers_when_it_can_be_found(words: IndexHouse) -> None:
    putting = asyncio.create_task(words.http.put("/index/docs/doc/a?wait=20", json={"text": "Goats."}))
    await _until_there(words, "a")
    await words.take_in()
    answer = await putting
    assert (answer.status_code, answer.json()["status"]) == (201, "ready")
    putting = asyncio.create_task(words.http.put("/index/docs/doc/a?wait=true", json={"text": "Sheep."}))
    await _until_there(words, "a", rev=2)
    await words.take_in(failing=["a"])
    answer = await putting
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert answer.json()["error"]["message"] == "It is no good."


async def _until_there(house: IndexHouse, doc: str, rev: int = 1) -> None:
    await house.store.until_there((await house.index()).id, doc, rev)


async def test_waiting_ends_with_its_time(words: IndexHouse) -> None:
    answer = await words.http.put("/index/docs/doc/a?wait=0.05", json={"text": "Goats."})
    assert (answer.status_code, answer.json()["status"]) == (202, "pending")


async def test_nobody_waits_for_an_index_that_is_paused(words: IndexHouse) -> None:
    await words.http.post("/index/docs/__pause")
    async with asyncio.timeout(5):
        answer = await words.http.put("/index/docs/doc/a?wait=60", json={"text": "Goats."})
        many = await words.http.post(
            "/index/docs/doc?wait=60", content=lines({"id": "b", "text": "b"}), headers=LINES
        )
    assert (answer.status_code, many.status_code, many.json()["complete"]) == (202, 202, False)


async def test_what_is_removed_while_it_is_waited_for_is_not_found(words: IndexHouse) -> None:
    putting = asyncio.create_task(words.http.put("/index/docs/doc/a?wait=20", json={"text": "Goats."}))
    await _until_there(words, "a")
    assert (await words.http.delete("/index/docs/doc/a")).status_code == 204
    check_problem(await putting, 404, "not-found")


@pytest.mark.parametrize("wait", ["61", "-1", "soon", "nan"])
async def test_a_wait_that_is_none(words: IndexHouse, wait: str) -> None:
    answer = await words.http.put(f"/index/docs/doc/a?wait={wait}", json={"text": "Goats."})
    check_problem(answer, 422, "invalid-parameter")


async def test_many_come_as_json_all_or_none(words: IndexHouse) -> None:
    bad = {"documents": [{"id": "a", "text": "A"}, {"id": "b", "text": ""}]}
    problem = check_problem(await words.http.post("/index/docs/doc", json=bad), 422, "invalid")
    assert problem["errors"][0]["pointer"] == "/documents/1/text"
    good = {"documents": [{"id": str(n), "text": "Goats."} for n in range(2_500)]}
    answer = await words.http.post("/index/docs/doc", json=good)
    assert answer.status_code == 202
    told = answer.json()
    assert (told["received"], told["kept"], told["refused"], told["complete"]) == (2_500, 2_500, 0, False)
    assert told["counts"]["pending"] == 2_500


async def test_of_many_lines_each_counts_for_itself(words: IndexHouse) -> None:
    body = b"\n".join(
        [
            b'{"id": "a", "text": "Goats."}\r',
            b"",
            b"{nonsense",
            b'{"id": "c", "text": ""}',
            b'{"text": "no id"}',
            b'{"id": "d", "text": "Sheep.", "colour": "red"}',
            b'{"id": "e", "text": "\xff"}',
            b'{"id": "f", "text": "' + b"x" * (9 << 20) + b'"}',
            b'{"id": "z", "text": "Kids."}',
        ]
    )
    answer = await words.http.post("/index/docs/doc", content=body, headers=LINES)
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert (told["received"], told["kept"], told["refused"]) == (8, 2, 6)
    assert [(one["line"], one["id"], one["pointer"]) for one in told["errors"]] == [
        (3, None, None),
        (4, "c", "/text"),
        (5, None, "/id"),
        (6, "d", "/colour"),
        (7, None, None),
        (8, None, None),
    ]
    listed = (await words.http.get("/index/docs/doc")).json()
    assert [one["id"] for one in listed["data"]] == ["a", "z"]


async def test_lines_none_of_which_can_be_kept_are_invalid(words: IndexHouse) -> None:
    answer = await words.http.post("/index/docs/doc", content=b"{}\n[]", headers=LINES)
    problem = check_problem(answer, 422, "invalid")
    assert [one["detail"] for one in problem["errors"]] == [
        "Line 1: Is missing.",
        "Line 2: Has to be an object.",
    ]
    nothing = await words.http.post("/index/docs/doc", content=b"\n\n", headers=LINES)
    assert (nothing.status_code, nothing.json()["received"]) == (202, 0)


async def test_lines_are_kept_as_they_come_in_parts(
    words: IndexHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, put = [], words.store.put

    async def counted(index: str, documents: list[DocumentIn]) -> Any:
        sizes.append(len(documents))
        return await put(index, documents)

    monkeypatch.setattr(words.store, "put", counted)

    async def sent() -> AsyncIterator[bytes]:
        for n in range(2_300):
            yield lines({"id": str(n), "text": "Goats."})[:20]
            if n == 1_500:
                assert sizes == [1_000]
            yield lines({"id": str(n), "text": "Goats."})[20:] + b"\n"

    answer = await words.http.post("/index/docs/doc", content=sent(), headers=LINES)
    assert (answer.json()["kept"], sizes) == (2_300, [1_000, 1_000, 300])
    sizes.clear()
    large = lines(*({"id": str(n), "text": "x" * 1_000_000} for n in range(9)))
    assert (await words.http.post("/index/docs/doc", content=large, headers=LINES)).json()["kept"] == 9
    assert sizes == [4, 4, 1]


async def test_a_store_that_goes_away_in_between_says_what_is_kept(
    words: IndexHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, times = words.store.put, []

    async def once(index: str, documents: list[DocumentIn]) -> Any:
        times.append(1)
        if len(times) > 1:
            raise Unavailable("The store is away.")
        return await put(index, documents)

    monkeypatch.setattr(words.store, "put", once)
    body = lines(*({"id": str(n), "text": "Goats."} for n in range(1_500)))
    answer = await words.http.post("/index/docs/doc", content=body, headers=LINES)
    assert "before line 1001 is kept" in check_problem(answer, 503, "unavailable")["detail"]


async def test_waiting_for_many(words: IndexHouse) -> None:
    body = {"documents": [{"id": str(n), "text": "Goats."} for n in range(5)]}
    putting = asyncio.create_task(words.http.post("/index/docs/doc?wait=true", json=body))
    await _until_there(words, "4", rev=5)
    # What comes later is not waited for.
    await words.take_in(failing=["3"])
    await words.put("late", text="Sheep.")
    answer = await putting
    assert (answer.status_code, answer.json()["complete"]) == (200, True)
    assert answer.json()["counts"]["failed"] == 1


async def test_a_key_makes_many_count_once_as_lines_too(words: IndexHouse) -> None:
    body = lines({"id": "a", "text": "Goats."})
    headers = {**LINES, "idempotency-key": "k"}
    first = await words.http.post("/index/docs/doc", content=body, headers=headers)
    again = await words.http.post("/index/docs/doc", content=body, headers=headers)
    assert (first.json(), again.headers["idempotency-replayed"]) == (again.json(), "true")
    assert (await words.http.get("/index/docs/doc/a")).json()["rev"] == 1
    other = await words.http.post("/index/docs/doc", content=body + b" ", headers=headers)
    check_problem(other, 422, "idempotency-key-reused")


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "", "application/json; charset=latin-1"])
async def test_many_have_to_say_how_they_come(words: IndexHouse, kind: str) -> None:
    answer = await words.http.post("/index/docs/doc", content=b"{}", headers={"content-type": kind})
    problem = check_problem(answer, 415, "unsupported-media-type")
    assert "application/x-ndjson" in problem["detail"] or "latin-1" in problem["detail"]


async def test_how_much_may_come() -> None:
    async with index_house(max_bulk_bytes=20 << 20) as house:
        await house.create()
        one = {"id": "a", "text": "x" * 1_000_000}
        json_body = json.dumps({"documents": [one] * 17}).encode()
        answer = await house.http.post(
            "/index/docs/doc", content=json_body, headers={"content-type": "application/json"}
        )
        assert "in lines" in check_problem(answer, 413, "body-too-large")["detail"]
        answer = await house.http.post("/index/docs/doc", content=lines(*[one] * 17), headers=LINES)
        assert answer.json()["kept"] == 17
        answer = await house.http.post("/index/docs/doc", content=lines(*[one] * 22), headers=LINES)
        check_problem(answer, 413, "body-too-large")
        answer = await house.http.put("/index/docs/doc/a", json={"text": "x" * (9 << 20)})
        check_problem(answer, 413, "body-too-large")


async def test_documents_are_listed_by_id_without_texts(words: IndexHouse) -> None:
    for id in ("c", "a", "b"):
        await words.put(id, text="Goats.")
    await words.take_in(failing=["b"])
    page = (await words.http.get("/index/docs/doc?limit=2")).json()
    assert [(one["id"], one["status"]) for one in page["data"]] == [("a", "ready"), ("b", "failed")]
    assert (page["has_more"], "text" in page["data"][0]) == (True, False)
    page = (await words.http.get("/index/docs/doc?limit=2&after=b")).json()
    assert [one["id"] for one in page["data"]] == ["c"]
    page = (await words.http.get("/index/docs/doc?failed=false&order=desc")).json()
    assert [one["id"] for one in page["data"]] == ["c", "a"]
    check_problem(await words.http.get("/index/docs/doc?after=%00"), 400, "malformed-cursor")


async def test_a_page_has_up_to_a_thousand(words: IndexHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"documents": [{"id": f"{n:04}", "text": "Goats."} for n in range(1_500)]}
    await words.http.post("/index/docs/doc", json=body)
    reads, documents = [], words.store.documents

    async def counted(index: str, page: Page, *, failed: bool | None = None) -> list[Document]:
        reads.append(page.limit)
        return await documents(index, page, failed=failed)

    monkeypatch.setattr(words.store, "documents", counted)
    page = (await words.http.get("/index/docs/doc?limit=1000")).json()
    assert [one["id"] for one in page["data"]] == [f"{n:04}" for n in range(1_000)]
    assert (page["has_more"], reads) == (True, [100, 901])
    for query, ids in (
        ("after=0999", range(1_000, 1_500)),
        ("before=1200", range(200, 1_200)),
        ("order=desc", range(1_499, 499, -1)),
        ("order=desc&before=0100", range(1_100, 100, -1)),
    ):
        page = (await words.http.get(f"/index/docs/doc?limit=1000&{query}")).json()
        assert [one["id"] for one in page["data"]] == [f"{n:04}" for n in ids]
        assert page["has_more"] == (query != "after=0999")
    check_problem(await words.http.get("/index/docs/doc?limit=1001"), 422, "invalid-parameter")


async def test_large_documents_are_read_few_at_once(
    words: IndexHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await words.http.post(
        "/index/docs/doc",
        content=lines(*({"id": f"{n:04}", "text": "x" * 200_000} for n in range(150))),
        headers=LINES,
    )
    reads, documents = [], words.store.documents

    async def counted(index: str, page: Page, *, failed: bool | None = None) -> list[Document]:
        reads.append(page.limit)
        return await documents(index, page, failed=failed)

    monkeypatch.setattr(words.store, "documents", counted)
    assert len((await words.http.get("/index/docs/doc?limit=1000")).json()["data"]) == 150
    assert reads == [100, 100]


async def test_many_are_removed_by_their_ids(words: IndexHouse) -> None:
    for id in ("a", "b"):
        await words.put(id, text="Goats.")
    body = {"ids": ["a", "x", "a"]}
    answer = await words.http.post("/index/docs/doc/__delete", json=body)
    assert (answer.status_code, answer.json()) == (200, {"removed": 1, "missing": ["x"]})
    assert [one["id"] for one in (await words.http.get("/index/docs/doc")).json()["data"]] == ["b"]


async def test_a_write_is_kept_though_nobody_can_be_told(
    words: IndexHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_nudges, "_AGAIN_S", (0.0,))
    words.temporal.fault = RPCError("away", RPCStatusCode.UNAVAILABLE, b"")
    made = await words.put("a", text="Goats.")
    assert made["status"] == "pending"
    assert words.nudged() == []
    words.temporal.fault = None
    await words.indexes.nudges.said(made["index"])
    assert words.nudged() == [f"ingest-{made['index']}"]


async def test_many_writes_are_few_words(words: IndexHouse) -> None:
    await asyncio.gather(*(words.put(str(n), text="Goats.") for n in range(50)))
    index = await words.index()
    await words.indexes.nudges.said(index.id)
    assert 1 <= len(words.nudged()) < 10


async def test_a_document_is_not_found_by_a_client_of_another_index(words: IndexHouse) -> None:
    await words.create("other")
    await words.put("a", text="Goats.")
    check_problem(await words.http.get("/index/other/doc/a"), 404, "not-found")
    answer: httpx.Response = await words.http.request("PATCH", "/index/docs/doc/a", json={})
    assert answer.headers["allow"] == "DELETE, GET, PUT"
