"""How tasks and their subtasks are documents of MongoDB.

What is chosen by is a field of its own. All else is kept as the JSON of its contract: BSON has no room for
some of what people put into an `input` or a `result` (long integers, for one), and what an actor has taken
must never be refused by the store. It is also read and written faster.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import TypeAdapter
from pymongo import UpdateOne

from activities.backends.projection import Document
from activities.task_fold import Known, Sweep
from goatherd.contracts.ids import subtask_number
from goatherd.contracts.task import Answer, Counts, SubtaskInfo, SubtaskState, Task, TaskSummary

SEALED: Final = 1 << 62
"""The clock of a task that is closed from outside: nothing is newer."""

_ANY: TypeAdapter[Any] = TypeAdapter(Any)


def as_json(value: Any) -> str:
    return _ANY.dump_json(value).decode()


def from_json(text: str) -> Any:
    return _ANY.validate_json(text)


# -- tasks


def task_document(task: Task) -> Document:
    return {"_id": task.id, **about_task(task), **standing_of(task), "updated_at": task.updated_at}


def about_task(task: Task) -> Document:
    """What never changes. A document without it is a stub, which was heard of before it was made."""
    return {
        "owner": task.owner,
        "labels": task.labels,
        "created_at": task.created_at,
        "made": task.model_dump_json(),
    }


def standing_of(task: Task | TaskSummary) -> Document:
    return {
        "status": task.status.value,
        "counts": task.counts.model_dump(),
        "reason": task.reason,
        "ended_at": task.ended_at,
        "closed_at": task.closed_at,
        "version": task.version,
        "clock": task.version,
    }


_TASK_CHANGES = ("status", "reason", "ended_at", "closed_at", "version", "updated_at")


def to_task(document: Document | None) -> Task | None:
    if document is None or "made" not in document:
        return None
    made = Task.model_validate_json(document["made"])
    changed = {
        name: document[name]
        for name in ("status", "reason", "ended_at", "closed_at", "version", "updated_at")
    }
    return Task.model_validate({**made.model_dump(), **changed, "counts": Counts(**document["counts"])})


def sweep_fields(sweep: Sweep) -> Document:
    return {"reason": sweep.reason, "at": sweep.at, "final": sweep.final}


def sweeps_of(task: Document | None) -> list[Sweep]:
    found: Document = (task or {}).get("sweeps", {})
    return [Sweep(int(seq), **fields) for seq, fields in found.items()]


# -- subtasks


def subtask_document(known: Known) -> Document:
    """The whole document, or if it is not known how the subtask was made, a stub that no reader meets."""
    document: Document = {
        "_id": known.id,
        "task": known.task,
        "number": subtask_number(known.task, known.id),
        "whole": False,
        "clock": 0,
        "changed": {name: _change(seq, value) for name, (seq, value) in known.changed.items()},
    }
    if known.made is not None:
        document.update(_made(known.made))
    if known.state is not None:
        document.update(_state(known.state))
    return document


def _made(info: SubtaskInfo) -> Document:
    return {"whole": True, "created_at": info.created_at, "made": info.model_dump_json()}


def _state(state: SubtaskState) -> Document:
    return {
        "clock": state.version,
        "status": state.status.value,
        "assignees": state.assignees,
        "updated_at": state.updated_at,
        "state": state.model_dump_json(exclude_defaults=True),
    }


def _change(seq: int, value: Any) -> Document:
    return {"seq": seq, "value": as_json(value)}


def subtask_updates(known: Known) -> list[UpdateOne]:
    """What brings a document up to what is known, each part guarded by its own clock."""
    updates = []
    if known.made is not None:
        updates.append(UpdateOne({"_id": known.id, "whole": False}, {"$set": _made(known.made)}))
    if known.state is not None:
        # By its id alone: a guard in the query costs the development store as much as the update.
        newer = {"$mergeObjects": ["$$ROOT", {"$literal": _state(known.state)}]}
        is_newer = {"$lt": ["$clock", known.state.version]}
        updates.append(
            UpdateOne({"_id": known.id}, [{"$replaceWith": {"$cond": [is_newer, newer, "$$ROOT"]}}])
        )
    for name, (seq, value) in known.changed.items():
        guard = {"_id": known.id, f"changed.{name}.seq": {"$not": {"$gte": seq}}}
        updates.append(UpdateOne(guard, {"$set": {f"changed.{name}": _change(seq, value)}}))
    return updates


UP_TO_DATE_FIELDS: Final = {"whole": 1, "clock": 1, "changed": 1}


def is_up_to_date(document: Document, known: Known) -> bool:
    """Whether a document has all that is known. Needs `UP_TO_DATE_FIELDS` of it."""
    changed: Document = document["changed"]
    return (
        (known.made is None or document["whole"])
        and (known.state is None or document["clock"] >= known.state.version)
        and all(name in changed and changed[name]["seq"] >= seq for name, (seq, _) in known.changed.items())
    )


def to_known(document: Document) -> Known:
    known = Known(document["_id"], document["task"])
    if document["whole"]:
        known.made = SubtaskInfo.model_validate_json(document["made"])
    if "state" in document:
        known.state = SubtaskState.model_validate_json(document["state"])
    for name, change in document["changed"].items():
        known.changed[name] = (change["seq"], from_json(change["value"]))
    return known


# -- answers


def answer_document(answer: Answer) -> Document:
    return {
        "_id": answer.id,
        "task": answer.task,
        "subtask": answer.subtask,
        "worker": answer.worker,
        "failed": answer.error is not None,
        "answer": answer.model_dump_json(),
    }


def to_answer(document: Document) -> Answer:
    return Answer.model_validate_json(document["answer"])
