"""Tasks and subtasks as clients read them: documents of what the store has of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from activities.task_ports import Subtask
from api.task_json import dumps
from goatherd.contracts.model import Json
from goatherd.contracts.task import CLOSED, Answer, Counts, SubtaskStatus, Task, TaskSummary

_OF_INFO = ("id", "task", "number", "key", "title", "input", "labels", "requires", "depends_on")
_OF_STATE = (
    "priority", "status", "attempts", "assignees", "waits_for", "not_before", "progress", "error", "reason",
    "verdict", "leases", "version", "updated_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Listed:
    """An item of a list, as it is shown."""

    id: str
    content: bytes

    def model_dump_json(self) -> str:
        return self.content.decode()


def progress_of(counts: Counts) -> Json:
    total = counts.total
    done = total - counts.unfinished
    return {"done": done, "total": total, "fraction": round(done / total, 6) if total else 0.0}


def task_document(task: Task) -> Json:
    return {**task.model_dump(mode="json"), "progress": progress_of(task.counts)}


def render_task(task: Task) -> bytes:
    return dumps(task_document(task))


def brief(task: str, summary: TaskSummary) -> Json:
    """A task in an answer that is about something else."""
    counts = summary.counts
    return {
        "id": task,
        "status": summary.status.value,
        "counts": {
            "blocked": counts.blocked,
            "pending": counts.pending,
            "leased": counts.leased,
            "completed": counts.completed,
            "failed": counts.failed,
            "cancelled": counts.cancelled,
            "dead": counts.dead,
        },
    }


def subtask_document(subtask: Subtask, answers: Sequence[Answer], *, overlap: int) -> Json:
    """One subtask, merged of what is said of it, how it stands, and what was answered.

    With overlap, what others have answered is not shown before it is done: they are not to know.
    """
    info = subtask.info.model_dump(mode="json")
    state = subtask.state.model_dump(mode="json")
    counted = [answer for answer in answers if answer.id in subtask.state.answers]
    done = subtask.state.status in CLOSED
    shown: list[Json] | None = None
    if overlap > 1 and done:
        shown = [answer.model_dump(mode="json") for answer in counted]
    return {
        "object": "subtask",
        **{name: info[name] for name in _OF_INFO},
        **{name: state[name] for name in _OF_STATE},
        "result": _result(subtask, answers, counted) if done else None,
        "answers": shown,
        "info_version": info["info_version"],
        "created_at": info["created_at"],
    }


def _result(subtask: Subtask, answers: Sequence[Answer], counted: Sequence[Answer]) -> Any:
    state = subtask.state
    if state.status is not SubtaskStatus.COMPLETED:
        return None
    wanted = state.verdict.answer if state.verdict is not None else None
    if wanted is not None:
        return next((answer.result for answer in answers if answer.id == wanted), None)
    if state.verdict is None and counted:
        return counted[-1].result
    return None


def by_subtask(answers: Sequence[Answer]) -> Mapping[str, list[Answer]]:
    found: dict[str, list[Answer]] = {}
    for answer in answers:
        found.setdefault(answer.subtask, []).append(answer)
    return found
