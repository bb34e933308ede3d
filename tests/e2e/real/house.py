"""Every model that can be prepared on this machine behind one `goatherd up`: real ones, tiny ones that were
trained here, and tiny ones of random weights. And the clients that people have for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError, TextGenerationError
from openai import AsyncOpenAI, OpenAI
from PIL import Image

from activities.backends.model_sources import prepare as prepare_source
from examples.models.demo import DEMO, prepare
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task
from goatherd.embedded._ports import any_free
from goatherd.settings import DEFAULT_MODEL, Settings
from tests.e2e.stack import running_up, until_ready
from tests.models.broken import broken
from tests.models.tiny import tiny_models
from tests.models.unlearned import unlearned

PATIENCE_S = 90.0
MEMORY_MB = 700
"""Less than all models take, so that some have to go for others."""

Value = TypeVar("Value")

_TRAINED = {
    "mlm": Task.FILL_MASK,
    "ner": Task.TOKEN_CLASSIFICATION,
    "nli": Task.ZERO_SHOT_CLASSIFICATION,
    "qa": Task.QUESTION_ANSWERING,
    "sentiment": Task.TEXT_CLASSIFICATION,
    "t5": Task.TEXT2TEXT_GENERATION,
}
_UNLEARNED = {
    "tapas": Task.TABLE_QUESTION_ANSWERING,
    "yolos": Task.OBJECT_DETECTION,
    "segformer": Task.IMAGE_SEGMENTATION,
    "maskformer": Task.IMAGE_SEGMENTATION,
    "wav2vec2": Task.AUDIO_CLASSIFICATION,
    "ctc": Task.AUTOMATIC_SPEECH_RECOGNITION,
    "vits": Task.TEXT_TO_SPEECH,
    "speecht5": Task.TEXT_TO_SPEECH,
    "diffusion": Task.TEXT_TO_IMAGE,
}
FACES = "face_detection_short_range.tflite"


@dataclass(frozen=True)
class House:
    """A running `goatherd up`, and where the files of its models are, by their names."""

    url: str
    folders: dict[str, Path]

    @asynccontextmanager
    async def http(self) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S) as client:
            yield client

    def at(self, model: str, task: str | None = None) -> str:
        return f"{self.url}/models/{model}" + (f"/pipeline/{task}" if task else "")

    async def hf(self, model: str, method: str, *args: Any, task: Any = None, **more: Any) -> Any:
        """What both of Hugging Face's clients give, which is the same."""

        def asked() -> Any:
            with InferenceClient(model=self.at(model, task), timeout=PATIENCE_S) as client:
                return getattr(client, method)(*args, **more)

        found = await asyncio.to_thread(asked)
        async with AsyncInferenceClient(model=self.at(model, task), timeout=PATIENCE_S) as client:
            other = await getattr(client, method)(*args, **more)
        assert alike(found, other), (found, other)
        return found

    async def refused(self, model: str, method: str, *args: Any, task: Any = None, **more: Any) -> str:
        """How Hugging Face's client says what the server refuses: a 4xx, never a 5xx."""
        async with AsyncInferenceClient(model=self.at(model, task), timeout=PATIENCE_S) as client:
            with pytest.raises((HfHubHTTPError, TextGenerationError)) as caught:
                await getattr(client, method)(*args, **more)
        # Of generated text the client raises errors of its own in place of the answer's.
        answer: Any = caught.value if isinstance(caught.value, HfHubHTTPError) else caught.value.__cause__
        assert 400 <= answer.response.status_code < 500, caught.value
        return f"{answer.response.status_code} {caught.value}"

    async def openai(self, ask: Callable[[Any], Any]) -> Any:
        """What both of OpenAI's clients give. `ask` makes the call, to be awaited by one of them."""

        def asked() -> Any:
            with OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S) as one:
                return ask(one)

        found = await asyncio.to_thread(asked)
        async with self.async_openai() as client:
            return found, await ask(client)

    def async_openai(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S)


def alike(one: Any, other: Any) -> bool:
    """Whether two answers of a client are the same."""
    if isinstance(one, np.ndarray):
        return bool(np.allclose(one, other, atol=1e-5))
    if isinstance(one, Image.Image):
        assert isinstance(other, Image.Image)
        return one.size == other.size and one.tobytes() == other.tobytes()
    if isinstance(one, float):
        return bool(np.isclose(one, other, atol=1e-5))
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if hasattr(one, "__dict__"):
        names = vars(one).keys() - {"id", "created"}
        return all(alike(getattr(one, name), getattr(other, name)) for name in names)
    return bool(one == other)


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    """All of them. Nothing is trained or converted that is in the cache already."""
    folders, specs = await asyncio.to_thread(_models, folder)
    written = {name: spec.model_dump(mode="json", exclude_defaults=True) for name, spec in specs.items()}
    env = {
        "GOATHERD_MODELS": json.dumps({"scripted": {"provider": "scripted"}, **written}),
        "GOATHERD_MODEL_MEMORY_MB": str(MEMORY_MB),
        # Several that wait for each other are slow where other tests take their cores.
        "GOATHERD_TORCH_THREADS": "1",
    }
    async with running_up(folder / "data", any_free(), env=env) as up:
        await up.ready()
        made = House(up.url, folders)
        async with made.http() as client:
            await until_ready(client)
        yield made
        (folder / "output.txt").write_text(up.output)


def _models(folder: Path) -> tuple[dict[str, Path], dict[str, ModelSpec]]:
    settings = Settings()
    specs: dict[str, ModelSpec] = {}
    talk = settings.models[DEFAULT_MODEL]
    # Computed in one dtype here and there, whatever the machine is best at.
    specs["smollm2"] = ModelSpec(
        source=str(prepare_source(DEFAULT_MODEL, talk, settings.cache)), dtype="float32"
    )
    specs |= {name: prepare(name, settings.cache / "demo") for name in DEMO}
    trained = tiny_models(settings.cache)
    specs |= {name: ModelSpec(source=str(trained[name]), task=task) for name, task in _TRAINED.items()}
    weights = folder / "weights"
    weights.mkdir()
    for name, task in _UNLEARNED.items():
        source, options = unlearned(weights, name), {}
        if name == "speecht5":
            options = {"vocoder": str(source / "vocoder"), "voices": str(source / "voices.safetensors")}
        specs[name] = ModelSpec(source=str(source), task=task, options=options)
    for name in ("sentiment", "t5"):
        place = broken(trained[name], weights / f"broken-{name}")
        specs[f"broken/{name}"] = ModelSpec(source=str(place), task=_TRAINED[name])
    # Those of other providers are read from their packages by the tests themselves.
    folders = {
        name: prepare_source(name, spec, settings.cache)
        for name, spec in specs.items()
        if spec.provider == "huggingface"
    }
    # As the library is asked: what threads add up differs.
    specs["faces"] = specs["faces"].model_copy(update={"options": {"file": FACES, "threads": 1}})
    return folders, specs
