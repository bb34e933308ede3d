"""The write side of tasks in MongoDB: documents that follow from events, however these come.

An insert costs a fraction of an update. So of all events about a subtask that come together only the newest
is applied, a subtask that is made by them is inserted as they leave it, and what concerns all that waits is
written down once, at its task. Each part of a document has its own clock; a part that comes before its
document is kept in a stub.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pymongo import UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from activities.backends.mongo_client import insert_new, update_together
from activities.backends.mongo_task_batches import TaskBatches
from activities.backends.mongo_task_documents import (
    SEALED,
    UP_TO_DATE_FIELDS,
    about_task,
    answer_document,
    is_up_to_date,
    standing_of,
    subtask_document,
    subtask_updates,
    sweep_fields,
    task_document,
)
from activities.backends.mongo_task_events import TaskEventLog
from activities.backends.projection import Document
from activities.task_fold import Known, Sweep, Told, add, created_of_batch, told
from activities.task_ports import TaskChange
from goatherd.contracts.ids import subtask_id
from goatherd.contracts.task import Answer, Task, TaskEvent, TaskSummary

_AT_ONCE = 1_000
"""Subtasks that are inserted by one command."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Standing:
    """How a task stands: the newest that some changes say of it."""

    summary: TaskSummary
    latest: datetime | None = None
    sweeps: dict[int, Sweep] = field(default_factory=dict)


class TaskWriter:
    """Keeps events and applies them. Raises the driver's errors: its caller translates them."""

    def __init__(self, database: AsyncDatabase[Document], log: TaskEventLog, batches: TaskBatches) -> None:
        self._tasks: AsyncCollection[Document] = database["tasks"]
        self._subtasks: AsyncCollection[Document] = database["subtasks"]
        self._answers: AsyncCollection[Document] = database["task_answers"]
        self._log = log
        self._batches = batches

    async def apply(self, changes: Sequence[TaskChange]) -> None:
        """`TaskStore.apply`. Events come last, so that whoever sees them finds what follows from them."""
        events: dict[str, dict[int, TaskEvent]] = {}
        for change in changes:
            events.setdefault(change.task, {}).update({event.seq: event for event in change.events})
        all_told = {task: told(task, by_seq.values()) for task, by_seq in events.items()}
        batches = [event for one in all_told.values() for event in one.batches]
        for event in batches:
            await self._read_batch(all_told[event.task], event)
        await asyncio.gather(
            self.put_answers([answer for one in all_told.values() for answer in one.answers.values()]),
            self.put_subtasks([known for one in all_told.values() for known in one.subtasks.values()]),
            self._stand(_standings(changes, all_told)),
        )
        await self._log.keep(event for by_seq in events.values() for event in by_seq.values())
        for event in batches:
            await self._batches.delete(event.data["batch"])

    async def put_answers(self, answers: Sequence[Answer]) -> None:
        await insert_new(self._answers, [answer_document(answer) for answer in answers])

    async def _read_batch(self, known: Told, event: TaskEvent) -> None:
        specs = await self._batches.get(event.data["batch"], event.task)
        if specs is not None:
            for subtask in created_of_batch(event, specs):
                add(known, subtask)
        elif event.data["count"]:
            # It is deleted when its subtasks are there, so they are, unless it lay here for too long.
            last = subtask_id(event.task, event.data["first"] + event.data["count"] - 1)
            if await self._subtasks.find_one({"_id": last, "whole": True}, {"_id": 1}) is None:
                log.error("the batch %r of task %r is lost", event.data["batch"], event.task)

    # -- subtasks

    async def put_subtasks(self, all_known: Sequence[Known]) -> None:
        """Brings documents up to what is known of their subtasks."""
        made = [known for known in all_known if known.made is not None]
        rest = [known for known in all_known if known.made is None]
        for start in range(0, len(made), _AT_ONCE):
            some = made[start : start + _AT_ONCE]
            refused = await insert_new(self._subtasks, [subtask_document(known) for known in some])
            rest += [some[index] for index in refused]
        for start in range(0, len(rest), _AT_ONCE):
            await self._update_subtasks(rest[start : start + _AT_ONCE])

    async def _update_subtasks(self, all_known: Sequence[Known]) -> None:
        """Goes round until it has seen each of them done: a document that is missing at the update may be
        there at the look that follows, made by somebody who did not know the same."""
        while all_known:
            updates = [update for known in all_known for update in subtask_updates(known)]
            if await update_together(self._subtasks, updates) == len(updates):
                return
            ids = [known.id for known in all_known]
            cursor = self._subtasks.find({"_id": {"$in": ids}}, UP_TO_DATE_FIELDS)
            there = {document["_id"]: document async for document in cursor}
            missing = [known for known in all_known if known.id not in there]
            again = [
                known
                for known in all_known
                if known.id in there and not is_up_to_date(there[known.id], known)
            ]
            refused = await insert_new(self._subtasks, [subtask_document(known) for known in missing])
            all_known = [*again, *(missing[index] for index in refused)]

    # -- tasks

    async def put_task(self, task: Task) -> None:
        try:
            await self._tasks.insert_one(task_document(task))
        except DuplicateKeyError:
            stub = {"_id": task.id, "made": {"$exists": False}}
            older = {"_id": task.id, "clock": {"$lt": task.version}}
            at = {"$max": {"updated_at": task.updated_at}}
            await self._tasks.bulk_write(
                [
                    UpdateOne(stub, {"$set": about_task(task), **at}),
                    UpdateOne(older, {"$set": standing_of(task), **at}),
                ]
            )

    async def _stand(self, standings: dict[str, _Standing]) -> None:
        """Brings the documents of tasks up to how these stand, in rounds as `_update_subtasks`."""
        while standings:
            updates = [update for task, one in standings.items() for update in _task_updates(task, one)]
            outcome = await self._tasks.bulk_write(updates, ordered=False)
            if outcome.matched_count == len(updates):
                return
            fields = {"clock": 1, "sweeps": 1, "updated_at": 1}
            cursor = self._tasks.find({"_id": {"$in": list(standings)}}, fields)
            there = {document["_id"]: document async for document in cursor}
            missing = [task for task in standings if task not in there]
            stubs = [_task_stub(task, standings[task]) for task in missing]
            refused = await insert_new(self._tasks, stubs)
            await self._touch(standings, there)
            again = [task for task, found in there.items() if not _stands(found, standings[task])]
            again += [missing[index] for index in refused]
            standings = {task: standings[task] for task in again}

    async def _touch(self, standings: dict[str, _Standing], there: dict[str, Document]) -> None:
        """Events of a task that stands as others know it already may yet be its latest that were written."""
        updates = []
        for task, found in there.items():
            latest = standings[task].latest
            if latest is None or not standings[task].summary.version <= found["clock"] < SEALED:
                continue
            if found.get("updated_at") is None or found["updated_at"] < latest:
                updates.append(UpdateOne({"_id": task}, {"$max": {"updated_at": latest}}))
        if updates:
            await self._tasks.bulk_write(updates, ordered=False)


