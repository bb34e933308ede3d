"""Models behind a whole Goatherd, asked by the clients that people have, while its processes are killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import openai
import pytest
from huggingface_hub import AsyncInferenceClient

from goatherd.contracts.inference_tasks import Task
from goatherd.embedded._ports import any_free
from tests.e2e.stack import Up, running_beside, running_up, until_ready
from tests.embedded.waiting import gone
from tests.temporal import eventually

INFERENCE = ("goatherd", "inference")
SLOW_MS = 1_500
MODELS: dict[str, dict[str, Any]] = {
    "scripted": {"provider": "scripted"},
    "vectors": {"provider": "scripted", "task": Task.FEATURE_EXTRACTION},
    "slow": {"provider": "scripted", "task": Task.TEXT_CLASSIFICATION, "options": {"batch_ms": SLOW_MS}},
    "mood": {"provider": "scripted", "task": Task.TEXT_CLASSIFICATION},
}
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    data = tmp_path_factory.mktemp("models") / "data"
    async with running_up(data, any_free(), env={"GOATHERD_MODELS": json.dumps(MODELS)}) as running:
        await running.ready()
        yield running


@pytest.fixture
async def http(shared: Up) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=shared.url, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
async def up(shared: Up, http: httpx.AsyncClient) -> Up:
    """Complete, with a worker that says that it is there."""
    await eventually(lambda: _has(shared, http), within_s=PATIENCE_S)
    await until_ready(http)
    return shared


async def _has(up: Up, http: httpx.AsyncClient) -> bool:
    del http
    return up.child(*INFERENCE) is not None


def openai_of(up: Up) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{up.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S)


def hf_of(up: Up, model: str) -> AsyncInferenceClient:
    return AsyncInferenceClient(model=f"{up.url}/models/{model}", timeout=PATIENCE_S)


async def test_the_clients_that_people_have_are_answered(up: Up) -> None:
    async with openai_of(up) as client:
        vectors = await client.embeddings.create(model="vectors", input=["a goat", "a goat", "hay"])
        assert vectors.data[0].embedding == vectors.data[1].embedding != vectors.data[2].embedding
        chat = await client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in chat if chunk.choices])
        whole = await client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "hello"}]
        )
        assert text == whole.choices[0].message.content != ""
    async with hf_of(up, "mood") as hf:
        labels = await hf.text_classification("what a good goat")
    assert labels[0].label == "POSITIVE"


async def test_a_model_that_is_registered_is_served_by_all_and_gone_when_removed(
    up: Up, http: httpx.AsyncClient
) -> None:
    model = {"name": "org/new", "provider": "scripted", "task": "fill-mask"}
    assert (await http.post("/models", json=model)).status_code == 201
    assert (await http.post("/models", json=model)).status_code == 201
    other = await http.post("/models", json={**model, "task": "translation"})
    assert other.status_code == 409
    async with hf_of(up, "org/new") as hf:
        filled = await hf.fill_mask("a [MASK]")
    assert filled[0].token_str
    await eventually(lambda: _state(http, "org/new", "ready"))
    assert (await http.post("/models/org/new/unload")).json()["state"] == "unloaded"
    await eventually(lambda: _state(http, "org/new", "unloaded"))
    loaded = await http.post("/models/org/new/load", params={"wait_s": 20})
    assert loaded.json()["state"] == "ready"
    assert (await http.delete("/models/org/new")).status_code == 204
    assert (await http.get("/models/org/new")).status_code == 404
    assert (await http.post("/models/org/new", json={"inputs": "a [MASK]"})).status_code == 404


async def _state(http: httpx.AsyncClient, model: str, state: str) -> bool:
    return bool((await http.get(f"/models/{model}")).json()["state"] == state)


async def test_a_worker_that_is_killed_in_a_batch_costs_no_caller_his_answer(
    up: Up, http: httpx.AsyncClient
) -> None:
    async with running_beside(up, "worker", "--pool", "inference"):
        await eventually(lambda: _workers(http, 2), within_s=PATIENCE_S)
        await http.post("/models/slow", json={"inputs": "a good warm one"})
        holder = (await http.get("/models/slow")).json()["workers"][0]["worker"]
        calls = [asyncio.create_task(_classify(http, f"good {n}")) for n in range(32)]
        await asyncio.wait(calls, timeout=SLOW_MS / 1000 / 2)
        pid = int(holder.rsplit(":", 1)[1])
        os.kill(pid, signal.SIGKILL)
        answers = await asyncio.gather(*calls)
        for status, body in answers:
            assert status in (200, 503), body
            if status == 200:
                assert body[0][0]["label"] == "POSITIVE"
        assert [status for status, _ in answers].count(200) >= 16
        await gone(pid, within=5)


async def _classify(http: httpx.AsyncClient, text: str) -> tuple[int, Any]:
    answer = await http.post("/models/slow", json={"inputs": text})
    return answer.status_code, answer.json()


async def _workers(http: httpx.AsyncClient, count: int) -> bool:
    checks = (await http.get("/readyz")).json()["checks"]
    return str(checks["workers.inference"]["detail"]).startswith(f"{count} ")


async def test_without_another_worker_a_killed_one_is_a_clean_refusal_and_then_back(
    up: Up, http: httpx.AsyncClient
) -> None:
    calls = [asyncio.create_task(_classify(http, f"good {n}")) for n in range(8)]
    await asyncio.wait(calls, timeout=SLOW_MS / 1000 / 2)
    up.part(*INFERENCE).kill()
    for status, body in await asyncio.gather(*calls):
        assert status in (200, 503, 504), body
    await eventually(lambda: _answers(http), within_s=PATIENCE_S)


async def _answers(http: httpx.AsyncClient) -> bool:
    return (await http.post("/models/mood", json={"inputs": "good"})).status_code == 200


async def test_a_job_is_done_though_every_process_is_killed(up: Up, http: httpx.AsyncClient) -> None:
    inputs = [f"good {n}" for n in range(200)]
    body = {"model": "slow", "inputs": inputs}
    made = await http.post("/inference/job", json=body, headers={"idempotency-key": "all-killed"})
    assert made.status_code == 201, made.text
    job = made.json()["id"]
    for words in (INFERENCE, ("goatherd", "actors"), ("start-dev",), ("secantusd",), ("goatherd", "api")):
        part = up.child(*words)
        if part is not None:
            part.kill()
            await gone(part.pid, within=5)
    await until_ready(http)
    again = await _retried(
        lambda: http.post("/inference/job", json=body, headers={"idempotency-key": "all-killed"})
    )
    assert again.json()["id"] == job
    await eventually(lambda: _ended(http, job), within_s=120)
    found = (await http.get(f"/inference/job/{job}")).json()
    assert (found["status"], found["progress"]) == ("completed", {"total": 200, "done": 200, "failed": 0})
    result = (await http.get(f"/inference/job/{job}/result")).json()
    assert len(result) == 200
    listed = (await http.get("/inference/job", params={"status": "completed"})).json()
    assert job in [one["id"] for one in listed["data"]]


async def _ended(http: httpx.AsyncClient, job: str) -> bool:
    try:
        answer = await http.get(f"/inference/job/{job}", params={"wait_s": 5})
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and answer.json()["status"] == "completed"


async def _retried(call: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """As a client does that was told to come back."""
    found: httpx.Response | None = None

    async def answered() -> bool:
        nonlocal found
        try:
            found = await call()
        except httpx.HTTPError:
            return False
        return found.status_code < 400

    await eventually(answered, within_s=PATIENCE_S)
    assert found is not None
    return found


async def test_a_chat_talks_by_any_registered_model(up: Up, http: httpx.AsyncClient) -> None:
    model = {"name": "parrot", "provider": "scripted", "task": "conversational"}
    assert (await http.post("/models", json=model)).status_code == 201
    chat = (await http.post("/chat", json={"model": "parrot"})).raise_for_status().json()
    assert chat["model"] == "parrot"
    said = await http.post(
        f"/chat/{chat['id']}/message", json={"content": "hello"}, headers={"prefer": "wait=30"}
    )
    assert said.json()["reply_message"]["status"] == "completed"
    refused = await http.post("/chat", json={"model": "mood"})
    assert (refused.status_code, refused.json()["code"]) == (422, "model-not-found")
