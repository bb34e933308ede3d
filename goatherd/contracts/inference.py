"""Models and what is asked of them: where a model comes from, and how text is generated.

The tasks, with what goes in and comes out, are in `inference_tasks`; what crosses between the API and the
workers is in `inference_work`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from goatherd.contracts.inference_tasks import ChatTurn as ChatTurn
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.model import Contract, Json


class Generation(Contract):
    """Parameters of text generation. What is not given is the model's own default.

    Source of the names and their meaning: OpenAI's chat completions; `top_k` and `repetition_penalty`:
    transformers' generation.
    """

    max_tokens: int | None = Field(None, ge=1, le=32_768, description="Most tokens to generate.")
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy, and deterministic.")
    top_p: float | None = Field(None, gt=0, le=1, description="Nucleus sampling.")
    stop: list[str] | None = Field(
        None, max_length=4, description="Texts that end the reply; they are not part of it."
    )
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="The same seed and input: the same reply.")
    top_k: int | None = Field(
        None, ge=0, le=2**31, description="Only so many of the likeliest tokens; 0 is all."
    )
    repetition_penalty: float | None = Field(None, gt=0, le=10)


DEFAULT_MODEL = "default"
"""Stands for the workers' default model, in sessions that were started by hand and name none."""


class Usage(Contract):
    """Tokens of one reply."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


Provider = Literal["huggingface", "openai", "sagemaker", "tflite", "piper", "scripted", "index"]
"""`index` is of no model: an index is hosted and searched as models are."""

MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,3}$"
ModelName = Annotated[str, StringConstraints(pattern=MODEL_NAME, max_length=200)]
"""A public name: letters, digits, `.`, `_`, `-`, and up to three `/` between parts, as hub ids have."""

SecretRef = Annotated[
    str, StringConstraints(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)$", max_length=500)
]
"""Where a secret is, never the secret: `env:NAME` or `file:/path`, read by the worker that needs it."""


class Limits(Contract):
    """How much of a model may be asked at once."""

    batch: int = Field(64, ge=1, le=4_096, description="Most inputs that are computed together.")
    batch_tokens: int = Field(
        16_384,
        ge=1,
        le=2**31,
        description="Most tokens that are computed together, padding counted. An input of more goes alone.",
    )
    queue: int = Field(
        2_048,
        ge=1,
        le=2**31,
        description="Most inputs that wait in one API process; one more is answered 429.",
    )
    timeout_s: float = Field(120.0, gt=0, le=3_600, description="For one call, unless it asks for less.")


class Bounds(Contract):
    """What a model may reach that somebody has registered by a request."""

    private: bool = Field(False, description="Servers at addresses that are not on the public Internet.")
    root: str | None = Field(None, description="Files below this folder, of the worker's.")


_USUAL_TASKS = {
    "tflite": Task.TENSORS,
    "piper": Task.TEXT_TO_SPEECH,
    "sagemaker": Task.TEXT_GENERATION,
}
"""Of models that don't say what they are for."""


def _of_models(schema: dict[str, Any]) -> None:
    schema["enum"] = [name for name in schema["enum"] if name != "index"]


class ModelWish(Contract):
    """Where a model of a public name comes from, and what it is for: what a person says of it.

    `source` for provider `huggingface`: a hub id (`HuggingFaceTB/SmolLM2-135M-Instruct`), a local folder,
    or `package:NAME` for weights that a Python package carries; `tflite` and `piper`: a file, a folder or
    `package:NAME`; `openai`: the name that the other side knows the model by; `sagemaker`: the endpoint.
    Provider `scripted` is the fake.
    """

    provider: Provider = Field("huggingface", json_schema_extra=_of_models)
    source: str = ""
    task: Task = Field(
        Task.CONVERSATIONAL,
        description="What it is for. Tasks that follow from it are served as well. Default: by the provider: "
        "`tensors` of `tflite`, `text-to-speech` of `piper`, `text-generation` of `sagemaker` unless its "
        "format is `openai`.",
    )
    revision: str | None = Field(None, description="Of the source at the hub: a branch, tag or commit.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = Field("auto", description="`cpu`, `cuda`, `cuda:1`; `auto` is a GPU if there is one.")
    generation: Generation = Field(Generation(), description="Defaults, for models that generate text.")
    parameters: Json = Field({}, description="Defaults of the task's parameters.")
    limits: Limits = Limits()
    memory_mb: int | None = Field(
        None,
        ge=0,
        le=2**31,
        description="What it takes in memory when loaded. Default: guessed by its files.",
    )
    pinned: bool = Field(False, description="Loaded at start, and never put out for another.")
    options: Json = Field({}, description="What only its provider knows: see docs/models.md.")

    @model_validator(mode="before")
    @classmethod
    def _with_task(cls, given: Any) -> Any:
        """What is not said to be for anything is for what its provider is for."""
        if not isinstance(given, dict) or "task" in given:
            return given
        provider, options = given.get("provider"), given.get("options")
        if provider == "sagemaker" and isinstance(options, dict) and options.get("format") == "openai":
            return given
        task = _USUAL_TASKS.get(provider) if isinstance(provider, str) else None
        return given if task is None else {**given, "task": task}


class ModelSpec(ModelWish):
    """The same, with what is set by us and never by whoever wishes for a model."""

    bounds: Bounds | None = Field(
        None, description="Of a model that was registered by a request. None: it stands in the settings."
    )


def fingerprint(spec: ModelWish) -> str:
    """The same for specs of one model, whatever its limits and defaults are: what it computes is then alike.

    A model that lies elsewhere counts as another one: nobody looks into its files.
    """
    fields = [spec.provider, spec.source, spec.revision, spec.options]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


class Token(Contract):
    """One token that was made."""

    id: int
    text: str
    logprob: float
    special: bool = False


class Chunk(Contract):
    """A piece of text a model just made. Joined in order, they are the reply."""

    text: str
    tokens: list[Token] | None = Field(
        None, description="Those made since the chunk before, if details were asked for."
    )
    passed_on: Json | None = Field(
        None,
        description="What a remote provider gave beside the text, as its API names it. Then it may be empty.",
    )


class Finish(Contract):
    """The end of a reply that was not cancelled."""

    reason: Literal["stop", "length"]
    usage: Usage = Usage()
    at_stop_text: bool = Field(False, description="With `stop`: whether one of the request's texts ended it.")
    passed_on: Json | None = Field(
        None,
        description="The same of the whole reply, the pieces of chunks put together, and the `finish_reason` "
        "where it is none of ours.",
    )
