"""The options of each provider, typed: what stands in a model's `options`, checked where it is registered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from goatherd.contracts.inference import ModelWish, Provider, SecretRef
from goatherd.contracts.inference_tasks import MODEL_TASKS, Task
from goatherd.errors import Invalid, WrongTask

HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$", max_length=2_000)]
S3Url = Annotated[str, StringConstraints(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s]*)?$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class Options(BaseModel):
    """Base of a provider's options. An unknown one is refused: a wish that is not followed should not look
    as if it were."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class OpenAIOptions(Options):
    """Of a model behind an API that is OpenAI's or speaks as it does."""

    base_url: HttpUrl = "https://api.openai.com/v1"
    api_key: SecretRef | None = Field(
        "env:OPENAI_API_KEY", description="Where the key is. Null: the server asks for none."
    )
    organization: Name | None = None
    project: Name | None = None
    timeout_s: float = Field(60.0, gt=0, le=3_600, description="Between two signs of life of the server.")
    max_retries: int = Field(0, ge=0, le=10, description="Of one call. Who asks tries again anyway.")
    concurrency: int = Field(8, ge=1, le=256, description="Calls of one batch at once, of sounds and images.")
    max_tokens_as: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="How the server calls it: OpenAI's reasoning models know the second alone."
    )
    stream_usage: bool = Field(True, description="Whether the server knows `stream_options.include_usage`.")
    generate: Literal["chat", "completions"] = Field(
        "chat",
        description="How text is generated from a prompt: as the one turn of a chat, or by the older "
        "completions, which go on from the prompt as it is.",
    )
    resume: Literal["ask", "continue_final_message"] = Field(
        "ask",
        description="How a reply is gone on from: the model is asked to, which it does as well as it can; or "
        "by the parameter of vLLM and SGLang, which is exact.",
    )
    voice: Name = Field("alloy", description="Of speech, if the call names none.")


class AsyncInvocation(Options):
    """Inputs and outputs by S3, for an endpoint that is asynchronous.

    Where an output is, is said by every answer; that it is where outputs may be, is said here."""

    input_s3: S3Url = Field(description="Where inputs are put: `s3://bucket/prefix`.")
    output_s3: S3Url | None = Field(
        None,
        description="Below which the endpoint puts outputs, as its configuration says (`S3OutputPath`). "
        "Nothing else is read or deleted. Default: `input_s3`.",
    )
    failure_s3: S3Url | None = Field(
        None, description="The same of failures (`S3FailurePath`). Default: where outputs are."
    )
    poll_s: float = Field(1.0, gt=0, le=60, description="How often is looked for an output.")
    keep: bool = Field(False, description="Whether inputs and outputs stay in S3 when they were read.")
    s3_endpoint_url: HttpUrl | None = None


class SageMakerOptions(Options):
    """Of a model behind a SageMaker endpoint. Credentials are found by the SDK's own chain."""

    region: Name | None = None
    profile: Name | None = Field(None, description="Of the SDK's configuration.")
    endpoint_url: HttpUrl | None = Field(None, description="Of the service, if it is not AWS's own.")
    format: Literal["huggingface", "openai"] = Field(
        "huggingface",
        description="What the container speaks: the JSON of Hugging Face's inference toolkit and of "
        "text-generation-inference, or OpenAI's chat completions.",
    )
    content_type: Name | None = Field(None, description="Of media that are sent as they are.")
    inference_component: Name | None = None
    target_variant: Name | None = None
    target_model: Name | None = Field(None, description="Of a multi-model endpoint.")
    stream: bool = Field(True, description="Whether generated text is streamed by the container.")
    asynchronous: AsyncInvocation | None = Field(None, alias="async")
    timeout_s: float = Field(60.0, gt=0, le=3_600, description="Between two signs of life of the endpoint.")
    concurrency: int = Field(8, ge=1, le=256, description="Calls of one batch at once.")


Module = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$", max_length=200)
]


class HuggingFaceOptions(Options):
    """Of a model that transformers or diffusers computes."""

    code: list[Module] = Field(
        [],
        max_length=20,
        description="Python modules that register the model's class with the Auto classes. Imported by the "
        "worker from where Python finds modules; never from a model's files.",
    )
    voices: Name | None = Field(
        None, description="Of SpeechT5: a safetensors file with a speaker's vector for each voice's name."
    )
    vocoder: Name = Field("microsoft/speecht5_hifigan", description="Of SpeechT5: a source, as the model's.")


class PiperOptions(Options):
    """Of a Piper voice: there are none."""


