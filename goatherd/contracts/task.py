"""Tasks as clients see them and the store keeps them. What their actor is asked is in `task_messages`.

A task is a bag of subtasks. A worker takes some: each assignment is a lease with a token, which fences all
that is written under it. One durable sequence (`seq`) runs through a task: every event has the next number.
An event about a subtask carries the whole of how it stands (`SubtaskState`), so that whoever applies events
to documents keeps the newest and needs no order.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AnyHttpUrl, Field, PlainSerializer, model_validator

from goatherd.contracts.ids import ASSIGNMENT_ID, SUBTASK_ID, TASK_ID, assignment_id, subtask_number
from goatherd.contracts.model import Contract, Json, Timestamp

TaskId = Annotated[str, Field(pattern=TASK_ID, examples=["task_01k9w2x6hj3v8m5r7t0q4n1b2c"])]
SubtaskId = Annotated[str, Field(pattern=SUBTASK_ID, examples=["sub_01k9w2x6hj3v8m5r7t00000001"])]
AssignmentId = Annotated[str, Field(pattern=ASSIGNMENT_ID)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}$")]
Capability = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/+-]{0,63}$", examples=["gpu", "lang:de"])
]
Worker = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[!-~]+$", examples=["annotator-7"])]
Priority = Annotated[int, Field(ge=1, le=5, description="1 comes first.")]
LeaseSeconds = Annotated[float, Field(ge=1, le=604_800, allow_inf_nan=False)]
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$")]

DEFAULT_PRIORITY = 3
MOST_LEASES_SHOWN = 20
"""Of a subtask that is not done, in its document. The events have all."""


class TaskStatus(StrEnum):
    """`pending`: nobody has begun. `cancelling`: waits for leases to end. The last three are closed: they
    take no more subtasks. `completed` and `failed` follow from the subtasks, and more of these change them
    until the task is closed (`closed_at`)."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class SubtaskStatus(StrEnum):
    """`blocked → pending → leased → completed | failed | cancelled | dead`. With overlap, `leased` is one
    that somebody has, also if there is room for others."""

    BLOCKED = "blocked"
    PENDING = "pending"
    LEASED = "leased"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"


OPEN = (SubtaskStatus.BLOCKED, SubtaskStatus.PENDING, SubtaskStatus.LEASED)
CLOSED = (SubtaskStatus.COMPLETED, SubtaskStatus.FAILED, SubtaskStatus.CANCELLED, SubtaskStatus.DEAD)
OUTCOMES = {"completed": "completed", "failed": "failed", "pending": "released", "cancelled": "cancelled"}
"""How a lease has ended whose holder reports a status."""


class Backoff(Contract):
    """How long a subtask waits after its nth failed attempt: `min(max_s, initial_s * factor ** (n - 1))`."""

    initial_s: float = Field(1.0, ge=0, le=86_400, allow_inf_nan=False)
    factor: float = Field(2.0, ge=1, le=10, allow_inf_nan=False)
    max_s: float = Field(300.0, ge=0, le=604_800, allow_inf_nan=False)

    def after(self, failures: int) -> float:
        # Beyond 60 doublings any maximum is reached, and floats end.
        return min(self.max_s, self.initial_s * self.factor ** min(failures - 1, 60))


class Callback(Contract):
    """Where the end of a task is told. Its secret is kept apart, and never shown again."""

    url: AnyHttpUrl


class Counts(Contract):
    """Subtasks by status."""

    blocked: int = 0
    pending: int = 0
    leased: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    dead: int = 0

    @property
    def total(self) -> int:
        return self.unfinished + self.completed + self.failed + self.cancelled + self.dead

    @property
    def unfinished(self) -> int:
        return self.blocked + self.pending + self.leased


def _some(counts: Counts) -> dict[str, int]:
    return {name: count for name, count in counts if count}


class TaskSummary(Contract):
    """How a task stands; `version` is the `seq` of its last event."""

    version: int
    status: TaskStatus
    counts: Annotated[Counts, PlainSerializer(_some, return_type=dict[str, int], when_used="json")]
    reason: str | None = Field(None, description="Why it was closed: `deleted`, `deadline`, `terminated` …")
    ended_at: Timestamp | None = Field(None, description="When its last subtask was done, if none is left.")
    closed_at: Timestamp | None = Field(None, description="Since when it takes nothing any more.")


