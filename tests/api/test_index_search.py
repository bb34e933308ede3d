"""Searches over HTTP, and as a workflow's step."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from goatherd.contracts.retrieval import Entry, SearchQuery, SearchStep
from goatherd.errors import DeadlineExceeded, Invalid, NotFound, TooManyRequests, Unavailable
from tests.api.conftest import check_problem
from tests.api.index_house import MODEL, IndexHouse, index_house, packed


@pytest.fixture
async def house() -> AsyncIterator[IndexHouse]:
    async with index_house() as house:
        yield house


@pytest.fixture
async def texts(house: IndexHouse) -> IndexHouse:
    """With an index of texts and their vectors."""
    await house.create(model=MODEL)
    await house.put("a", text="goats climb trees", metadata={"lang": "en", "year": 2020})
    await house.put("b", text="goats eat grass", metadata={"lang": "en", "year": 2024})
    await house.put("c", text="sheep follow", metadata={"lang": "de"})
    await house.take_in()
    return house


async def search(house: IndexHouse, index: str = "docs", **body: Any) -> dict[str, Any]:
    answer = await house.http.post(f"/index/{index}/search", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_text_is_searched_by_meaning_and_by_words(texts: IndexHouse) -> None:
    found = await search(texts, text="climb trees", k=2)
    assert (found["mode"], found["exact"], found["seq"]) == ("hybrid", True, 3)
    assert found["took_ms"] > 0
    hit = found["hits"][0]
    assert {name: hit[name] for name in ("id", "chunk", "text", "start", "end", "metadata")} == {
        "id": "a",
        "chunk": 0,
        "text": "goats climb trees",
        "start": 0,
        "end": 17,
        "metadata": {"lang": "en", "year": 2020},
    }
    assert not {"highlights", "explain"} & hit.keys()
    asked = texts.searching.asked[-1]
    assert (asked.version, asked.caller, asked.query.text) == (1, "local", "climb trees")
    assert asked.query.vector == packed(11, 11 / 2, 11 / 3, 11 / 4)


async def test_what_is_asked_for_comes_along(texts: IndexHouse) -> None:
    found = await search(
        texts, text="goats", explain=True, highlight=True, weights={"lexical": 0.5}, candidates=50
    )
    hit = found["hits"][0]
    assert hit["highlights"] == ["\x02goats\x03"]
    assert hit["explain"]["dense"]["rank"] == 1
    assert found["hits"][-1]["explain"]["lexical"] is None
    query = texts.searching.asked[-1].query
    assert (query.weights, query.candidates) == ({"dense": 1.0, "lexical": 0.5}, 50)


@pytest.mark.parametrize(
    ("wish", "body", "mode"),
    [
        ({"model": MODEL}, {"text": "goats"}, "hybrid"),
        ({"model": MODEL, "lexical": "off"}, {"text": "goats"}, "dense"),
        ({"model": MODEL}, {"vector": [1, 2, 3, 4]}, "dense"),
        ({"model": MODEL}, {"text": "goats", "vector": [1, 2, 3, 4]}, "hybrid"),
        ({"model": MODEL}, {"text": "goats", "mode": "lexical"}, "lexical"),
        ({"model": MODEL}, {"text": "goats", "mode": "dense"}, "dense"),
        ({"dimensions": 2}, {"text": "goats"}, "lexical"),
        ({"dimensions": 2}, {"vector": [1, 2]}, "dense"),
        ({"dimensions": 2}, {"text": "goats", "vector": [1, 2]}, "hybrid"),
        ({}, {"text": "goats"}, "lexical"),
    ],
)
async def test_it_is_searched_by_what_there_is(
    house: IndexHouse, wish: dict[str, Any], body: dict[str, Any], mode: str
) -> None:
    await house.create(**wish)
    calls = len(house.inference.calls)
    assert (await search(house, **body))["mode"] == mode
    query = house.searching.asked[-1].query
    assert query.mode == mode
    assert (query.vector is None) == (mode == "lexical")
    embeds = "text" in body and "vector" not in body and mode != "lexical"
    assert len(house.inference.calls) - calls == embeds


@pytest.mark.parametrize(
    ("wish", "body", "pointer", "detail"),
    [
        ({"model": MODEL}, {}, "/text", "Say what to look for"),
        ({"model": MODEL}, {"text": " "}, "/text", ""),
        ({}, {"vector": [1]}, "/vector", "has no vectors"),
        ({"dimensions": 2, "lexical": "off"}, {"text": "goats"}, "/vector", "give a `vector` of 2"),
        ({"dimensions": 2}, {"text": "goats", "mode": "dense"}, "/mode", "has no model"),
        ({"dimensions": 2}, {"vector": [1, 2], "mode": "hybrid"}, "/mode", "give a `text`"),
        ({"dimensions": 2, "lexical": "off"}, {"text": "a", "mode": "lexical"}, "/mode", "finds no words"),
        ({}, {"text": "a", "mode": "hybrid"}, "/mode", "has no vectors"),
        ({"dimensions": 2}, {"vector": [1]}, "/vector", "Has 1 numbers"),
        ({"dimensions": 2}, {"vector": [0, 0]}, "/vector", "only zeros"),
        (
            {"dimensions": 2},
            {"vector": base64.b64encode(packed(1, float("inf"))).decode()},
            "/vector",
            "finite",
        ),
        ({}, {"text": "a", "filter": {"a": {"near": 1}}}, "/filter/a", "no operator"),
        ({}, {"text": "a", "filter": {"and": [{"a": 1}, {"b": {"gt": None}}]}}, "/filter/and/1/b/gt", ""),
        ({}, {"text": "a", "k": 0}, "/k", "1 or more"),
        ({}, {"text": "a", "k": 1_001}, "/k", "1000 or less"),
        ({}, {"text": "a", "k": 9, "candidates": 8}, "/candidates", "at least `k`"),
        ({}, {"text": "a", "weights": {"dense": 0, "lexical": 0}}, "/weights", "more than 0"),
        ({}, {"text": "a", "timeout_s": 0}, "/timeout_s", "0.1 or more"),
        ({}, {"text": "a", "colour": 0}, "/colour", "Unknown"),
    ],
)
async def test_a_search_that_can_not_be(
    house: IndexHouse, wish: dict[str, Any], body: dict[str, Any], pointer: str, detail: str
) -> None:
    await house.create(**wish)
    answer = await house.http.post("/index/docs/search", json=body)
    problem = check_problem(answer, 422, "invalid")
    assert problem["errors"][0]["pointer"] == pointer
    assert detail in problem["detail"]
    assert house.searching.asked == []


async def test_filters_are_passed_on(texts: IndexHouse) -> None:
    found = await search(texts, text="goats", filter={"year": {"gte": 2021}})
    assert [hit["id"] for hit in found["hits"]] == ["b"]
    assert (await search(texts, text="goats", filter={"lang": "fr"}))["hits"] == []


async def test_an_empty_index_has_no_hits(house: IndexHouse) -> None:
    await house.create(model=MODEL)
    found = await search(house, text="goats", k=1_000)
    assert (found["hits"], found["seq"]) == ([], 0)


async def test_what_changes_between_search_and_reading_is_searched_again(texts: IndexHouse) -> None:
    async def rewrite() -> None:
        await texts.put("a", text="goats swim now")
        await texts.take_in()

    async def remove() -> None:
        await texts.http.delete("/index/docs/doc/b")

    texts.searching.before_reading = [rewrite, remove]
    found = await search(texts, text="goats", mode="lexical")
    assert [(hit["id"], hit["text"]) for hit in found["hits"]] == [("a", "goats swim now")]
    assert found["complete"] is True
    assert len(texts.searching.asked) == 3


async def test_what_changes_all_the_time_is_left_out_and_that_is_said(texts: IndexHouse) -> None:
    async def rewrite() -> None:
        await texts.put("a", text="goats climb trees")
        await texts.take_in()

    texts.searching.before_reading = [rewrite] * 9
    found = await search(texts, text="goats", mode="lexical")
    assert [hit["id"] for hit in found["hits"]] == ["b"]
    assert found["complete"] is False
    order = SearchStep(owner="local", index="docs", query=SearchQuery(text="goats"), mode="lexical")
    step = await texts.indexes.search.step(order)
    assert ([hit.doc for hit in step.hits], step.complete) == (["b"], False)


async def test_a_version_that_is_swapped_meanwhile_is_searched_in_its_place(texts: IndexHouse) -> None:
    index = await texts.index()
    await texts.http.post("/index/docs/__rebuild", json={"metric": "ip"})
    await texts.take_in()

    async def swap() -> None:
        await texts.store.swap(index.id, 2)
        await texts.store.sweep(index.id)

    texts.searching.before_reading = [swap]
    found = await search(texts, text="goats", mode="lexical")
    assert [one.version for one in texts.searching.asked] == [1, 2]
    assert len(found["hits"]) == 2


async def test_reads_of_requests_that_end_together_are_one(
    texts: IndexHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    hits, gate = texts.store.hits, asyncio.Event()

    async def counted(index: str, version: int, docs: Sequence[str]) -> dict[str, Entry]:
        read.append(len(docs))
        await gate.wait()
        return await hits(index, version, docs)

    monkeypatch.setattr(texts.store, "hits", counted)
    searches = [asyncio.create_task(search(texts, text="goats", mode="lexical")) for _ in range(20)]
    async with asyncio.timeout(10):
        for _ in searches:
            await texts.searching.arrived.acquire()
    gate.set()
    assert all(len(found["hits"]) == 2 for found in await asyncio.gather(*searches))
    assert len(read) <= 3


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Unavailable("No worker."), 503),
        (TooManyRequests("Later."), 429),
        (DeadlineExceeded("Late."), 504),
        (Invalid("No.", pointer="/text"), 422),
        (NotFound("Gone."), 404),
    ],
)
async def test_faults_of_workers_are_problems(texts: IndexHouse, fault: Exception, status: int) -> None:
    texts.searching.fault = fault
    answer = await texts.http.post("/index/docs/search", json={"text": "goats"})
    assert answer.status_code == status
    texts.searching.fault, texts.inference.fault = None, fault
    answer = await texts.http.post("/index/docs/search", json={"text": "goats"})
    assert answer.status_code == status


async def test_a_search_ends_with_its_time(texts: IndexHouse) -> None:
    texts.inference.gate = asyncio.Event()
    answer = await texts.http.post("/index/docs/search", json={"text": "goats", "timeout_s": 0.1})
    check_problem(answer, 504, "deadline-exceeded")
    assert texts.inference.cancelled.is_set()


async def test_a_step_of_a_workflow_finds_texts(texts: IndexHouse) -> None:
    index = await texts.index()
    for called in ("docs", index.id):
        query = SearchQuery(text="climb trees", k=1, explain=True)
        order = SearchStep(owner="local", index=called, query=query, mode="hybrid")
        found = await texts.indexes.search.step(SearchStep.model_validate_json(order.model_dump_json()))
        assert [(hit.doc, hit.text) for hit in found.hits] == [("a", "goats climb trees")]
        assert found.hits[0].lexical is not None
    with pytest.raises(NotFound):
        await texts.indexes.search.step(SearchStep(owner="other", index="docs", query=query))
    with pytest.raises(Invalid):
        await texts.indexes.search.step(SearchStep(owner="local", index="docs", query=SearchQuery()))


@pytest.mark.parametrize(("wish", "mode"), [({}, "lexical"), ({"model": MODEL}, "hybrid")])
async def test_a_step_that_says_no_mode_is_searched_by_what_there_is(
    house: IndexHouse, wish: dict[str, Any], mode: str
) -> None:
    await house.create(**wish)
    await house.put("a", text="goats climb trees")
    await house.take_in()
    found = await house.indexes.search.step(
        SearchStep(owner="local", index="docs", query=SearchQuery(text="goats"))
    )
    assert ([hit.doc for hit in found.hits], found.complete) == (["a"], True)
    assert house.searching.asked[-1].query.mode == mode


async def test_a_model_that_is_another_one_now_is_told(texts: IndexHouse) -> None:
    texts.inference.provider = "huggingface"
    answer = await texts.http.post("/index/docs/search", json={"text": "goats"})
    problem = check_problem(answer, 409, "another-model")
    assert "__rebuild" in problem["detail"]
    assert (await search(texts, text="goats", mode="lexical"))["hits"]
