"""Tasks and the events that actors make of them, for tests of stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from activities.task_ports import TaskChange
from goatherd.contracts.ids import assignment_id, new_id, subtask_id
from goatherd.contracts.task import (
    CLOSED,
    OPEN,
    Counts,
    LeaseRecord,
    SubtaskInfo,
    SubtaskSpec,
    SubtaskState,
    SubtaskStatus,
    Task,
    TaskEvent,
    TaskEventType,
    TaskStatus,
    TaskSummary,
)

BEGAN = datetime.now(UTC).replace(microsecond=0)
_REPORTS = {
    SubtaskStatus.COMPLETED: TaskEventType.SUBTASK_COMPLETED,
    SubtaskStatus.FAILED: TaskEventType.SUBTASK_FAILED,
}


def make_task(**fields: Any) -> Task:
    defaults = {"id": new_id("task"), "owner": "ann", "created_at": BEGAN, "updated_at": BEGAN}
    return Task.model_validate(defaults | fields)


class TaskScript:
    """Makes one task's events in order, as its actor does, and knows how all stands after each."""

    def __init__(self, task: str | None = None) -> None:
        self.task = task or new_id("task")
        self.events: list[TaskEvent] = []
        self.summaries: list[TaskSummary] = []
        self.states: dict[str, SubtaskState] = {}
        self.infos: dict[str, SubtaskInfo] = {}
        self.batches: dict[str, list[SubtaskSpec]] = {}
        self.status = TaskStatus.PENDING
        self._fence = 0

    # -- what an actor does

    def create(self, *specs: SubtaskSpec, batch: str | None = None, blocked: Sequence[int] = ()) -> list[str]:
        """`blocked`: which of them wait for others, by their place."""
        specs = specs or (SubtaskSpec(),)
        first = len(self.infos) + 1
        ids = [subtask_id(self.task, first + at) for at in range(len(specs))]
        keys = {spec.key: id for spec, id in zip(specs, ids, strict=True)}
        for at, (id, spec) in enumerate(zip(ids, specs, strict=True)):
            fields = spec.model_dump(exclude={"priority", "depends_on"})
            self.infos[id] = SubtaskInfo(
                id=id,
                task=self.task,
                number=first + at,
                depends_on=[keys.get(one, one) for one in spec.depends_on],
                info_version=self.seq + 1,
                created_at=self._at(self.seq + 1),
                **fields,
            )
            self.states[id] = SubtaskState(
                id=id,
                number=first + at,
                version=self.seq + 1,
                status=SubtaskStatus.BLOCKED if at in blocked else SubtaskStatus.PENDING,
                priority=spec.priority or 3,
                waits_for=len(spec.depends_on) if at in blocked else 0,
                updated_at=self._at(self.seq + 1),
            )
        data: dict[str, Any] = {"first": first, "count": len(specs)}
        if batch is not None:
            self.batches[batch] = list(specs)
            ready = [first + at for at, spec in enumerate(specs) if spec.depends_on and at not in blocked]
            data |= {"batch": batch, **({"ready": ready} if ready else {})}
        else:
            data["subtasks"] = [
                self.infos[id].model_dump(mode="json")
                | {"status": self.states[id].status, "priority": self.states[id].priority}
                for id in ids
            ]
        self.tell(TaskEventType.SUBTASKS_CREATED, data=data)
        return ids

    def lease(self, subtask: str, worker: str = "w") -> str:
        self._fence += 1
        lease = LeaseRecord(
            id=assignment_id(self.task, self._fence),
            worker=worker,
            attempt=1,
            fence=self._fence,
            taken_at=self._at(self.seq + 1),
            expires_at=self._at(self.seq + 1) + timedelta(minutes=1),
        )
        self.move(
            subtask,
            TaskEventType.SUBTASK_LEASED,
            SubtaskStatus.LEASED,
            assignees=[*self.states[subtask].assignees, worker],
            leases=[*self.states[subtask].leases, lease],
        )
        return lease.id

    def report(
        self, subtask: str, status: SubtaskStatus = SubtaskStatus.COMPLETED, result: Any = None
    ) -> str:
        """Of the last who has it."""
        *past, lease = self.states[subtask].leases
        answer = {
            "id": lease.id,
            "task": self.task,
            "subtask": subtask,
            "worker": lease.worker,
            "result": result,
            "error": {"code": "broken"} if status is SubtaskStatus.FAILED else None,
        }
        ended = lease.model_copy(update={"ended_at": self._at(self.seq + 1), "outcome": status.value})
        data = {"assignment": lease.id, "worker": lease.worker, "answer": answer}
        self.move(
            subtask,
            _REPORTS[status],
            status,
            assignees=[],
            leases=[*past, ended],
            answers=[lease.id],
            data=data,
        )
        return lease.id

    def free(self, subtask: str, kind: TaskEventType = TaskEventType.SUBTASK_RELEASED) -> None:
        ended = {"ended_at": self._at(self.seq + 1), "outcome": "released"}
        leases = [
            one if one.ended_at is not None else one.model_copy(update=ended)
            for one in self.states[subtask].leases
        ]
        self.move(subtask, kind, SubtaskStatus.PENDING, assignees=[], leases=leases, reason=None)

    def update(self, subtask: str, *, priority: int | None = None, **info: Any) -> None:
        changed = {**info, "info_version": self.seq + 1}
        self.infos[subtask] = self.infos[subtask].model_copy(update=changed)
        fields = {} if priority is None else {"priority": priority}
        status = self.states[subtask].status
        self.move(subtask, TaskEventType.SUBTASK_UPDATED, status, data={"info": changed}, **fields)

    def sweep(self, kind: TaskEventType = TaskEventType.TASK_CANCELLING, reason: str = "deleted") -> None:
        """Cancels all that waits, by one event."""
        seq = self.seq + 1
        for id, state in self.states.items():
            if state.status in (SubtaskStatus.BLOCKED, SubtaskStatus.PENDING):
                fields = {"status": SubtaskStatus.CANCELLED, "version": seq, "reason": reason}
                self.states[id] = state.model_copy(update={**fields, "updated_at": self._at(seq)})
        self.tell(kind, data={"reason": reason})

    def move(
        self,
        subtask: str,
        kind: TaskEventType,
        status: SubtaskStatus,
        *,
        data: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        seq = self.seq + 1
        update = {"status": status, "version": seq, "updated_at": self._at(seq), **fields}
        self.states[subtask] = self.states[subtask].model_copy(update=update)
        self.tell(kind, state=self.states[subtask], data=data)

    def tell(
        self, kind: TaskEventType, *, state: SubtaskState | None = None, data: dict[str, Any] | None = None
    ) -> TaskEvent:
        seq = self.seq + 1
        event = TaskEvent(
            seq=seq,
            type=kind,
            task=self.task,
            subtask=None if state is None else state.id,
            ts=self._at(seq),
            state=state,
            data=data or {},
        )
        self.events.append(event)
        counts = Counter(one.status.value for one in self.states.values())
        self.summaries.append(TaskSummary(version=seq, status=self.status, counts=Counts(**counts)))
        return event

    # -- what of it comes to the store

    @property
    def seq(self) -> int:
        return len(self.events)

    @property
    def summary(self) -> TaskSummary:
        return self.summaries[-1]

    def change(self, *numbers: int) -> TaskChange:
        """These events (all, if none is named), and how the task stood after the last."""
        chosen = [self.events[number - 1] for number in numbers] or self.events
        return TaskChange(self.task, chosen, self.summaries[max(event.seq for event in chosen) - 1])

    def since(self, seq: int) -> TaskChange:
        return self.change(*range(seq + 1, self.seq + 1))

    @property
    def unfinished(self) -> list[str]:
        return [id for id, state in self.states.items() if state.status in OPEN]

    @property
    def finished(self) -> list[str]:
        return [id for id, state in self.states.items() if state.status in CLOSED]

    @staticmethod
    def _at(seq: int) -> datetime:
        return BEGAN + timedelta(milliseconds=seq)