class TaskSettings(Contract):
    """What a task is made with and keeps."""

    title: str = Field("Task", min_length=1, max_length=500)
    input: Any = Field(None, description="Any JSON, for whoever works on the subtasks.")
    priority: Priority = Field(DEFAULT_PRIORITY, description="Of subtasks that have none. 1 comes first.")
    deadline: Timestamp | None = Field(None, description="Then all that is not done is cancelled.")
    labels: list[Label] = Field([], max_length=32)
    lease_s: LeaseSeconds = 60.0
    max_attempts: int = Field(3, ge=1, le=1_000)
    backoff: Backoff = Backoff()
    overlap: int = Field(1, ge=1, le=100, description="So many different workers answer each subtask.")
    consensus: Literal["none", "majority", "all"] = Field(
        "none", description="Which answers to a subtask have to be equal for it to have a result."
    )
    linger_s: float = Field(
        86_400.0, ge=0, le=31_536_000, description="So long a completed task takes more subtasks."
    )
    callback: Callback | None = None


class Task(TaskSettings):
    """A task as clients see it and the store keeps it."""

    object: Literal["task"] = "task"
    id: TaskId
    owner: str
    status: TaskStatus = TaskStatus.PENDING
    counts: Counts = Counts()
    version: int = 0
    reason: str | None = None
    created_at: Timestamp
    updated_at: Timestamp
    ended_at: Timestamp | None = None
    closed_at: Timestamp | None = None


class LeaseRecord(Contract):
    """One assignment of a subtask to a worker: an entry of its audit."""

    id: AssignmentId
    worker: Worker
    attempt: int
    fence: int = Field(description="Grows with each lease of the task.")
    taken_at: Timestamp
    expires_at: Timestamp
    ended_at: Timestamp | None = None
    outcome: Literal["completed", "failed", "expired", "released", "cancelled"] | None = None


class Failure(Contract):
    """Why a subtask failed, as its worker says it."""

    code: str = Field("error", max_length=128)
    message: str = Field("", max_length=10_000)
    details: Any = None


class Verdict(Contract):
    """What became of several answers to one subtask. `answer`: the assignment whose result counts."""

    rule: Literal["none", "majority", "all"]
    agreed: bool
    votes: int = Field(description="Of equal answers, the most.")
    answers: int
    answer: AssignmentId | None = None


class SubtaskState(Contract):
    """How a subtask stands: all of it that its actor decides. `version` is the `seq` of its last event."""

    id: SubtaskId
    number: int
    version: int
    status: SubtaskStatus
    priority: Priority = DEFAULT_PRIORITY
    attempts: int = Field(0, description="Of those that failed or ran out. A released lease is none.")
    assignees: list[Worker] = Field([], description="Who has it now.")
    leases: list[LeaseRecord] = Field([], description="Oldest first.")
    answers: list[AssignmentId] = Field([], description="The assignments whose results count.")
    waits_for: int = Field(0, description="Subtasks that it depends on and that are not done.")
    not_before: Timestamp | None = None
    progress: float | None = None
    error: Failure | None = None
    reason: str | None = Field(None, description="Why it was cancelled or is dead.")
    verdict: Verdict | None = None
    updated_at: Timestamp


class SubtaskSpec(Contract):
    """A subtask as it is asked for. `depends_on` names ids, or `key`s of the same request."""

    title: str | None = Field(None, max_length=500)
    input: Any = None
    labels: list[Label] = Field([], max_length=32)
    priority: Priority | None = None
    requires: list[Capability] = Field([], max_length=32)
    depends_on: list[SubtaskId | Key] = Field([], max_length=1_000)
    key: Key | None = Field(None, description="A name for `depends_on` of others in the same request.")

    def info(
        self, id: str, *, task: str, number: int, depends_on: list[str], seq: int, at: datetime
    ) -> SubtaskInfo:
        """What `subtasks.created` number `seq` makes of it. `depends_on`: ids."""
        return SubtaskInfo(
            id=id,
            task=task,
            number=number,
            key=self.key,
            title=self.title,
            input=self.input,
            labels=self.labels,
            requires=self.requires,
            depends_on=depends_on,
            info_version=seq,
            created_at=at,
        )


class SubtaskInfo(Contract):
    """What is said of a subtask and does not move it. `info_version` is the `seq` of its last change."""

    id: SubtaskId
    task: TaskId
    number: int
    key: str | None = None
    title: str | None = None
    input: Any = None
    labels: list[Label] = []
    requires: list[Capability] = []
    depends_on: list[SubtaskId] = []
    info_version: int
    created_at: Timestamp


class Answer(Contract):
    """What a worker reported: kept once, under its assignment."""

    id: AssignmentId
    task: TaskId
    subtask: SubtaskId
    worker: Worker
    result: Any = None
    error: Failure | None = None
    at: Timestamp


