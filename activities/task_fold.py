"""What events say of subtasks: the one pure place that knows, for every backend.

Each event that is about a subtask carries the whole of how it stands, so that of several the newest counts;
what is said of a subtask (title, input …) changes field by field, and of each field the newest counts. Some
events of the task (`task.cancelling` …) are about all subtasks that wait: they are kept as sweeps, and laid
over what is read, since there may be a hundred thousand to change. So a subtask follows from a set of
events: in which order, how often and together with which others they came makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from activities.task_ports import Subtask
from goatherd.contracts.ids import subtask_id
from goatherd.contracts.task import (
    DEFAULT_PRIORITY,
    OPEN,
    Answer,
    SubtaskInfo,
    SubtaskSpec,
    SubtaskState,
    SubtaskStatus,
    TaskEvent,
    TaskEventType,
)

WAITING = (SubtaskStatus.BLOCKED, SubtaskStatus.PENDING)
CHANGEABLE = ("title", "input", "labels", "requires", "info_version")
"""Of what is said of a subtask."""

_SWEEPS = (TaskEventType.TASK_CANCELLING, TaskEventType.TASK_CANCELLED, TaskEventType.TASK_EXPIRED)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Cancels what waits and was last changed before `seq`. A final one cancels all that is unfinished, also
    what changes later: whoever changes it does not know that the task is closed."""

    seq: int
    reason: str | None
    at: datetime
    final: bool = False

    def cancels(self, state: SubtaskState) -> bool:
        if self.final:
            return state.status in OPEN
        return state.version < self.seq and state.status in WAITING


def swept(state: SubtaskState, sweeps: Sequence[Sweep]) -> SubtaskState:
    """How a subtask stands after the first sweep that cancels it, if any does."""
    by = min((one for one in sweeps if one.cancels(state)), key=lambda one: one.seq, default=None)
    if by is None:
        return state
    leases = [
        one
        if one.ended_at is not None
        else one.model_copy(update={"ended_at": by.at, "outcome": "cancelled"})
        for one in state.leases
    ]
    return state.model_copy(
        update={
            "status": SubtaskStatus.CANCELLED,
            "version": max(by.seq, state.version),
            "reason": by.reason,
            "updated_at": by.at,
            "not_before": None,
            "assignees": [],
            "leases": leases,
        }
    )


def is_chosen(state: SubtaskState, status: str | None, assignee: str | None) -> bool:
    """Whether a subtask that stands like this belongs in a list."""
    return (status is None or state.status == status) and (assignee is None or assignee in state.assignees)


@dataclass(slots=True)
class Known:
    """What some events say of one subtask: how it was made, how it stands by the newest of them, and the
    newest value of each field that was changed, with its event's number."""

    id: str
    task: str
    made: SubtaskInfo | None = None
    state: SubtaskState | None = None
    changed: dict[str, tuple[int, Any]] = field(default_factory=dict)

    def join(self, other: Known) -> None:
        """Adds what others know. In any order, and however often, it comes to the same."""
        self.made = self.made or other.made
        if other.state is not None:
            self.join_state(other.state)
        for name, (seq, value) in other.changed.items():
            self.join_change(name, seq, value)

    def join_state(self, state: SubtaskState) -> None:
        if self.state is None or self.state.version < state.version:
            self.state = state

    def join_change(self, name: str, seq: int, value: Any) -> None:
        if name not in self.changed or self.changed[name][0] < seq:
            self.changed[name] = (seq, value)

    def read(self, sweeps: Sequence[Sweep] = ()) -> Subtask | None:
        """None: it is not known yet how it was made."""
        if self.made is None or self.state is None:
            return None
        return Subtask(info_of(self.made, self.changed), swept(self.state, sweeps))


def info_of(made: SubtaskInfo, changed: Mapping[str, tuple[int, Any]]) -> SubtaskInfo:
    """What is said of a subtask by now."""
    newer = {name: value for name, (seq, value) in changed.items() if seq > made.info_version}
    if not newer:
        return made
    newest = max(seq for seq, _ in changed.values())
    return made.model_copy(update={**newer, "info_version": newest})


@dataclass(slots=True)
class Told:
    """What some events of one task say. `batches`: events that name a batch which has their subtasks."""

    task: str
    subtasks: dict[str, Known] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    sweeps: dict[int, Sweep] = field(default_factory=dict)
    batches: list[TaskEvent] = field(default_factory=list)

    def of(self, subtask: str) -> Known:
        return self.subtasks.setdefault(subtask, Known(subtask, self.task))


def told(task: str, events: Iterable[TaskEvent]) -> Told:
    """What these events say, in whatever order they are."""
    all_of_it = Told(task)
    for event in events:
        _tell(all_of_it, event)
    return all_of_it


def _tell(known: Told, event: TaskEvent) -> None:
    if event.type in _SWEEPS:
        known.sweeps[event.seq] = Sweep(event.seq, event.data.get("reason"), event.ts)
    elif event.type is TaskEventType.SUBTASKS_CREATED:
        if event.data.get("batch") is not None:
            known.batches.append(event)
        for document in event.data.get("subtasks") or ():
            info = SubtaskInfo.model_validate(document)
            waits = document.get("status") == SubtaskStatus.BLOCKED
            add(known, _created(event, info, document.get("priority"), waits))
    if event.state is not None:
        known.of(event.state.id).join_state(event.state)
    if event.type is TaskEventType.SUBTASK_UPDATED and event.subtask is not None:
        for name, value in event.data.get("info", {}).items():
            if name in CHANGEABLE:
                known.of(event.subtask).join_change(name, event.seq, value)
    if (answer := event.data.get("answer")) is not None:
        answer = Answer.model_validate(_of_event(event) | answer)
        known.answers.setdefault(answer.id, answer)


def _of_event(event: TaskEvent) -> dict[str, Any]:
    """What an answer leaves out that its event says."""
    about = {"id": event.data.get("assignment"), "worker": event.data.get("worker")}
    return {**about, "task": event.task, "subtask": event.subtask, "at": event.ts}


def add(known: Told, subtask: Subtask) -> None:
    """Adds a subtask that was made."""
    one = known.of(subtask.info.id)
    one.join(Known(subtask.info.id, known.task, subtask.info, subtask.state))


def _created(event: TaskEvent, info: SubtaskInfo, priority: int | None, waits: bool) -> Subtask:
    """A subtask as `subtasks.created` leaves it."""
    state = SubtaskState(
        id=info.id,
        number=info.number,
        version=event.seq,
        status=SubtaskStatus.BLOCKED if waits else SubtaskStatus.PENDING,
        priority=DEFAULT_PRIORITY if priority is None else priority,
        waits_for=len(info.depends_on) if waits else 0,
        updated_at=event.ts,
    )
    return Subtask(info, state)


def created_of_batch(event: TaskEvent, specs: Sequence[SubtaskSpec]) -> list[Subtask]:
    """The subtasks that `subtasks.created` makes of a batch."""
    first: int = event.data["first"]
    ids = [subtask_id(event.task, first + at) for at in range(len(specs))]
    ready = frozenset(event.data.get("ready", ()))
    by_key = {spec.key: id for spec, id in zip(specs, ids, strict=True) if spec.key is not None}
    return [
        _created(
            event,
            spec.info(
                ids[at],
                task=event.task,
                number=first + at,
                depends_on=list(dict.fromkeys(by_key.get(one, one) for one in spec.depends_on)),
                seq=event.seq,
                at=event.ts,
            ),
            spec.priority,
            bool(spec.depends_on) and first + at not in ready,
        )
        for at, spec in enumerate(specs)
    ]
