"""Jobs as requests and answers have them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.hf_inputs import ModelCall
from api.pages import ListQuery, cursor_like
from api.schemas import List
from api.task_json import AnyJson
from goatherd.contracts.ids import JOB_ID
from goatherd.contracts.inference import ModelName
from goatherd.contracts.inference_job import Job, JobStatus
from goatherd.contracts.inference_tasks import Task

MOST_METADATA_BYTES = 16_384
LONGEST_S = 7 * 86_400.0
DEFAULT_TIMEOUT_S = 86_400.0


class CreateJob(ModelCall):
    """What a model is to compute. `inputs` and `parameters` are as at the model's own address."""

    model: ModelName = Field(description="The model's name.", examples=["tiny"])
    task: Task | None = Field(None, description="Default: what the model is registered for.")
    metadata: dict[str, AnyJson] = Field({}, description="Yours: given back as it is, up to 16 KiB.")
    timeout_s: float = Field(
        DEFAULT_TIMEOUT_S, ge=1, le=LONGEST_S, description="The job fails if it is not done by then."
    )


class FileQuery(BaseModel):
    """Of a job whose input is the body itself: an image or a sound."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelName | None = Field(None, description="The model's name, if the body is no JSON.")
    task: Task | None = Field(None, description="One of its tasks, if the body is no JSON.")


class JobQuery(ListQuery):
    after: str | None = Field(
        None, description="Those after the one with this id.", json_schema_extra=cursor_like(JOB_ID)
    )
    before: str | None = Field(
        None,
        description="Those right before the one with this id. Not together with `after`.",
        json_schema_extra=cursor_like(JOB_ID),
    )
    order: Literal["asc", "desc"] = Field("desc", description="By when they were made; newest first.")
    status: JobStatus | None = Field(None, description="Only those with this status.")
    model: str | None = Field(None, max_length=200, description="Only those of this model.")


class WaitQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    wait_s: float = Field(0.0, ge=0, le=30, description="How long the answer may wait for the job's end.")


class ResultQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    partial: bool = Field(
        False,
        description="Also of a job that has not all of its outcomes: what has none has the error "
        "`not-computed`.",
    )


class JobList(List[Job]):
    """Jobs."""
