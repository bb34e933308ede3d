"""The typed options of providers."""

from __future__ import annotations

from typing import Any

import pytest

from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference import Provider as ProviderName
from goatherd.contracts.providers import OpenAIOptions, SageMakerOptions, TFLiteOptions, options_of
from goatherd.errors import Invalid


def spec_of(provider: ProviderName, **options: Any) -> ModelSpec:
    return ModelSpec(provider=provider, source="it", options=options)


def test_options_are_of_their_providers_type() -> None:
    assert options_of(spec_of("openai")) == OpenAIOptions()
    assert options_of(spec_of("tflite", labels=["a", "b"])) == TFLiteOptions(labels=["a", "b"])
    sagemaker = options_of(spec_of("sagemaker", **{"async": {"input_s3": "s3://goats/in"}}))
    assert isinstance(sagemaker, SageMakerOptions)
    assert sagemaker.asynchronous is not None
    assert sagemaker.asynchronous.input_s3 == "s3://goats/in"
    assert options_of(spec_of("scripted", load_ms=5)) is None


def test_key_is_looked_for_where_the_client_does_unless_there_is_none() -> None:
    assert OpenAIOptions().api_key == "env:OPENAI_API_KEY"
    assert OpenAIOptions(api_key=None).api_key is None


@pytest.mark.parametrize(
    ("provider", "options", "pointer"),
    [
        ("openai", {"base_uri": "x"}, "/options/base_uri"),
        ("openai", {"a/b~c": 1}, "/options/a~1b~0c"),
        ("openai", {"base_url": "ftp://models"}, "/options/base_url"),
        ("openai", {"base_url": "https://models/v1?key=1"}, "/options/base_url"),
        ("openai", {"base_url": "https://user:password@models/v1"}, "/options/base_url"),
        ("openai", {"timeout_s": 0}, "/options/timeout_s"),
        ("sagemaker", {"format": "xml"}, "/options/format"),
        ("sagemaker", {"async": {"input_s3": "s3://goats", "poll": 1}}, "/options/async/poll"),
        ("sagemaker", {"async": {}}, "/options/async/input_s3"),
        ("tflite", {"mean": ["dark"]}, "/options/mean"),
        ("tflite", {"labels": 5}, "/options/labels"),
        ("tflite", {"std": [1, 0, 1]}, "/options"),
        ("tflite", {"strides": [8, 0]}, "/options"),
    ],
)
def test_wrong_option_is_pointed_at(provider: ProviderName, options: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        options_of(spec_of(provider, **options))
    assert (caught.value.pointer or "").startswith(pointer)


def test_secret_in_place_of_its_reference_is_not_quoted() -> None:
    with pytest.raises(Invalid) as caught:
        options_of(spec_of("openai", api_key="sk-somebodys-key"))
    assert caught.value.pointer == "/options/api_key"
    assert "sk-somebodys-key" not in caught.value.message