class TFLiteOptions(Options):
    """Of a TensorFlow Lite graph. What is not given is read from the file, or guessed by its shapes."""

    file: Name | None = Field(None, description="Which one, if the folder or package has several.")
    labels: list[str] | Name | None = Field(
        None, description="In the order of the classes, or a text file with one a line. Default: the file's."
    )
    threads: int | None = Field(None, ge=1, le=256)
    mean: float | list[float] | None = Field(
        None, description="A pixel is (value of 0 to 255 - mean) / std, per channel. Default: 127.5."
    )
    std: float | list[float] | None = Field(None, description="Default: 127.5.")
    resize: Literal["stretch", "crop", "letterbox"] | None = Field(
        None, description="How an image becomes as large as the input. Default: by the task."
    )
    activation: Literal["none", "softmax", "sigmoid"] = Field(
        "none", description="Over the scores, of graphs that give them raw."
    )
    detector: Literal["ssd", "blazeface"] | None = Field(None, description="Default: by the outputs.")
    strides: list[int] | None = Field(None, description="Of BlazeFace's anchors, one a layer.")
    overlap: float = Field(0.3, gt=0, lt=1, description="From which two boxes are of one face.")
    sample_rate: int = Field(16_000, ge=1_000, le=192_000)
    hop: float = Field(1.0, gt=0, le=1, description="Windows of sounds begin so many windows apart.")
    pooling: Literal["mean", "max"] = Field("mean", description="Of the scores of a sound's windows.")

    @model_validator(mode="after")
    def _divisible(self) -> TFLiteOptions:
        std = self.std if isinstance(self.std, list) else [self.std]
        if any(one is not None and one <= 0 for one in std):
            raise ValueError("std has to be more than 0")
        if self.strides is not None and (not self.strides or min(self.strides) < 1):
            raise ValueError("strides have to be 1 or more")
        return self


SomeOptions = TypeVar("SomeOptions", bound=Options)

Typed = OpenAIOptions | SageMakerOptions | HuggingFaceOptions | PiperOptions | TFLiteOptions


_ALL = frozenset(MODEL_TASKS)
_TALKS = frozenset({Task.CONVERSATIONAL, Task.TEXT_GENERATION})
TASKS: Mapping[Provider, frozenset[Task]] = {
    "huggingface": _ALL - {Task.TENSORS},
    "openai": _TALKS
    | {
        Task.FEATURE_EXTRACTION,
        Task.SENTENCE_SIMILARITY,
        Task.AUTOMATIC_SPEECH_RECOGNITION,
        Task.TEXT_TO_SPEECH,
        Task.TEXT_TO_IMAGE,
    },
    "sagemaker": _ALL - {Task.TENSORS},
    "tflite": frozenset(
        {Task.IMAGE_CLASSIFICATION, Task.OBJECT_DETECTION, Task.AUDIO_CLASSIFICATION, Task.TENSORS}
    ),
    "piper": frozenset({Task.TEXT_TO_SPEECH}),
    "scripted": _ALL,
    "index": frozenset(),
}
"""What a model of each provider can be for."""


def check_task(spec: ModelWish) -> None:
    """Raises `WrongTask` if no model of the provider is for the task."""
    able = TASKS[spec.provider]
    if spec.task not in able:
        known = ", ".join(task.value for task in Task if task in able)
        raise WrongTask(
            f"No model of the provider {spec.provider!r} is for {spec.task.value}, but for: {known}.",
            pointer="/task",
        )


def options_of(spec: ModelWish) -> Typed | None:
    """The typed options of a spec; None for a provider whose options are not stated here.

    Raises:
        Invalid: an option is unknown or wrong; the pointer says which (`/options/…`).
    """
    match spec.provider:
        case "openai":
            return read_options(OpenAIOptions, spec)
        case "sagemaker":
            return read_options(SageMakerOptions, spec)
        case "huggingface":
            return read_options(HuggingFaceOptions, spec)
        case "piper":
            return read_options(PiperOptions, spec)
        case "tflite":
            return read_options(TFLiteOptions, spec)
        case _:
            return None


def read_options(kind: type[SomeOptions], spec: ModelWish) -> SomeOptions:
    """`spec.options` as `kind`. Raises as `options_of` does."""
    try:
        return kind.model_validate(spec.options)
    except ValidationError as error:
        # What was given is not quoted: somebody may have put a secret where its reference belongs.
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        # A union's branch has a name in the path that is in no JSON.
        where = [str(part) for part in first["loc"] if not _is_branch(part)]
        pointer = "/".join(["/options", *(part.replace("~", "~0").replace("/", "~1") for part in where)])
        why = "no option of this provider" if first["type"] == "extra_forbidden" else first["msg"]
        raise Invalid(
            f"provider {spec.provider!r}, option {'.'.join(where) or 'as a whole'}: {why}", pointer=pointer
        ) from None


def _is_branch(part: int | str) -> bool:
    return isinstance(part, str) and ("[" in part or part in ("float", "str", "constrained-str"))
