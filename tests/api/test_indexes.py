"""Indexes over HTTP: made, read, paused, built anew, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from goatherd.errors import Unavailable
from tests.api.conftest import check_problem
from tests.api.index_house import MODEL, IndexHouse, index_house


@pytest.fixture
async def house() -> AsyncIterator[IndexHouse]:
    async with index_house() as house:
        yield house


async def test_an_index_with_a_model_has_the_dimensions_that_the_model_makes(house: IndexHouse) -> None:
    answer = await house.http.post("/index", json={"name": "docs", "model": MODEL, "metadata": {"a": 1}})
    assert answer.status_code == 201
    assert answer.headers["location"] == "/index/docs"
    index = answer.json()
    assert index["id"].startswith("idx_")
    assert (index["spec"]["dimensions"], index["spec"]["model"]) == (4, MODEL)
    assert (index["state"], index["version"], index["building"], index["seq"]) == ("ready", 1, None, 0)
    assert index["counts"] == {"documents": 0, "pending": 0, "failed": 0, "chunks": 0}
    assert index["metadata"] == {"a": 1}
    assert index["versions"] == [
        {"number": 1, "state": "serving", "spec": index["spec"], "created_at": index["created_at"]}
    ]
    assert len(house.inference.calls) == 1
    for called in ("docs", index["id"]):
        assert (await house.http.get(f"/index/{called}")).json() == index


async def test_the_same_again_is_no_error_and_asks_no_model(house: IndexHouse) -> None:
    made = await house.create(model=MODEL)
    again = await house.http.post("/index", json={"name": "docs", "model": MODEL})
    assert (again.status_code, again.json()["id"]) == (200, made["id"])
    assert len(house.inference.calls) == 1


async def test_another_wish_under_the_name_says_what_differs(house: IndexHouse) -> None:
    await house.create(dimensions=3, faiss={"kind": "hnsw"}, metadata={"a": 1})
    wish = {"name": "docs", "dimensions": 4, "metric": "l2", "metadata": {}}
    problem = check_problem(await house.http.post("/index", json=wish), 409, "index-exists")
    for part in ("`dimensions` is 3", "`metric` is 'cosine'", '"kind":"hnsw"', "`metadata` differs"):
        assert part in problem["detail"]
    assert "backend" not in problem["detail"]
    # Without a model, no dimensions are none.
    check_problem(await house.http.post("/index", json={"name": "docs"}), 409, "index-exists")


async def test_two_who_make_it_at_once_have_one_index(house: IndexHouse) -> None:
    body = {"name": "docs", "model": MODEL}
    answers = await asyncio.gather(*(house.http.post("/index", json=body) for _ in range(4)))
    assert sorted(one.status_code for one in answers) == [200, 200, 200, 201]
    assert len({one.json()["id"] for one in answers}) == 1


async def test_a_post_that_is_sent_again_with_its_key_makes_one(house: IndexHouse) -> None:
    headers = {"idempotency-key": "k1"}
    body = {"name": "docs", "dimensions": 3}
    first = await house.http.post("/index", json=body, headers=headers)
    house.keys.answers.clear()
    house.keys.expired = True
    again = await house.http.post("/index", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()


@pytest.mark.parametrize(
    ("wish", "code", "pointer", "detail"),
    [
        ({"model": "nobody"}, "model-not-found", "/model", "nobody"),
        ({"model": "chatty"}, "wrong-task", "/model", "not for feature-extraction"),
        ({"model": MODEL, "dimensions": 5}, "invalid", "/dimensions", "have 4 dimensions"),
        ({"dimensions": 3, "backend": "elasticsearch"}, "invalid", "/backend", "GOATHERD_ELASTICSEARCH"),
        ({"lexical": "elasticsearch"}, "invalid", "/lexical", "GOATHERD_ELASTICSEARCH"),
        ({"lexical": "off"}, "invalid", "/lexical", "nothing to find by"),
        ({"name": "Docs"}, "invalid", "/name", "a-z 0-9"),
        ({"name": "idx_01k9w2x6hj3v8m5r7t0q4n1b2c"}, "invalid", "/name", "another name"),
        ({"colour": "red"}, "invalid", "/colour", "Unknown"),
        ({"faiss": {"kinds": "flat"}}, "invalid", "/faiss/kinds", "Unknown"),
        ({"chunking": {"size": 100, "overlap": 90}}, "invalid", "/chunking", "at most half"),
        ({"dimensions": 5000}, "invalid", "/dimensions", "4096"),
        ({"metadata": {"a": "x" * 17_000}}, "invalid", "/metadata", "16384"),
        ({"metadata": {"a": "\0"}}, "invalid", "/metadata", "NUL"),
    ],
)
async def test_a_wish_that_can_not_be_had(
    house: IndexHouse, wish: dict[str, Any], code: str, pointer: str, detail: str
) -> None:
    answer = await house.http.post("/index", json={"name": "docs", **wish})
    problem = check_problem(answer, 422, code)
    assert problem["errors"][0]["pointer"] == pointer
    assert detail in problem["detail"]


async def test_a_model_that_can_not_be_asked_now_makes_no_index(house: IndexHouse) -> None:
    house.inference.fault = Unavailable("No worker serves models.")
    check_problem(await house.http.post("/index", json={"name": "docs", "model": MODEL}), 503, "unavailable")
    check_problem(await house.http.get("/index/docs"), 404, "not-found")


async def test_indexes_are_listed_by_name_and_walked(house: IndexHouse) -> None:
    for name in ("c", "a", "b"):
        await house.create(name)
    page = (await house.http.get("/index?limit=2")).json()
    assert [one["name"] for one in page["data"]] == ["a", "b"]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, "a", "b")
    page = (await house.http.get("/index?limit=2&after=b")).json()
    assert ([one["name"] for one in page["data"]], page["has_more"]) == (["c"], False)
    page = (await house.http.get("/index?order=desc&limit=1")).json()
    assert [one["name"] for one in page["data"]] == ["c"]
    check_problem(await house.http.get("/index?after=No"), 400, "malformed-cursor")


async def test_a_list_tells_how_many_documents_are_where(house: IndexHouse) -> None:
    await house.create()
    await house.put("a", text="Goats.")
    counts = (await house.http.get("/index")).json()["data"][0]["counts"]
    assert counts == {"documents": 1, "pending": 1, "failed": 0, "chunks": 0}


async def test_elasticsearch_can_be_had_where_there_is_one() -> None:
    async with index_house(elasticsearch="http://127.0.0.1:9200") as house:
        made = await house.create(dimensions=3, backend="elasticsearch")
        assert made["spec"]["backend"] == "elasticsearch"
        await house.create("words", lexical="elasticsearch")
        wish = {"name": "no", "dimensions": 3, "backend": "elasticsearch", "lexical": "tantivy"}
        problem = check_problem(await house.http.post("/index", json=wish), 422, "invalid")
        assert problem["errors"][0]["pointer"] == "/lexical"


async def test_others_do_not_see_it(house: IndexHouse) -> None:
    made = await house.create()
    kept = house.store._indexes[made["id"]]
    kept.change(owner="somebody")
    for called in ("docs", made["id"]):
        check_problem(await house.http.get(f"/index/{called}"), 404, "not-found")
    assert (await house.http.get("/index")).json()["data"] == []


@pytest.mark.parametrize("called", ["nobody", "No!", "idx_01k9w2x6hj3v8m5r7t0q4n1b2c", "%00"])
async def test_what_is_not_there_is_not_found(house: IndexHouse, called: str) -> None:
    check_problem(await house.http.get(f"/index/{called}"), 404, "not-found")
    check_problem(await house.http.delete(f"/index/{called}"), 404, "not-found")
    for action in ("__pause", "__resume", "__cancel", "__retry", "__rebuild"):
        check_problem(await house.http.post(f"/index/{called}/{action}"), 404, "not-found")


async def test_its_metadata_can_be_changed_and_nothing_else(house: IndexHouse) -> None:
    await house.create(metadata={"a": 1})
    changed = await house.http.patch("/index/docs", json={"metadata": {"b": [2]}})
    assert (changed.status_code, changed.json()["metadata"]) == (200, {"b": [2]})
    check_problem(await house.http.patch("/index/docs", json={"metric": "l2"}), 422, "invalid")


async def test_who_has_it_already_is_told_so(house: IndexHouse) -> None:
    await house.create()
    tag = (await house.http.get("/index/docs")).headers["etag"]
    again = await house.http.get("/index/docs", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    await house.put("a", text="Goats.")
    assert (await house.http.get("/index/docs", headers={"if-none-match": tag})).status_code == 200


async def test_a_deleted_index_is_gone_and_its_name_is_free(house: IndexHouse) -> None:
    made = await house.create()
    await house.put("a", text="Goats.")
    assert (await house.http.delete("/index/docs")).status_code == 204
    check_problem(await house.http.get(f"/index/{made['id']}"), 404, "not-found")
    check_problem(await house.http.delete("/index/docs"), 404, "not-found")
    # Its ingestion removes what it had.
    await house.indexes.nudges.said(made["id"])
    assert house.nudged()[-1] == f"ingest-{made['id']}"
    assert (await house.create())["id"] != made["id"]


async def test_pause_and_resume(house: IndexHouse) -> None:
    made = await house.create()
    assert (await house.http.post("/index/docs/__pause")).json()["state"] == "paused"
    assert house.nudged() == []
    assert (await house.http.post("/index/docs/__resume")).json()["state"] == "ready"
    await house.indexes.nudges.said(made["id"])
    assert house.nudged() == [f"ingest-{made['id']}"]


async def test_cancelled_documents_fail_and_can_be_retried(house: IndexHouse) -> None:
    await house.create()
    await house.put("a", text="Goats.")
    await house.take_in()
    await house.put("b", text="Sheep.")
    cancelled = (await house.http.post("/index/docs/__cancel")).json()
    assert (cancelled["documents"], cancelled["index"]["counts"]["failed"]) == (1, 1)
    assert cancelled["given_up"] is None
    failed = (await house.http.get("/index/docs/doc?failed=true")).json()["data"]
    assert [(one["id"], one["status"], one["error"]["code"]) for one in failed] == [
        ("b", "failed", "cancelled")
    ]
    again = (await house.http.post("/index/docs/__retry")).json()
    assert (again["documents"], again["index"]["counts"]["pending"]) == (1, 1)


async def test_a_rebuild_is_made_beside_the_version_that_serves(house: IndexHouse) -> None:
    await house.create(model=MODEL, metric="ip")
    await house.put("a", text="Goats.")
    await house.take_in()
    answer = await house.http.post("/index/docs/__rebuild", json={"backend": "scann"})
    assert answer.status_code == 202
    index = answer.json()
    assert (index["state"], index["version"], index["building"]) == ("building", 1, 2)
    assert [one["state"] for one in index["versions"]] == ["serving", "building"]
    assert index["spec"]["backend"] == "faiss"
    built = index["versions"][1]["spec"]
    assert (built["backend"], built["metric"], built["model"]) == ("scann", "ip", MODEL)
    assert (await house.http.get("/index/docs/doc/a")).json()["status"] == "ready"
    await house.take_in()
    await house.store.swap(index["id"], 2)
    index = (await house.http.get("/index/docs")).json()
    assert (index["state"], index["version"], index["building"]) == ("ready", 2, None)
    assert index["spec"]["backend"] == "scann"


async def test_cancelling_a_rebuild_harms_no_document_that_serves(house: IndexHouse) -> None:
    await house.create(model=MODEL)
    await house.put("a", text="Goats.")
    await house.take_in()
    await house.http.post("/index/docs/__rebuild")
    cancelled = (await house.http.post("/index/docs/__cancel")).json()
    assert (cancelled["documents"], cancelled["index"]["building"], cancelled["given_up"]) == (0, None, 2)
    assert (await house.http.get("/index/docs/doc/a")).json()["status"] == "ready"
    # A number is never given twice.
    assert (await house.http.post("/index/docs/__rebuild")).json()["building"] == 3


@pytest.mark.parametrize(
    ("made", "changes", "pointer"),
    [
        ({"model": MODEL}, {"model": None, "dimensions": 4}, "/model"),
        ({"dimensions": 3}, {"dimensions": 4}, "/dimensions"),
        ({}, {"dimensions": 4}, "/dimensions"),
        ({"dimensions": 3}, {"backend": "elasticsearch"}, "/backend"),
        ({"dimensions": 3}, {"model": "chatty"}, "/model"),
    ],
)
async def test_a_rebuild_that_the_documents_do_not_allow(
    house: IndexHouse, made: dict[str, Any], changes: dict[str, Any], pointer: str
) -> None:
    await house.create(**made)
    answer = await house.http.post("/index/docs/__rebuild", json=changes)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_a_rebuild_may_leave_the_model_and_find_words(house: IndexHouse) -> None:
    await house.create(model=MODEL)
    built = await house.http.post("/index/docs/__rebuild", json={"model": None, "dimensions": 0})
    assert built.status_code == 202, built.text
    assert built.json()["versions"][1]["spec"]["dimensions"] == 0
