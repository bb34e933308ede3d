"""Models as the routes show them: what they are for, whether they can be asked, where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from activities.backends.hf.families import FAMILIES
from activities.backends.memory_models import MemoryModelCatalog
from activities.backends.openai_models import OpenAIProvider
from api.errors import error_headers, status_of
from api.model_registry import ModelRegistry
from goatherd.contracts.inference import ModelSpec, Provider
from goatherd.contracts.inference_tasks import MODEL_TASKS, Task
from goatherd.contracts.providers import TASKS, check_task
from goatherd.errors import ModelBroken, WrongTask
from tests.api.conftest import House, make_settings, ready_worker
from tests.api.inference_house import inference_house


def test_broken_model_is_our_fault_and_no_reason_to_try_again() -> None:
    error = ModelBroken("no such folder")
    assert status_of(error) == 503
    assert error_headers(error) == {"x-should-retry": "false"}


async def test_model_that_failed_to_load_says_so_and_is_not_healthy(house: House) -> None:
    house.workers.found = [ready_worker(models={"tiny": "failed: no file", "other": "unloaded"})]
    shown = (await house.http.get("/models/tiny")).json()
    assert (shown["state"], shown["workers"][0]["detail"]) == ("failed", "no file")
    health = await house.http.get("/models/tiny/health")
    assert (health.status_code, health.json()["error"]) == (503, "no file")
    assert (await house.http.get("/models/other")).json()["state"] == "unloaded"
    assert (await house.http.get("/models/other/health")).status_code == 200


async def test_unloading_the_default_model_says_what_that_means(house: House) -> None:
    house.workers.found = []
    tiny = (await house.http.post("/models/tiny/unload")).json()
    assert "the default model" in tiny["note"]
    assert (await house.http.post("/models/other/unload")).json()["note"] is None


@pytest.mark.parametrize(
    ("provider", "options", "task"),
    [
        ("huggingface", {}, Task.CONVERSATIONAL),
        ("tflite", {}, Task.TENSORS),
        ("piper", {}, Task.TEXT_TO_SPEECH),
        ("sagemaker", {}, Task.TEXT_GENERATION),
        ("sagemaker", {"format": "openai"}, Task.CONVERSATIONAL),
    ],
)
def test_task_that_is_not_given_follows_from_the_provider(
    provider: Provider, options: dict[str, Any], task: Task
) -> None:
    spec = ModelSpec.model_validate({"provider": provider, "source": "it", "options": options})
    assert spec.task is task
    check_task(spec)
    assert ModelSpec.model_validate({"provider": provider, "task": "translation"}).task is Task.TRANSLATION


async def test_task_that_the_provider_has_not_is_refused(house: House) -> None:
    body = {"name": "voice", "provider": "piper", "source": "package:voices"}
    made = await house.http.post("/models", json=body)
    assert (made.status_code, made.json()["task"]) == (201, "text-to-speech")
    refused = await house.http.post("/models", json={**body, "name": "chat", "task": "conversational"})
    assert refused.status_code == 422
    assert "'piper' is for conversational, but for: text-to-speech" in refused.text


def test_tasks_of_providers_are_those_that_they_take() -> None:
    assert TASKS["huggingface"] == set(FAMILIES)
    for task in MODEL_TASKS:
        spec = ModelSpec(provider="openai", source="it", task=task)
        if task in TASKS["openai"]:
            OpenAIProvider().check("m", spec)
        else:
            with pytest.raises(WrongTask):
                OpenAIProvider().check("m", spec)


def test_model_of_the_file_is_said_to_be(tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    file.write_text('{"filed": {"provider": "scripted"}}')
    registry = ModelRegistry(make_settings(models_file=file), MemoryModelCatalog())
    assert (registry.entry("filed").origin, registry.entry("tiny").origin) == ("file", "settings")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("conversational/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("text-generation/v1/completions", {"prompt": "Goats"}),
        ("feature-extraction/v1/embeddings", {"input": "A goat."}),
        ("text-to-speech/v1/audio/speech", {"input": "A goat.", "voice": "alloy"}),
    ],
)
async def test_the_body_need_not_name_the_model_that_the_path_names(path: str, body: dict[str, Any]) -> None:
    async with inference_house() as house, httpx.AsyncClient() as http:
        answer = await http.post(f"{house.url}/models/{path}", json=body)
        assert answer.status_code == 200, answer.text
        answer = await http.post(f"{house.url}/{path.partition('/')[2]}", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "model")


async def test_sentences_to_compare_are_compared_at_the_address_of_a_model_for_vectors() -> None:
    inputs = {"source_sentence": "A goat.", "sentences": ["A kid.", "A car."]}
    async with inference_house() as house, httpx.AsyncClient() as http:
        answer = await http.post(house.model("feature-extraction"), json={"inputs": inputs})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()) == 2
