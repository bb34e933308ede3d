"""What a task's actor is started with, asked and answers; and what it has done by activities.

The caller who sets `flusher` writes the events of his answer to the store; `acks` says which earlier ones are
there by now. What nobody has confirmed after a while the actor writes itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field

from goatherd.contracts.model import Contract, Json, Timestamp
from goatherd.contracts.request import Request
from goatherd.contracts.task import (
    AssignmentId,
    Capability,
    Events,
    Failure,
    LeaseSeconds,
    Priority,
    SubtaskId,
    SubtaskSpec,
    Task,
    TaskSettings,
    TaskSummary,
    Worker,
)

Range = tuple[int, int]
"""First and last of the numbers of events that are in the store."""


def ranges(numbers: Iterable[int]) -> list[Range]:
    """Numbers, in whatever order and however often, as the ranges that they fill."""
    found: list[Range] = []
    for number in sorted(numbers):
        if found and number <= found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


class Asked(Contract):
    flusher: bool = Field(False, description="The caller writes the answer's events to the store.")
    acks: list[Range] = Field([], description="Events that are in the store.")


class Changed(Contract):
    """Answer of all. `events`: what this request has done; none if it had been done before."""

    events: Events = []
    task: TaskSummary


class Place(Contract):
    """What the actor has to know of a new subtask; the rest of it is in the store under the batch's id.

    `depends_on`: numbers of other subtasks; below 1, one of the same request: 0 is its first, -1 its second.
    """

    priority: Priority | None = None
    requires: list[Capability] = []
    depends_on: list[int] = []


class Added(Changed):
    """Numbers `first` to `first + count - 1` are the new subtasks', in their order. `blocked`: of those, the
    ones that wait for others; `cancelled`: those whose dependency has failed already."""

    first: int
    count: int
    seq: int = Field(description="Of `subtasks.created`: the first version of each.")
    created_at: Timestamp
    blocked: list[int] = []
    cancelled: list[int] = []


class AddSubtasks(Asked, Request[Added]):
    """Update of the same name: adds all or none.

    Either `subtasks` in whole, which then travel through the actor; or, when they are large, `batch`: they
    are in the store under this id, and `places` say what the actor has to know (fewer than `count`: the
    others have none of it). The same `id` (or batch) again adds nothing.
    """

    id: str | None = None
    subtasks: list[SubtaskSpec] = Field([], max_length=1_000)
    batch: str | None = None
    count: int = Field(0, ge=0, le=10_000)
    places: list[Place] = Field([], max_length=10_000)


class Leased(Contract):
    """An assignment, without what the store knows of the subtask. `info_version`: the newest of that."""

    id: AssignmentId
    subtask: SubtaskId
    lease_token: str
    fence: int
    expires_at: Timestamp
    attempt: int
    info_version: int
    checkpoint: Any = None


class Taken(Changed):
    """`available`: subtasks that somebody could take now. `retry_at`: when more may come by themselves (a
    backoff or a lease ends), if nothing else happens."""

    assignments: list[Leased] = []
    available: int = 0
    retry_at: Timestamp | None = None


class TakeSubtasks(Asked, Request[Taken]):
    """Update of the same name. The same `id` again gives the leases of the first time that are still held."""

    worker: Worker
    capabilities: list[Capability] = Field([], max_length=256)
    max: int = Field(1, ge=1, le=100)
    lease_s: LeaseSeconds | None = None
    id: str | None = None


class Reported(Changed):
    """What became of a report; the same again gives the same. `status`: of the subtask, right after it."""

    subtask: SubtaskId
    status: str
    assignment: AssignmentId | None = None
    attempt: int = 0
    outcome: str | None = None


class ReportStatus(Asked, Request[Reported]):
    """Update of the same name.

    With a token, the holder's: `completed`, `failed`, `leased` (progress and checkpoint only), `pending`
    (gives it back, which costs no attempt), `cancelled` (gives up for good). Without, the owner's:
    `cancelled`, or `pending` for one that is failed, dead or cancelled. `stored`: the store has the answer
    already.
    """

    subtask: SubtaskId
    status: Literal["completed", "failed", "leased", "pending", "cancelled"]
    lease_token: str | None = None
    result: Any = None
    stored: bool = False
    digest: str | None = Field(None, description="Of the result: equal results have equal ones.")
    error: Failure | None = None
    retryable: bool = True
    retry_after_s: float | None = Field(None, ge=0, le=604_800)
    progress: float | None = Field(None, ge=0, le=1)
    checkpoint: Any = None


class Beaten(Changed):
    """What a holder has to know."""

    expires_at: Timestamp
    cancel_requested: bool = False
    paused: bool = False
    deadline: Timestamp | None = None


class Heartbeat(Asked, Request[Beaten]):
    """Update of the same name: extends a lease to `extend_s` (default: the lease's own length) from now."""

    subtask: SubtaskId
    lease_token: str
    extend_s: LeaseSeconds | None = None
    progress: float | None = Field(None, ge=0, le=1)
    checkpoint: Any = None


class UpdateSubtask(Asked, Request[Changed]):
    """Update of the same name: only what is given changes. `info`: what the actor only passes on (`title`,
    `labels`, `input`)."""

    subtask: SubtaskId
    priority: Priority | None = None
    requires: list[Capability] | None = None
    info: Json = {}
    info_version: int | None = Field(None, description="It has to be this one, or nothing is changed.")


class PauseTask(Asked, Request[Changed]):
    """Update of the same name: nothing is given out until `ResumeTask`. Leases go on."""


class ResumeTask(Asked, Request[Changed]):
    """Update of the same name."""


class Requeued(Changed):
    requeued: int


class RequeueSubtasks(Asked, Request[Requeued]):
    """Update of the same name: dead (and failed, …) subtasks are pending again, with all their attempts.
    Those cancelled because of them wait for them again."""

    statuses: list[Literal["dead", "failed", "cancelled"]] = ["dead"]
    subtasks: list[SubtaskId] | None = Field(None, description="Only these. None: all.")


class CancelTask(Asked, Request[Changed]):
    """Update of the same name: what nobody holds is cancelled; when no lease is left, the task closes."""

    reason: str = "deleted"


class StartTask(TaskSettings):
    """Input of the workflow `Task`. By hand, `{}` will do. `first`: its first subtasks."""

    owner: str = "local"
    created_at: Timestamp | None = None
    first: AddSubtasks | None = None
    stored: bool = Field(False, description="Whether the caller writes the task to the store.")
    task_queue_prefix: str = "goatherd"
    asks_per_run: int = Field(1_000, ge=1, le=1_500)

    def document(self, task_id: str, *, now: Timestamp) -> Task:
        settings = {name: getattr(self, name) for name in TaskSettings.model_fields}
        created = self.created_at or now
        return Task(id=task_id, owner=self.owner, created_at=created, updated_at=created, **settings)


class TaskView(Contract):
    """Query `Task`: the actor as it is now."""

    id: str
    summary: TaskSummary
    paused: bool
    leases: int
    available: int
    unflushed: int
    next_deadline: Timestamp | None


class TaskOutcome(Contract):
    """Result of the workflow `Task`."""

    status: str
    reason: str | None
    counts: Json


# -- activities -------------------------------------------------------------------------------------------


class FlushTask(Contract):
    """Writes to the store what it may not have yet. `task`: the document, if nobody has written it."""

    task: Task | None = None
    id: str
    events: Events = []
    summary: TaskSummary


class TaskFlushed(Contract):
    pass


class TellCallback(Contract):
    """Tells the task's callback how the task ended. `id` is the same for each attempt."""

    id: str
    url: str
    task: str
    owner: str
    type: str
    ts: Timestamp
    data: Json


class CallbackTold(Contract):
    """`again`: what went wrong may pass; `retry_after_s`: after so long, the other side says."""

    status: int | None = None
    error: str | None = None
    again: bool = False
    retry_after_s: float | None = None