def _standings(changes: Iterable[TaskChange], all_told: dict[str, Told]) -> dict[str, _Standing]:
    standings: dict[str, _Standing] = {}
    for change in changes:
        one = standings.setdefault(
            change.task, _Standing(change.summary, sweeps=all_told[change.task].sweeps)
        )
        if one.summary.version < change.summary.version:
            one.summary = change.summary
        times = [event.ts for event in change.events]
        one.latest = max([*times, *([one.latest] if one.latest else [])], default=None)
    return standings


def _task_updates(task: str, standing: _Standing) -> list[UpdateOne]:
    updates = []
    if standing.sweeps:
        sweeps = {f"sweeps.{seq}": sweep_fields(sweep) for seq, sweep in standing.sweeps.items()}
        updates.append(UpdateOne({"_id": task}, {"$set": sweeps}))
    update: Document = {"$set": standing_of(standing.summary)}
    if standing.latest is not None:
        update["$max"] = {"updated_at": standing.latest}
    updates.append(UpdateOne({"_id": task, "clock": {"$lt": standing.summary.version}}, update))
    return updates


def _task_stub(task: str, standing: _Standing) -> Document:
    stub = {"_id": task, **standing_of(standing.summary)}
    if standing.latest is not None:
        stub["updated_at"] = standing.latest
    if standing.sweeps:
        stub["sweeps"] = {str(seq): sweep_fields(sweep) for seq, sweep in standing.sweeps.items()}
    return stub


def _stands(document: Document, standing: _Standing) -> bool:
    sweeps = document.get("sweeps", {})
    return document["clock"] >= standing.summary.version and all(
        str(seq) in sweeps for seq in standing.sweeps
    )
