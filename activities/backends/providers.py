"""The providers of models by their names, imported when they are first needed."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache

from activities.inference_ports import Provider
from goatherd.contracts.inference import Provider as ProviderName
from goatherd.errors import ModelBroken


@dataclass(frozen=True, slots=True)
class _Place:
    module: str
    name: str
    extra: str | None
    """Of the package, that installs what it imports."""


_PLACES: dict[ProviderName, _Place] = {
    "huggingface": _Place("activities.backends.hf.provider", "HuggingFaceProvider", "inference"),
    "openai": _Place("activities.backends.openai_models", "OpenAIProvider", "openai"),
    "sagemaker": _Place("activities.backends.sagemaker", "SageMakerProvider", "sagemaker"),
    "tflite": _Place("activities.backends.tflite", "TFLiteProvider", "tflite"),
    "piper": _Place("activities.backends.piper", "PiperProvider", "speech"),
    "scripted": _Place("activities.backends.scripted_models", "ScriptedProvider", None),
}


@cache
def provider(name: ProviderName) -> Provider:
    """Raises `ModelBroken` if what it needs is not installed."""
    place = _PLACES[name]
    try:
        made: Provider = getattr(importlib.import_module(place.module), place.name)()
    except ImportError as error:
        raise not_installed(name, error) from error
    return made


def not_installed(name: ProviderName, error: ImportError) -> ModelBroken:
    """What to say when a provider's import fails, at once or when it loads a model."""
    extra = _PLACES[name].extra
    remedy = f"`pip install goatherd[{extra}]`" if extra else "install it"
    return ModelBroken(f"the provider {name!r} needs {error.name or error} which is not installed: {remedy}")
