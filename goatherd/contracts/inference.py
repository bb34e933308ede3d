"""Models and what is asked of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from goatherd.contracts.model import Contract


class Generation(Contract):
    """Parameters of text generation. What is not given is the model's own default.

    Source of the names and their meaning: OpenAI's chat completions.
    """

    max_tokens: int | None = Field(None, ge=1, le=32_768, description="Most tokens to generate.")
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy, and deterministic.")
    top_p: float | None = Field(None, gt=0, le=1, description="Nucleus sampling.")
    stop: list[str] | None = Field(
        None, max_length=4, description="Texts that end the reply; they are not part of it."
    )
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="The same seed and input: the same reply.")


DEFAULT_MODEL = "default"
"""Stands for the workers' default model, in sessions that were started by hand and name none."""


class Usage(Contract):
    """Tokens of one reply."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class ModelSpec(Contract):
    """Where a model of a public name comes from.

    `source` for provider `huggingface`: a hub id (`HuggingFaceTB/SmolLM2-135M-Instruct`), a local folder,
    or `package:NAME` for weights that a Python package carries. Provider `scripted` is the fake.
    """

    provider: Literal["huggingface", "scripted"] = "huggingface"
    source: str = ""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    generation: Generation = Generation()


class ChatTurn(Contract):
    """One message as a model sees it."""

    role: Literal["system", "user", "assistant"]
    content: str


class Chunk(Contract):
    """A piece of text a model just made. Joined in order, they are the reply."""

    text: str


class Finish(Contract):
    """The end of a reply that was not cancelled."""

    reason: Literal["stop", "length"]
    usage: Usage = Usage()
