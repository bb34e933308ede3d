"""Models as requests have them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from api.task_json import AnyJson
from goatherd.contracts.inference import ModelName, ModelWish


class RegisterModel(ModelWish):
    """A model under a public name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ModelName = Field(description="What it is asked for by.", examples=["all-minilm-l6-v2"])
    parameters: dict[str, AnyJson] = Field({}, description="Defaults of the task's parameters.")
    options: dict[str, AnyJson] = Field({}, description="What only its provider knows: see docs/models.md.")


class LoadQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    wait_s: float = Field(0.0, ge=0, le=30, description="How long the answer may wait for it to be loaded.")
