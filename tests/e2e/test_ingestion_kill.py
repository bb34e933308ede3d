"""Documents are taken in while processes are killed: nothing is lost, nothing is there twice."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pymongo import AsyncMongoClient

from activities.backends.mongo_indexes import MongoIndexStore
from goatherd.contracts.retrieval import Entry
from goatherd.embedded._ports import any_free
from tests.e2e.stack import Up, running_up, until_ready
from tests.e2e.working import send
from tests.embedded.waiting import gone
from tests.temporal import eventually

INFERENCE, WORKERS = ("goatherd", "inference"), ("goatherd", "actors")
TEMPORAL, STORE = ("start-dev",), ("secantusd",)
ALL = (INFERENCE, WORKERS, TEMPORAL, STORE)
FEATURES = {"provider": "scripted", "task": "feature-extraction"}
MODELS: dict[str, Any] = {
    "scripted": {"provider": "scripted"},
    "slow": {**FEATURES, "options": {"item_ms": 20}},
    "slow-8": {**FEATURES, "options": {"item_ms": 20, "dimensions": 8}},
    "quick": FEATURES,
}
PATIENCE_S = 120.0
DOCUMENTS = 400

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    data = tmp_path_factory.mktemp("ingestion") / "data"
    async with running_up(data, any_free(), env={"GOATHERD_MODELS": json.dumps(MODELS)}) as running:
        await running.ready()
        yield running


@pytest.fixture
async def http(up: Up) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=up.url, timeout=PATIENCE_S) as client:
        await until_ready(client)
        yield client


async def begun(http: httpx.AsyncClient, name: str, model: str) -> None:
    answer = await send(http, "POST", "/index", json={"name": name, "model": model})
    assert answer.status_code == 201, answer.text


async def put_all(http: httpx.AsyncClient, name: str, word: str = "text") -> None:
    documents = [{"id": f"d{n}", "text": f"{word} number{n} of a goat"} for n in range(DOCUMENTS)]
    answer = await send(http, "POST", f"/index/{name}/doc", json={"documents": documents})
    assert answer.status_code in (200, 201, 202), answer.text


async def read(http: httpx.AsyncClient, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await send(http, "GET", f"/index/{name}")).json()
    return found


async def until_done(http: httpx.AsyncClient, name: str, version: int = 1, left: int = 0) -> dict[str, Any]:
    async def check() -> bool:
        index = await read(http, name)
        return bool(index["version"] == version and index["counts"]["pending"] <= left)

    await eventually(check, within_s=PATIENCE_S)
    return await read(http, name)


async def _pending_below(http: httpx.AsyncClient, name: str, count: int) -> bool:
    return bool((await read(http, name))["counts"]["pending"] < count)


async def kill(up: Up, words: tuple[str, ...]) -> None:
    await eventually(lambda: _there(up, words), within_s=PATIENCE_S)
    killed = up.part(*words)
    killed.kill()
    await gone(killed.pid)


async def _there(up: Up, words: tuple[str, ...]) -> bool:
    return up.child(*words) is not None


async def entries(up: Up, index: dict[str, Any]) -> dict[str, Entry]:
    """All that the serving version has, as it is in the store."""
    found: list[Entry] = []
    async with AsyncMongoClient[dict[str, Any]](up.where().mongo_uri) as client:
        store = MongoIndexStore(client["goatherd"])
        async for batch in store.entries(index["id"], index["version"]):
            found += batch
        documents = await store.read(index["id"], [entry.doc for entry in found])
    assert [entry.seq for entry in found] == sorted({entry.seq for entry in found})
    revs = {document.id: document.rev for document in documents}
    by_doc = {entry.doc: entry for entry in found}
    assert len(by_doc) == len(found)
    assert {entry.doc: entry.rev for entry in found} == revs
    return by_doc


async def test_documents_are_taken_in_whatever_is_killed(up: Up, http: httpx.AsyncClient) -> None:
    await begun(http, "goats", "slow")
    await put_all(http, "goats")
    for words in ALL:
        await until_done(http, "goats", left=DOCUMENTS - 10)
        log.info("kill %s: %s", words[-1], (await read(http, "goats"))["counts"])
        await kill(up, words)
        await put_all(http, "goats", f"after {words[-1]}")
    index = await until_done(http, "goats")
    counts = index["counts"]
    assert (counts["documents"], counts["failed"], counts["chunks"]) == (DOCUMENTS, 0, DOCUMENTS)
    found = await entries(up, index)
    assert len(found) == DOCUMENTS
    assert all(entry.texts[0].startswith(f"after {STORE[0]}") for entry in found.values())


async def test_a_version_that_is_built_while_its_workers_are_killed_has_everything(
    up: Up, http: httpx.AsyncClient
) -> None:
    await begun(http, "kids", "quick")
    await put_all(http, "kids")
    await until_done(http, "kids")
    rebuilt = await send(http, "POST", "/index/kids/__rebuild", json={"model": "slow-8", "dimensions": 8})
    assert rebuilt.status_code in (200, 202), rebuilt.text
    for words in (INFERENCE, WORKERS):
        begun_with = (await read(http, "kids"))["counts"]["pending"]
        await eventually(lambda at=begun_with: _pending_below(http, "kids", at), within_s=PATIENCE_S)
        await kill(up, words)
        answer = await send(http, "PUT", "/index/kids/doc/d7", json={"text": f"new since {words[-1]}"})
        assert answer.status_code == 202, answer.text
    index = await until_done(http, "kids", version=2)
    assert index["counts"]["failed"] == 0
    found = await entries(up, index)
    assert len(found) == DOCUMENTS
    assert found["d7"].texts == ["new since actors"]
    assert len(found["d7"].vectors) == 32


async def test_a_document_that_is_waited_for_can_be_found_soon(up: Up, http: httpx.AsyncClient) -> None:
    await begun(http, "quick", "quick")
    took: list[int] = []
    for n in range(20):
        began = time.monotonic()
        answer = await send(
            http, "PUT", f"/index/quick/doc/d{n}", params={"wait": "10"}, json={"text": f"text {n}"}
        )
        assert answer.status_code in (200, 201), answer.text
        took.append(round(1000 * (time.monotonic() - began)))
    log.info("PUT ?wait=: %s ms", took)
    index = await read(http, "quick")
    assert (index["counts"]["documents"], index["counts"]["pending"]) == (20, 0)
