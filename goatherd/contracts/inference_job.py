"""Jobs: what models are asked for durably. A job outlives every process, and is read when it is done."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.inference_work import Outcome, Problem, WorkItem
from goatherd.contracts.model import Contract, Json, Timestamp

JOB_WORKFLOW = "InferenceJob"

JobStatus = Literal["queued", "running", "completed", "failed", "cancelled"]
ENDED: frozenset[str] = frozenset({"completed", "failed", "cancelled"})


def attempt_id(job: str, attempt: int) -> str:
    """The id of the workflow that does an attempt: each has one of its own, so that none is taken for
    another."""
    return job if attempt == 1 else f"{job}-{attempt}"


def of_attempt(workflow: str) -> tuple[str, int]:
    """The job and the attempt that a workflow's id stands for."""
    job, _, attempt = workflow.partition("-")
    return job, int(attempt) if attempt.isdigit() else 1


class JobProgress(Contract):
    """In inputs. `done` counts those with an outcome, `failed` those of them that have a problem."""

    total: int
    done: int = 0
    failed: int = 0


class Job(Contract):
    """A job as it is read. `attempt` counts from 1; a retry computes what has no output yet."""

    id: str
    owner: str
    model: str
    task: Task
    status: JobStatus = "queued"
    attempt: int = 1
    progress: JobProgress
    created_at: Timestamp
    begun_at: Timestamp | None = Field(
        None, description="When the latest attempt was asked for, if a later one."
    )
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    error: Problem | None = Field(
        None, description="Of a job that failed as a whole; of one that has not ended, what it waits for."
    )
    metadata: Json = {}


class JobPlan(Contract):
    """A job as it is kept: with how its answer is to be written, and in how many parts it is done."""

    job: Job
    spec: ModelSpec
    parts: int
    many: bool = Field(description="Whether a list was asked for.")
    parameters: Json = {}
    base64: bool = False
    timeout_s: float = 86_400.0


class JobPart(Contract):
    """Some of a job's inputs, in their order; the part's number says which."""

    job: str
    n: int
    items: list[WorkItem]


class PartOutcomes(Contract):
    """What there is of a part, in the order of its items, as of an attempt."""

    job: str
    n: int
    outcomes: list[Outcome]
    attempt: int = 1


class StartJob(Contract):
    """What a job's workflow is started with."""

    job: str
    model: str
    task: Task
    spec: ModelSpec
    owner: str
    attempt: int
    parts: list[int] = Field(description="The numbers of those to compute.")
    timeout_s: float
    task_queue_prefix: str = "goatherd"


class ComputePart(Contract):
    """One part, for a worker that serves models."""

    job: str
    n: int
    attempt: int
    model: str
    task: Task
    spec: ModelSpec


class SettleJob(Contract):
    """How an attempt ended."""

    job: str
    attempt: int
    status: JobStatus
    error: Problem | None = None


class JobEnd(Contract):
    """A job's workflow's result."""

    status: JobStatus
    reason: str | None = None
