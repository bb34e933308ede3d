"""Indexes behind a whole Goatherd, as somebody uses them who has curl: every backend with the same
documents."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from goatherd.embedded._ports import any_free
from tests.activities.retrieval.elastic_server import elastic_server
from tests.e2e.stack import Up, running_up, until_ready
from tests.temporal import eventually

MODELS: dict[str, Any] = {
    "scripted": {"provider": "scripted"},
    "vectors": {"provider": "scripted", "task": "feature-extraction", "options": {"dimensions": 32}},
}
BACKENDS = ("faiss", "scann", "elasticsearch")
ANIMALS = ("goat", "sheep", "horse", "cow", "duck")
COUNT = 300
PATIENCE_S = 90.0
FILTERS: list[dict[str, Any]] = [
    {"kind": "goat"},
    {"year": {"gte": 2010, "lt": 2012}},
    {"or": [{"kind": "duck"}, {"tags": {"in": ["old", "wild"]}}]},
    {"not": {"tags": {"exists": True}}},
    {"and": [{"not": {"kind": "cow"}}, {"place.country": "no"}]},
]


@pytest.fixture(scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    folder = tmp_path_factory.mktemp("retrieval")
    with elastic_server() as elastic:
        env = {"GOATHERD_MODELS": json.dumps(MODELS), "GOATHERD_ELASTICSEARCH": elastic.url}
        async with running_up(folder / "data", any_free(), env=env) as running:
            await running.ready()
            yield running


@pytest.fixture
async def http(up: Up) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=up.url, timeout=PATIENCE_S) as client:
        await until_ready(client)
        yield client


def document(n: int) -> dict[str, Any]:
    animal = ANIMALS[n % len(ANIMALS)]
    metadata: dict[str, Any] = {
        "kind": animal,
        "year": 2000 + n % 20,
        "place": {"country": "no" if n % 3 else "de"},
    }
    if n % 4 == 0:
        metadata["tags"] = ["old", "tame"] if n % 8 else ["wild"]
    return {
        "id": f"farm/{n}",
        "text": f"A {animal} of farm{n} in the year {2000 + n % 20}.",
        "metadata": metadata,
    }


async def call(http: httpx.AsyncClient, method: str, path: str, body: Any = None) -> Any:
    answer = await http.request(method, path, json=body)
    assert answer.status_code < 300, answer.text
    return answer.json() if answer.content else None


async def filled(http: httpx.AsyncClient, name: str, count: int = COUNT, **wish: Any) -> None:
    await call(http, "POST", "/index", {"name": name, "model": "vectors", **wish})
    lines = "\n".join(json.dumps(document(n)) for n in range(count))
    headers = {"content-type": "application/x-ndjson"}
    answer = await http.post(f"/index/{name}/doc?wait=60", content=lines, headers=headers)
    assert (answer.status_code, answer.json()["complete"]) == (200, True), answer.text


async def found(http: httpx.AsyncClient, name: str, **query: Any) -> list[dict[str, Any]]:
    return list((await call(http, "POST", f"/index/{name}/search", query))["hits"])


def ids(hits: list[dict[str, Any]]) -> set[str]:
    return {hit["id"] for hit in hits}


async def test_every_backend_gives_the_same_filtered_answers(http: httpx.AsyncClient) -> None:
    for backend in BACKENDS:
        await filled(http, f"all-{backend}", backend=backend)
    for wish in FILTERS:
        for mode in ("dense", "lexical"):
            answers = [
                ids(
                    await found(
                        http, f"all-{backend}", text="farm animals in a year", k=COUNT, filter=wish, mode=mode
                    )
                )
                for backend in BACKENDS
            ]
            assert answers[0], (wish, mode)
            assert answers[0] == answers[1] == answers[2], (wish, mode)
    for backend in BACKENDS:
        hits = await found(http, f"all-{backend}", text="ducks of farm9", k=3, mode="hybrid", explain=True)
        assert hits[0]["id"] == "farm/9"
        assert hits[0]["explain"]["lexical"]["rank"] == 1


async def test_what_was_removed_or_rewritten_is_not_found_as_it_was(http: httpx.AsyncClient) -> None:
    for backend in BACKENDS:
        name = f"changes-{backend}"
        await filled(http, name, count=20, backend=backend)
        await call(http, "DELETE", f"/index/{name}/doc/farm/9")
        await call(http, "PUT", f"/index/{name}/doc/farm/4?wait=30", {"text": "Nothing but a zebra."})
        assert ids(await found(http, name, text="farm9", mode="lexical", k=50)) == set()
        assert ids(await found(http, name, text="farm4", mode="lexical", k=50)) == set()
        assert ids(await found(http, name, text="zebras", mode="lexical", k=50)) == {"farm/4"}
        everything = await found(http, name, text="a farm", mode="dense", k=50)
        assert len(everything) == len(ids(everything)) == 19


async def test_an_index_is_rebuilt_while_it_is_searched(http: httpx.AsyncClient) -> None:
    await filled(http, "moving", count=60)
    await call(http, "POST", "/index/moving/__rebuild", {"backend": "scann", "metric": "ip"})
    versions = set()

    async def moved() -> bool:
        assert len(await found(http, "moving", text="a goat", mode="dense", k=100)) == 60
        index = await call(http, "GET", "/index/moving")
        versions.add(index["version"])
        return bool(index["version"] == 2 and index["building"] is None)

    await eventually(moved, within_s=PATIENCE_S)
    assert (await call(http, "GET", "/index/moving"))["spec"]["backend"] == "scann"
    assert versions <= {1, 2}


async def test_a_name_that_is_free_again_finds_nothing_of_before(http: httpx.AsyncClient) -> None:
    await filled(http, "again", count=10)
    assert await found(http, "again", text="a goat")
    await call(http, "DELETE", "/index/again")
    assert (await http.get("/index/again")).status_code == 404
    await call(http, "POST", "/index", {"name": "again", "model": "vectors"})
    assert await found(http, "again", text="a goat") == []


async def test_all_is_found_again_after_a_stop(tmp_path: Path) -> None:
    env = {"GOATHERD_MODELS": json.dumps(MODELS)}
    for start in range(2):
        async with (
            running_up(tmp_path / "data", any_free(), env=env) as up,
            httpx.AsyncClient(base_url=up.url, timeout=PATIENCE_S) as http,
        ):
            await up.ready()
            await until_ready(http)
            if start == 0:
                await filled(http, "kept", count=50)
            assert len(await found(http, "kept", text="a goat", mode="hybrid", k=100)) == 50
