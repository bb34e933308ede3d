"""Bodies of requests and answers about tasks, as HTTP clients see them. What is stored is in
`goatherd.contracts.task`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AnyHttpUrl, AwareDatetime, BaseModel, BeforeValidator, Field, RootModel

from api.errors import WEBHOOK_SECRET
from api.schemas import Body, _whole
from api.task_json import AnyJson, at_most
from goatherd.contracts.model import Timestamp
from goatherd.contracts.task import (
    Answer,
    Assignment,
    AssignmentId,
    Backoff,
    Capability,
    Counts,
    Failure,
    Key,
    Label,
    LeaseRecord,
    LeaseSeconds,
    Priority,
    SubtaskId,
    SubtaskStatus,
    Task,
    TaskId,
    TaskStatus,
    Verdict,
    Worker,
)

MAX_WAIT_S = 30
MAX_TAKE = 100
MAX_AT_ONCE = 10_000
MAX_CHECKPOINT = 65_536
MAX_ERROR = 16_384

WholePriority = Annotated[Priority, BeforeValidator(_whole)]
Attempts = Annotated[int, Field(ge=1, le=1_000), BeforeValidator(_whole)]
Overlap = Annotated[int, Field(ge=1, le=100), BeforeValidator(_whole)]
Most = Annotated[int, Field(ge=1, le=MAX_TAKE), BeforeValidator(_whole)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Checkpoint = Annotated[AnyJson, at_most(MAX_CHECKPOINT, "a checkpoint")]
Token = Annotated[str, Field(min_length=1, max_length=128)]
Title = Annotated[str, Field(min_length=1, max_length=500)]


class SubtaskBody(Body):
    """A new subtask. All is optional."""

    title: Title | None = None
    input: AnyJson = Field(None, description="Any JSON, for whoever takes it.")
    labels: list[Label] = Field([], max_length=32)
    priority: WholePriority | None = Field(None, description="1 comes first. Default: the task's.")
    requires: list[Capability] = Field([], max_length=32, description="Only who has all of them gets it.")
    depends_on: list[SubtaskId | Key] = Field(
        [], max_length=1_000, description="It waits for these: ids, or `key`s of the same request."
    )
    key: Key | None = Field(None, description="A name for `depends_on` of others in the same request.")


class SubtaskBodies(RootModel[Annotated[list[SubtaskBody], Field(min_length=1, max_length=MAX_AT_ONCE)]]):
    """Several, which are added together or not at all."""


class BackoffBody(Backoff):
    """How long a subtask waits after its nth failed attempt: `min(max_s, initial_s * factor ** (n - 1))`."""

    model_config = Body.model_config


class CallbackBody(Body):
    """Where the end of the task is told."""

    url: AnyHttpUrl
    secret: str | None = Field(
        None,
        pattern=WEBHOOK_SECRET,
        description="What the callback is signed with (Standard Webhooks): base64, with `whsec_` before it or"
        " not. Default: one is made, and shown once.",
    )


class CreateTask(Body):
    """A new task. All is optional."""

    title: Title = "Task"
    input: AnyJson = Field(None, description="Any JSON, for whoever works on the subtasks.")
    priority: WholePriority = Field(3, description="Of subtasks that have none. 1 comes first.")
    deadline: AwareDatetime | None = Field(None, description="Then all that is not done is cancelled.")
    labels: list[Label] = Field([], max_length=32, description="To find tasks by: `GET /task?label=`.")
    lease_s: LeaseSeconds = Field(60.0, description="How long an assignment lasts without a heartbeat.")
    max_attempts: Attempts = Field(3, description="Then a subtask that fails is `dead`.")
    backoff: BackoffBody = BackoffBody()
    overlap: Overlap = Field(1, description="So many different workers answer each subtask.")
    consensus: Literal["none", "majority", "all"] = Field(
        "none", description="Which answers to a subtask have to be equal for it to have a result."
    )
    linger_s: float = Field(
        86_400.0,
        ge=0,
        le=31_536_000,
        allow_inf_nan=False,
        description="So long a completed task takes more subtasks.",
    )
    callback: CallbackBody | None = None
    subtasks: list[SubtaskBody] = Field([], max_length=MAX_AT_ONCE, description="Its first.")


class TakeBody(Body):
    """Who wants work, how much, and how long to wait for it."""

    worker: Worker = Field(description="Who it is for. With overlap, none gets the same subtask twice.")
    capabilities: list[Capability] = Field([], max_length=256)
    max: Most = Field(1, description="At most so many.")
    lease_s: LeaseSeconds | None = Field(None, description="Default: the task's.")
    wait_s: float = Field(
        0, ge=0, le=MAX_WAIT_S, allow_inf_nan=False, description="If there is nothing, wait so long for it."
    )


class ReportBody(Body):
    """What became of a subtask."""

    status: Literal["completed", "failed", "leased", "pending", "cancelled"] = Field(
        description="With a token: `completed`, `failed`, `leased` (only progress and checkpoint), `pending` "
        "(gives it back) or `cancelled` (gives up for good). Without: `cancelled`, or `pending` for one that "
        "is done without success."
    )
    lease_token: Token | None = Field(None, description="Of the assignment.")
    result: AnyJson = None
    error: Annotated[FailureBody, at_most(MAX_ERROR, "an error")] | None = None
    retryable: bool = Field(True, description="Whether a failed one is tried again.")
    retry_after_s: float | None = Field(
        None, ge=0, le=604_800, allow_inf_nan=False, description="Default: the task's backoff."
    )
    progress: Fraction | None = None
    checkpoint: Checkpoint = Field(None, description="What the next one who takes it is given.")


class FailureBody(Failure):
    """Why it failed."""

    model_config = Body.model_config

    details: Annotated[AnyJson, at_most(MAX_ERROR, "details")] = None


class HeartbeatBody(Body):
    """That the holder of a lease is alive."""

    lease_token: Token
    extend_s: LeaseSeconds | None = Field(
        None, description="The lease lasts so long from now. Default: as long as at first."
    )
    progress: Fraction | None = None
    checkpoint: Checkpoint = Field(None, description="What the next one who takes it is given.")


class ReleaseBody(Body):
    """Which lease ends."""

    lease_token: Token


class UpdateSubtaskBody(Body):
    """What is to change: only what is given."""

    title: Title | None = None
    input: AnyJson = None
    labels: list[Label] | None = Field(None, max_length=32)
    priority: WholePriority | None = None
    requires: list[Capability] | None = Field(None, max_length=32)


class PauseBody(Body):
    """Nothing: which task it is, the path says."""


class ResumeBody(Body):
    """Nothing: which task it is, the path says."""


class RequeueBody(Body):
    """Which subtasks are to be done after all."""

    statuses: list[Literal["dead", "failed", "cancelled"]] = Field(
        ["dead"], min_length=1, max_length=3, description="Those that are one of these now."
    )
    subtasks: list[SubtaskId] | None = Field(None, max_length=1_000, description="Only these. Default: all.")


class Progress(BaseModel):
    """How much of a task is done, one way or another."""

    done: int
    total: int
    fraction: float = Field(ge=0, le=1)


class TaskDocument(Task):
    """A task, and how far it is."""

    progress: Progress


class CallbackWithSecret(BaseModel):
    """Where the end of the task is told, and what that is signed with. Shown once."""

    url: str
    secret: str


class CreatedTask(TaskDocument):
    """A task that was made."""

    callback: CallbackWithSecret | None = None  # type: ignore[assignment]


class TaskBrief(BaseModel):
    """A task in an answer that is about something else."""

    id: TaskId
    status: TaskStatus
    counts: Counts


class Assignments(BaseModel):
    """What was taken; empty if there is nothing."""

    assignments: list[Assignment]
    task: TaskBrief


class SubtaskDocument(BaseModel):
    """A subtask: what is said of it, and how it stands."""

    object: Literal["subtask"] = "subtask"
    id: SubtaskId
    task: TaskId
    number: int
    key: str | None
    title: str | None
    input: Any
    labels: list[Label]
    priority: Priority
    requires: list[Capability]
    depends_on: list[SubtaskId]
    status: SubtaskStatus
    attempts: int = Field(description="Of those that failed or ran out. A released lease is none.")
    assignees: list[Worker] = Field(description="Who has it now.")
    waits_for: int = Field(description="Subtasks that it depends on and that are not done.")
    not_before: Timestamp | None
    progress: float | None
    error: Failure | None
    reason: str | None = Field(description="Why it was cancelled or is dead.")
    result: Any = Field(description="Of one that is completed; with overlap, the verdict's.")
    verdict: Verdict | None
    answers: list[Answer] | None = Field(description="With overlap, all of them, once it is done.")
    leases: list[LeaseRecord] = Field(description="Oldest first; of a subtask that is not done, the last 20.")
    info_version: int
    version: int = Field(description="The `seq` of its last event.")
    created_at: Timestamp
    updated_at: Timestamp


class CreatedSubtask(BaseModel):
    """One of several that were added."""

    object: Literal["subtask"] = "subtask"
    id: SubtaskId
    task: TaskId
    number: int
    key: str | None
    status: SubtaskStatus
    created_at: Timestamp


class CreatedSubtasks(BaseModel):
    """Those that were added, in their order."""

    object: Literal["list"] = "list"
    data: list[CreatedSubtask]
    has_more: bool = False
    first_id: str | None
    last_id: str | None


class Report(BaseModel):
    """What became of a report; the same again gives the same."""

    object: Literal["subtask.report"] = "subtask.report"
    subtask: SubtaskId
    task: TaskId
    status: SubtaskStatus = Field(description="Of the subtask, right after it.")
    assignment: AssignmentId | None
    attempt: int
    outcome: str | None = Field(description="How the lease ended; null if it goes on.")


class Beat(BaseModel):
    """What a holder has to know."""

    object: Literal["subtask.heartbeat"] = "subtask.heartbeat"
    subtask: SubtaskId
    expires_at: Timestamp
    cancel_requested: bool = Field(description="Stop: the task is cancelled, and your lease is over.")
    paused: bool = Field(description="Nothing is given out now. What you have you may finish.")
    deadline: Timestamp | None


class RequeuedSubtasks(BaseModel):
    """How many are to be done again."""

    requeued: int
    task: TaskBrief


class WorkerNumbers(BaseModel):
    leased: int
    completed: int
    failed: int


class TaskNumbers(BaseModel):
    """Who does what, and what waits longest."""

    object: Literal["task.stats"] = "task.stats"
    task: TaskId
    status: TaskStatus
    counts: Counts
    progress: Progress
    workers: dict[str, WorkerNumbers] = Field(description="By name: what they hold and have reported.")
    oldest: dict[str, Timestamp] = Field(description="By status: since when the oldest one is there.")


class TaskList(BaseModel):
    """A part of the list. Go on with `after` set to `last_id` while `has_more` is true."""

    object: Literal["list"] = "list"
    data: list[TaskDocument]
    has_more: bool
    first_id: str | None
    last_id: str | None


class SubtaskList(BaseModel):
    """A part of the list. Go on with `after` set to `last_id` while `has_more` is true."""

    object: Literal["list"] = "list"
    data: list[SubtaskDocument]
    has_more: bool
    first_id: str | None
    last_id: str | None


BODIES: tuple[type[BaseModel], ...] = (
    CreateTask,
    HeartbeatBody,
    PauseBody,
    ReleaseBody,
    ReportBody,
    RequeueBody,
    ResumeBody,
    SubtaskBodies,
    SubtaskBody,
    TakeBody,
    UpdateSubtaskBody,
)
"""Those that routes read themselves, for the OpenAPI document."""
