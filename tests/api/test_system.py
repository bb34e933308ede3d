from __future__ import annotations

import asyncio

import pytest
from temporalio.service import RPCError, RPCStatusCode

from api.table import route_table
from goatherd.errors import Unavailable
from tests.api.conftest import House, ready_worker


async def ready(house: House, status: int) -> dict[str, dict[str, object]]:
    answer = await house.http.get("/readyz")
    report = answer.json()
    assert (answer.status_code, report["status"]) == (status, "ready" if status == 200 else "starting")
    assert ("retry-after" in answer.headers) is (status == 503)
    checks: dict[str, dict[str, object]] = report["checks"]
    return checks


async def feed_opens(house: House) -> None:
    # The feed opens in a task of the lifespan.
    for _ in range(5):
        await asyncio.sleep(0)


async def test_alive_asks_nobody(house: House) -> None:
    house.store.down = Unavailable("gone")
    answer = await house.http.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_ready_names_each_part(house: House) -> None:
    await feed_opens(house)
    checks = await ready(house, 200)
    assert set(checks) == {
        "temporal",
        "store",
        "workers.actors",
        "workers.inference",
        "workers.store",
        "model",
        "feed",
    }
    assert all(check["ok"] for check in checks.values())


async def test_a_part_that_is_down_is_named(house: House) -> None:
    house.store.down = Unavailable("The store gives no answer.")
    checks = await ready(house, 503)
    assert checks["store"] == {"ok": False, "detail": "The store gives no answer."}
    assert checks["temporal"]["ok"]


async def test_a_part_that_hangs_is_not_waited_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.readiness.CHECK_TIMEOUT_S", 0.02)
    house.store.hangs = True
    assert "No answer within" in str((await ready(house, 503))["store"]["detail"])


async def test_temporal_may_be_away_or_not_serve(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.temporal.healthy = False
    assert not (await ready(house, 503))["temporal"]["ok"]

    async def away(**_: object) -> bool:
        raise RPCError("no", RPCStatusCode.UNAVAILABLE, b"")

    monkeypatch.setattr(house.temporal, "check_health", away)
    assert "unavailable" in str((await ready(house, 503))["temporal"]["detail"])


async def test_pools_and_the_model_are_judged_by_their_workers(house: House) -> None:
    await feed_opens(house)
    house.workers.found = []
    checks = await ready(house, 503)
    assert not any(checks[name]["ok"] for name in ("workers.actors", "workers.inference", "model"))
    house.workers.found = [
        ready_worker(pools=("actors", "store"), models={}),
        ready_worker(
            pools=("inference",), state="starting", detail="loading tiny", models={"tiny": "loading"}
        ),
    ]
    checks = await ready(house, 503)
    assert checks["workers.actors"] == {"ok": True, "detail": "1 ready"}
    assert checks["workers.inference"] == {"ok": False, "detail": "starting loading tiny"}
    assert checks["model"] == {"ok": False, "detail": "tiny: loading"}
    house.workers.found[1] = ready_worker(pools=("inference",), models={"tiny": "failed: no file"})
    assert (await ready(house, 503))["model"]["detail"] == "tiny: failed: no file"
    house.workers.found[1] = ready_worker(pools=("inference",))
    assert "workers.retrieval" not in await ready(house, 200)
    house.workers.found.append(
        ready_worker(pools=("retrieval",), state="starting", detail="loading an index")
    )
    found = (await ready(house, 200))["workers.retrieval"]
    assert found == {"ok": True, "detail": "starting loading an index"}


@pytest.mark.parametrize("house_of", [{"preload": False}], indirect=True)
async def test_a_model_that_is_not_preloaded_is_not_waited_for(house_of: House) -> None:
    await feed_opens(house_of)
    house_of.workers.found = [ready_worker(models={})]
    assert (await ready(house_of, 200))["model"]["ok"]


@pytest.mark.parametrize("state", ["unloaded", "loading: weights …"])
async def test_a_model_that_was_ready_may_be_put_out_and_come_back(house: House, state: str) -> None:
    await feed_opens(house)
    await ready(house, 200)
    house.workers.found = [ready_worker(models={"tiny": state})]
    assert (await ready(house, 200))["model"]["detail"] == "tiny: loaded when it is first asked for"
    house.workers.found = [ready_worker(models={"tiny": "failed: no file"})]
    assert not (await ready(house, 503))["model"]["ok"]


async def test_the_front_door_leads_on(house: House) -> None:
    index = await house.http.get("/")
    links = index.json()["links"]
    assert (links["docs"], links["models"], links["jobs"]) == ("/docs", "/models", "/jobs")
    browser = await house.http.get("/", headers={"accept": "text/html,*/*"})
    assert (browser.status_code, browser.headers["location"]) == (307, "/docs")
    assert (await house.http.get("/docs")).status_code == 200


async def test_the_route_table_has_every_route(house: House) -> None:
    table = {(method, path): summary for method, path, summary in route_table(house.app)}
    assert table["POST", "/chat"] == "Start a session"
    assert ("WS", "/chat/{session}/ws") in table
    assert ("GET", "/chat/{session}/message/{message}") in table
    assert ("POST", "/chat/{session}/fork") in table
    assert not any(path == "/docs" for _, path in table)
    assert all(table.values())
