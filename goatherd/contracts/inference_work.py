"""What crosses between whoever asks models and the workers that have them: the activity `infer`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from goatherd.contracts.inference import Bounds, Finish, ModelName, ModelSpec, Token
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.model import Contract, Json, Timestamp

INFER = "infer"
"""The activity's name, for those that start it without knowing it."""


class WorkItem(Contract):
    """One input, in the JSON form of its task's input type, with its own parameters."""

    inputs: Any
    parameters: Json = {}
    caller: str = Field("", description="Whose it is: callers take turns.")


class InferOrder(Contract):
    """Inputs for one model and task, of any callers.

    `spec` is the model as the asker knows it: a worker that knows another one of that name loads this one.
    `stream`, if given, names what the pieces are published under while the only item's text is made.
    """

    model: str
    task: Task
    items: list[WorkItem]
    spec: ModelSpec
    owner: str = Field("", description="Whose the large files of this order and its answer are.")
    stream: str | None = None
    deadline: float | None = Field(
        None, description="Seconds since 1970: what has not begun then is not begun any more."
    )


class Problem(Contract):
    """Why one item has no output. `code` is an error of ours (`goatherd.errors`)."""

    code: str
    message: str
    pointer: str | None = None
    retry_after_s: float | None = None


class TextUsage(Contract):
    """Counts of an item, where the model counts."""

    input_tokens: int = 0
    output_tokens: int = 0


class Outcome(Contract):
    """Of one item: `output` in the JSON form of its task's output type, or a problem."""

    output: Any = None
    problem: Problem | None = None
    usage: TextUsage | None = None
    finish: Finish | None = Field(None, description="Of generated text.")
    tokens: list[Token] | None = Field(None, description="Of generated text, if details were asked for.")
    passed_on: Json | None = Field(None, description="What a provider gave besides, as it gave it.")


class InferAnswer(Contract):
    """One outcome for each item, in their order."""

    outcomes: list[Outcome]
    worker: str = ""
    batch: int = Field(0, description="Inputs of the largest batch that one of these was computed in.")


class Piece(Contract):
    """Text of a stream while it is made: piece `n` begins at character `offset`."""

    stream: str
    n: int
    offset: int
    text: str
    tokens: list[Token] | None = None
    passed_on: Json | None = None


LOAD_MODEL = "load_model"
UNLOAD_MODEL = "unload_model"
"""Activities of one worker, on the queue that only it polls."""


class LoadModel(Contract):
    model: str
    spec: ModelSpec


class UnloadModel(Contract):
    model: str


class Standing(Contract):
    """Of a model in one worker."""

    state: Literal["unloaded", "loading", "ready", "failed"]
    detail: str = ""


class ModelEntry(Contract):
    """A model under its public name, and where the name comes from. One that was posted always has bounds."""

    name: ModelName
    origin: Literal["settings", "file", "posted"] = "posted"
    spec: ModelSpec
    owner: str = ""
    created_at: Timestamp | None = None

    @field_validator("spec")
    @classmethod
    def _bounded(cls, spec: ModelSpec, info: ValidationInfo) -> ModelSpec:
        if info.data.get("origin", "posted") != "posted" or spec.bounds is not None:
            return spec
        return spec.model_copy(update={"bounds": Bounds()})
