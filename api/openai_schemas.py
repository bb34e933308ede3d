"""Bodies of requests as OpenAI's clients send them.

Source: openai 3.54, `types/**/*_create_params.py`. What is null counts as not given. Fields that only ask
for what we do anyway are taken; what is passed on to a provider, `api/openai_requests.py` says.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, Field, create_model

from api.schemas import Body, Seed, StopText, TokenCount, _whole

Stop = Annotated[list[StopText], Field(max_length=4)]
One = Annotated[int, Field(ge=1, le=1), BeforeValidator(_whole)]
ModelField = Annotated[str, Field(min_length=1, description="As in `GET /v1/models`.")]
Penalty = Annotated[float, Field(ge=-2, le=2)]
_HARMLESS = "Taken, without an effect."
_ONLY_OPENAI = "Only for models of the provider `openai`, and passed on to it."


class StreamOptions(Body):
    include_usage: bool | None = Field(None, description="A last chunk with the usage of tokens.")
    include_obfuscation: bool | None = Field(None, description=_HARMLESS)


class TextPart(Body):
    type: Literal["text"]
    text: str = Field(max_length=1_000_000)


class OtherPart(Body):
    """An image, a sound, a file."""

    type: Literal["image_url", "input_audio", "file", "refusal"] = Field(description=_ONLY_OPENAI)
    image_url: dict[str, Any] | None = None
    input_audio: dict[str, Any] | None = None
    file: dict[str, Any] | None = None
    refusal: str | None = None


class ChatMessage(Body):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart | OtherPart] | None = Field(None, description="A text, or parts of one.")
    name: str | None = Field(None, description=_HARMLESS)
    refusal: str | None = None
    audio: dict[str, Any] | None = None
    tool_calls: list[dict[str, Any]] | None = Field(None, description=_ONLY_OPENAI)
    tool_call_id: str | None = None
    function_call: dict[str, Any] | None = None


class ChatBody(Body):
    """A conversation that the model goes on with."""

    model: ModelField
    messages: list[ChatMessage] = Field(min_length=1, max_length=1_000)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TokenCount | None = Field(None, description="The older name of `max_completion_tokens`.")
    max_completion_tokens: TokenCount | None = Field(None, description="Most tokens to generate.")
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy, and deterministic.")
    top_p: float | None = Field(None, gt=0, le=1)
    n: One | None = None
    stop: StopText | Stop | None = None
    seed: Seed | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), BeforeValidator(_whole)] | None = Field(
        None, description=_ONLY_OPENAI
    )
    tools: list[dict[str, Any]] | None = Field(None, description=_ONLY_OPENAI)
    tool_choice: str | dict[str, Any] | None = Field(None, description=_ONLY_OPENAI)
    parallel_tool_calls: bool | None = Field(None, description=_ONLY_OPENAI)
    functions: list[dict[str, Any]] | None = Field(None, description=_ONLY_OPENAI)
    function_call: str | dict[str, Any] | None = Field(None, description=_ONLY_OPENAI)
    response_format: dict[str, Any] | None = Field(None, description=f"`text`. Others: {_ONLY_OPENAI}")
    logit_bias: dict[str, float] | None = Field(None, description=_ONLY_OPENAI)
    reasoning_effort: str | None = Field(None, description=_ONLY_OPENAI)
    verbosity: str | None = Field(None, description=_ONLY_OPENAI)
    modalities: list[str] | None = Field(None, description=f"`text`. Others: {_ONLY_OPENAI}")
    audio: dict[str, Any] | None = Field(None, description=_ONLY_OPENAI)
    prediction: dict[str, Any] | None = Field(None, description=_ONLY_OPENAI)
    web_search_options: dict[str, Any] | None = Field(None, description=_ONLY_OPENAI)
    moderation: dict[str, Any] | None = Field(None, description=_ONLY_OPENAI)
    prompt_cache_options: dict[str, Any] | None = Field(None, description=_ONLY_OPENAI)
    metadata: dict[str, Any] | None = Field(None, description=_HARMLESS)
    prompt_cache_key: str | None = Field(None, description=_HARMLESS)
    prompt_cache_retention: str | None = Field(None, description=_HARMLESS)
    safety_identifier: str | None = Field(None, description=_HARMLESS)
    service_tier: str | None = Field(None, description=_HARMLESS)
    store: bool | None = Field(None, description=_HARMLESS)
    user: str | None = Field(None, description=_HARMLESS)


class CompletionBody(Body):
    """A text, or several, that the model goes on from."""

    model: ModelField
    prompt: str | list[str] | list[int] | list[list[int]] = Field(
        description="A text or several; not tokens.", examples=["Goats can"]
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TokenCount | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: One | None = None
    best_of: One | None = None
    stop: StopText | Stop | None = None
    seed: Seed | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    echo: bool | None = Field(None, description="Whether the prompt stands before the text.")
    logprobs: Annotated[int, Field(ge=0, le=0), BeforeValidator(_whole)] | None = Field(
        None, description="0: those of the tokens that were made."
    )
    logit_bias: dict[str, float] | None = Field(None, max_length=0)
    suffix: Literal[""] | None = None
    user: str | None = Field(None, description=_HARMLESS)


class EmbeddingBody(Body):
    """A text, or several, to make vectors of."""

    model: ModelField
    input: str | list[str] | list[int] | list[list[int]] = Field(
        description="A text or several; not tokens.", examples=["A goat."]
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64: little-endian float32."
    )
    dimensions: Annotated[int, Field(ge=1, le=2**31), BeforeValidator(_whole)] | None = Field(
        None, description="Only the first so many, normalized again."
    )
    user: str | None = Field(None, description=_HARMLESS)


class Voice(Body):
    id: str


class SpeechBody(Body):
    """A text to say."""

    model: ModelField
    input: str = Field(min_length=1, max_length=100_000)
    voice: str | Voice | None = Field(None, description="OpenAI's names stand for the model's own voice.")
    response_format: Literal["mp3", "opus", "flac", "wav", "pcm"] | None = Field(
        None, description="Default: mp3."
    )
    speed: float | None = Field(None, ge=0.25, le=4)
    stream_format: Literal["audio"] | None = None
    instructions: Literal[""] | None = None
    seed: Seed | None = Field(None, description="Ours: of models that draw.")


class ImageBody(Body):
    """An image to make."""

    model: ModelField | None = Field(None, description="Default: the first that makes images.")
    prompt: str = Field(min_length=1, max_length=32_000)
    n: Annotated[int, Field(ge=1, le=10), BeforeValidator(_whole)] | None = None
    size: str | None = Field(None, description="`auto`, or width and height: `512x512`.", examples=["64x64"])
    response_format: Literal["b64_json"] | None = None
    output_format: Literal["png"] | None = None
    quality: Literal["auto", "standard"] | None = None
    background: Literal["auto"] | None = None
    moderation: Literal["auto", "low"] | None = Field(None, description=_HARMLESS)
    stream: bool | None = Field(None, description="Only false.")
    user: str | None = Field(None, description=_HARMLESS)
    safety_identifier: str | None = Field(None, description=_HARMLESS)
    seed: Seed | None = Field(None, description="Ours: of the first; each other's is one more.")
    negative_prompt: str | None = Field(None, description="Ours.")
    num_inference_steps: Annotated[int, Field(ge=1, le=200), BeforeValidator(_whole)] | None = Field(
        None, description="Ours."
    )
    guidance_scale: float | None = Field(None, ge=0, le=50, description="Ours.")


BODIES = (ChatBody, CompletionBody, EmbeddingBody, ImageBody, SpeechBody)


Asking = TypeVar("Asking", bound=BaseModel)


def asked_at(kind: type[Asking], model: str | None) -> type[Asking]:
    """The body `kind` where the path names a `model`, if it does: there the body need not."""
    return kind if model is None else cast(type[Asking], at_address(kind))


@cache
def at_address(kind: type[BaseModel]) -> type[BaseModel]:
    """The same with a `model` that may be missing, and does not count."""
    model: Any = (str | None, Field(None, description="Does not count: the path names the model."))
    return create_model(f"{kind.__name__}AtModel", __base__=kind, __doc__=kind.__doc__, model=model)