class Assignment(Contract):
    """What `__take` gives: the right to work on a subtask until `expires_at`."""

    id: AssignmentId
    subtask: SubtaskId
    lease_token: str = Field(description="Goes with everything that is reported. Tell it to nobody.")
    fence: int = Field(description="Grows with each lease of the task: for stores that fence by number.")
    expires_at: Timestamp
    attempt: int = Field(description="1 for the first.")
    title: str | None = None
    input: Any = None
    labels: list[Label] = []
    checkpoint: Any = Field(None, description="What the last one who had it left, by heartbeat or report.")


class TaskEventType(StrEnum):
    TASK_CREATED = "task.created"
    TASK_PAUSED = "task.paused"
    TASK_RESUMED = "task.resumed"
    TASK_COMPLETED = "task.completed"
    TASK_FAILED = "task.failed"
    TASK_REOPENED = "task.reopened"
    TASK_CANCELLING = "task.cancelling"
    TASK_CANCELLED = "task.cancelled"
    TASK_EXPIRED = "task.expired"
    TASK_CLOSED = "task.closed"
    SUBTASKS_CREATED = "subtasks.created"
    SUBTASK_UPDATED = "subtask.updated"
    SUBTASK_UNBLOCKED = "subtask.unblocked"
    SUBTASK_LEASED = "subtask.leased"
    SUBTASK_PROGRESS = "subtask.progress"
    SUBTASK_RELEASED = "subtask.released"
    SUBTASK_EXPIRED = "subtask.expired"
    SUBTASK_RETRYING = "subtask.retrying"
    SUBTASK_REQUEUED = "subtask.requeued"
    SUBTASK_ANSWERED = "subtask.answered"
    SUBTASK_COMPLETED = "subtask.completed"
    SUBTASK_FAILED = "subtask.failed"
    SUBTASK_CANCELLED = "subtask.cancelled"
    SUBTASK_DEAD = "subtask.dead"


ENDINGS = (
    TaskEventType.TASK_COMPLETED,
    TaskEventType.TASK_FAILED,
    TaskEventType.TASK_CANCELLED,
    TaskEventType.TASK_EXPIRED,
)
"""What a callback is told."""


_IN_FULL = frozenset({"seq", "task", "subtask", "ts"})


class TaskEvent(Contract):
    """One entry of a task's durable sequence.

    `state`: of `subtask.…`, how the subtask stands now. `data`, by type: `subtasks.created`
    `{first, count, batch?, ready?, subtasks?}` (`batch`: the store has them under this id; of these, `ready`
    are the numbers of those who depend on others that are done already; `subtasks`: here they are,
    as `SubtaskInfo`); `subtask.updated` `{info}`, what was changed; `subtask.leased`, `.released`,
    `.expired`, `.retrying`, `.answered`, `.completed`, `.failed` `{assignment, worker}`, and `.answered`,
    `.completed`, `.failed`, `.retrying`, `.dead` of a report the `answer`, unless the store has it already:
    an `Answer` without what the event says too;
    `task.…` `{reason?}`. `task.cancelling`, `.cancelled` and `.expired` stand for all subtasks too: whichever
    was blocked or pending before that number is cancelled by it, with its reason; there may be a hundred
    thousand of them.
    """

    v: Literal[1] = 1
    seq: int = Field(ge=1)
    type: TaskEventType
    task: TaskId
    subtask: SubtaskId | None = None
    ts: Timestamp
    state: SubtaskState | None = None
    data: Json = {}

    @model_validator(mode="before")
    @classmethod
    def _with_all_of_its_state(cls, event: Any) -> Any:
        """An actor writes of a state only what does not follow from its event."""
        state = event.get("state") if isinstance(event, dict) else None
        if not isinstance(state, dict) or "id" in state or not event.keys() >= _IN_FULL:
            return event
        task, subtask = event["task"], event["subtask"]
        follows = {
            "id": subtask,
            "number": subtask_number(task, subtask),
            "version": event["seq"],
            "updated_at": event["ts"],
        }
        leases = [{"id": assignment_id(task, one["fence"]), **one} for one in state.get("leases", ())]
        return {**event, "state": {**state, **follows, "leases": leases}}


def _written(events: list[Any]) -> list[Any]:
    return [event if isinstance(event, dict) else event.model_dump(mode="json") for event in events]


Events = Annotated[list[TaskEvent], PlainSerializer(_written, return_type=list[Any])]
"""Events on their way. The actor has them as JSON from the start: to make models of them only for the wire
would be most of its work."""
