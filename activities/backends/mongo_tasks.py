"""Tasks in MongoDB: `TaskStore` on `tasks`, `subtasks`, `task_answers`, `task_events`, `task_batches` and
`task_secrets`.

The queries are made for planners of any make, as in `mongo_chat`: each names exactly an index's fields, and
asks for a range that holds about as much as is wanted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from functools import partial

from pydantic_core import PydanticSerializationError
from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends import mongo_feed, mongo_lists, mongo_task_events
from activities.backends.mongo_client import insert_new, make_indexes, store_errors
from activities.backends.mongo_task_batches import TaskBatches
from activities.backends.mongo_task_closing import TaskCloser
from activities.backends.mongo_task_documents import SEALED, sweeps_of, to_answer, to_known, to_task
from activities.backends.mongo_task_events import TaskEventLog
from activities.backends.mongo_task_stats import read_stats
from activities.backends.mongo_task_writes import TaskWriter
from activities.backends.projection import Document
from activities.ports import Page
from activities.task_fold import WAITING, Known, Sweep, is_chosen
from activities.task_ports import Subtask, TaskChange, TaskFeedItem, TaskStats
from goatherd.coalesce import Coalescer
from goatherd.contracts.task import (
    OPEN,
    Answer,
    SubtaskInfo,
    SubtaskSpec,
    SubtaskStatus,
    Task,
    TaskEvent,
)
from goatherd.errors import Invalid

_WIDENS = 4


class MongoTaskStore:
    """`TaskStore` on a MongoDB replica set, or on what speaks its protocol with change streams."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._database = database
        self._tasks: AsyncCollection[Document] = database["tasks"]
        self._subtasks: AsyncCollection[Document] = database["subtasks"]
        self._answers: AsyncCollection[Document] = database["task_answers"]
        self._secrets: AsyncCollection[Document] = database["task_secrets"]
        self._log = TaskEventLog(database)
        self._batches = TaskBatches(database)
        self._writer = TaskWriter(database, self._log, self._batches)
        self._closer = TaskCloser(database, self._log)
        # What is read at the same time is read at once: most of a small read is the way there and back.
        self._task_reads: Coalescer[str, Document | None] = Coalescer(partial(_by_ids, self._tasks))
        self._subtask_reads: Coalescer[str, Document | None] = Coalescer(partial(_by_ids, self._subtasks))

    async def prepare(self) -> None:
        number = ("number", ASCENDING)
        await make_indexes(
            {
                self._tasks: [
                    IndexModel([("owner", ASCENDING), ("_id", DESCENDING)]),
                    IndexModel([("owner", ASCENDING), ("status", ASCENDING), ("_id", DESCENDING)]),
                    IndexModel([("owner", ASCENDING), ("labels", ASCENDING), ("_id", DESCENDING)]),
                ],
                self._subtasks: [
                    IndexModel([("task", ASCENDING), number]),
                    # Only leased ones have assignees: these are few, and found by their status.
                    IndexModel([("task", ASCENDING), ("status", ASCENDING), number]),
                ],
                self._answers: [IndexModel([("task", ASCENDING), ("subtask", ASCENDING)])],
                self._log.collection: self._log.indexes(),
                self._batches.collection: self._batches.indexes(),
            }
        )

    async def ping(self) -> None:
        # A read, as the embedded server answers the command `ping` even after its storage has failed.
        with store_errors():
            await self._tasks.find_one({"_id": ""}, {"_id": 1})

    # -- written

    async def put_task(self, task: Task) -> None:
        with _errors():
            await self._writer.put_task(task)

    async def put_subtasks(self, subtasks: Sequence[Subtask]) -> None:
        known = {one.info.id: Known(one.info.id, one.info.task, one.info, one.state) for one in subtasks}
        with _errors():
            await self._writer.put_subtasks(list(known.values()))

    async def put_batch(self, batch: str, task: str, specs: Sequence[SubtaskSpec]) -> None:
        with _errors():
            await self._batches.put(batch, task, specs)

    async def delete_batch(self, batch: str) -> None:
        with _errors():
            await self._batches.delete(batch)

    async def put_answers(self, answers: Sequence[Answer]) -> None:
        with _errors():
            await self._writer.put_answers(answers)

    async def put_secret(self, task: str, secret: str) -> None:
        with _errors():
            await insert_new(self._secrets, [{"_id": task, "secret": secret}])

    async def apply(self, changes: Sequence[TaskChange]) -> None:
        with _errors():
            await self._writer.apply(changes)

    async def close_task(self, task: str, status: str, reason: str, at: datetime) -> None:
        with _errors():
            await self._closer.close(task, status, reason, at)

    # -- read

    async def task(self, task: str) -> Task | None:
        with store_errors():
            return to_task(await self._task_reads.submit(task))

    async def tasks(
        self, owner: str, page: Page, *, status: str | None = None, label: str | None = None
    ) -> list[Task]:
        where = mongo_lists.owned(owner, status, label)
        with store_errors():
            found = await mongo_lists.by_id(self._tasks, where, page, "task")
        return [task for document in found if (task := to_task(document)) is not None]

    async def open_tasks(self, ids: Sequence[str]) -> list[str]:
        where = {"_id": {"$in": list(ids)}, "made": {"$exists": True}, "closed_at": None}
        with store_errors():
            there = {document["_id"] async for document in self._tasks.find(where, {"_id": 1})}
        return [one for one in ids if one in there]

    async def subtask(self, task: str, subtask: str) -> Subtask | None:
        with store_errors():
            document, sweeps = await asyncio.gather(self._subtask_reads.submit(subtask), self._sweeps(task))
        if document is None or document["task"] != task:
            return None
        return to_known(document).read(sweeps)

    async def subtasks(
        self, task: str, page: Page, *, status: str | None = None, assignee: str | None = None
    ) -> list[Subtask]:
        low, high = (page.before, page.after) if page.descending else (page.after, page.before)
        # A page before a position is the part of the list that is next to it.
        downwards = page.descending if page.before is None or page.after is not None else not page.descending
        found: list[Subtask] = []
        with store_errors():
            document = await self._task_reads.submit(task)
            sweeps = sweeps_of(document)
            where = _chosen(task, status, assignee, sweeps)
            end = 0 if document is None else sum(document["counts"].values())
            for above, upto in _spans(int(low or 0), high, end, width=page.limit, downwards=downwards):
                bounds = {"$gt": above} if upto is None else {"$gt": above, "$lte": upto}
                cursor = self._subtasks.find({**where, "number": bounds})
                found += [
                    subtask
                    for subtask in await _in_order(cursor, sweeps, downwards=downwards)
                    if is_chosen(subtask.state, status, assignee)
                ]
                if len(found) >= page.limit:
                    break
        found = found[: page.limit]
        return found if downwards == page.descending else found[::-1]

    async def infos(self, ids: Sequence[str]) -> dict[str, SubtaskInfo]:
        with store_errors():
            found = await asyncio.gather(*(self._subtask_reads.submit(one) for one in ids))
        infos = {}
        for document in found:
            subtask = None if document is None else to_known(document).read()
            if subtask is not None:
                infos[subtask.info.id] = subtask.info
        return infos

    async def answers(self, task: str, subtasks: Sequence[str]) -> list[Answer]:
        where = {"task": task, "subtask": {"$in": list(subtasks)}}
        with store_errors():
            found = [to_answer(document) async for document in self._answers.find(where)]
        return sorted(found, key=lambda answer: answer.id)

    async def secret(self, task: str) -> str | None:
        with store_errors():
            document = await self._secrets.find_one({"_id": task})
        return None if document is None else document["secret"]

    async def events(self, task: str, *, after: int, limit: int) -> list[TaskEvent]:
        with store_errors():
            document = await self._task_reads.submit(task)
            closing = (document or {}).get("closing", {}).get("seq")
            return await self._log.read(task, after=after, limit=limit, closing=closing)

    async def last_seq(self, task: str) -> int:
        with store_errors():
            document = await self._task_reads.submit(task)
            if document is None:
                return await self._log.last(task, 0)
            if document["clock"] == SEALED:
                return int(document["version"])
            return await self._log.last(task, document["version"])

    async def stats(self, task: str) -> TaskStats:
        with store_errors():
            sweeps = await self._sweeps(task)
            return await read_stats(self._subtasks, self._answers, task, sweeps)

    async def _sweeps(self, task: str) -> list[Sweep]:
        return sweeps_of(await self._task_reads.submit(task))

    # -- followed

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[TaskFeedItem]]:
        """See the port. Entering raises `Unavailable` if the store is not there; afterwards nothing does."""
        readers = {mongo_task_events.COLLECTION: self._log.read_news}
        with self._log.watched():
            async with mongo_feed.watch(self._database, readers) as items:
                yield items


@contextmanager
def _errors() -> Iterator[None]:
    """`store_errors`, and what can't be JSON."""
    try:
        with store_errors():
            yield
    except PydanticSerializationError as error:
        raise Invalid(f"this can't be kept in the store: {error}") from error


async def _by_ids(
    collection: AsyncCollection[Document], ids: Sequence[str]
) -> list[Document | BaseException | None]:
    found = {one["_id"]: one async for one in collection.find({"_id": {"$in": list(set(ids))}})}
    return [found.get(one) for one in ids]


def _chosen(task: str, status: str | None, assignee: str | None, sweeps: Sequence[Sweep]) -> Document:
    """Those that may have a status, or be somebody's: sweeps are not in the documents, nor assignees in an
    index."""
    where: Document = {"task": task}
    if assignee is not None:
        where["status"] = SubtaskStatus.LEASED.value
    elif status is not None:
        where["status"] = status
        if sweeps and status == SubtaskStatus.CANCELLED:
            also = OPEN if any(sweep.final for sweep in sweeps) else WAITING
            where["status"] = {"$in": [status, *(one.value for one in also)]}
    return where


def _spans(
    low: int, high: str | int | None, end: int, *, width: int, downwards: bool
) -> Iterator[tuple[int, int | None]]:
    """Ranges of numbers, above one up to another, that cover those between `low` and `high` from one end to
    the other and widen. `end`: about the last number that is there; None: and all above."""
    top = None if high is None else int(high) - 1
    if downwards:
        upto = end if top is None else top
        while upto > low:
            above = max(low, upto - width)
            yield above, top if upto == (end if top is None else top) else upto
            upto = above
            width *= _WIDENS
        if top is None and end <= low:
            yield low, None
        return
    last = end if top is None else min(top, end)
    while low + width < last:
        yield low, low + width
        low += width
        width *= _WIDENS
    if top is None or top > low:
        yield low, top


async def _in_order(
    cursor: AsyncIterator[Document], sweeps: Sequence[Sweep], *, downwards: bool
) -> list[Subtask]:
    found = [subtask async for document in cursor if (subtask := to_known(document).read(sweeps)) is not None]
    return sorted(found, key=lambda subtask: subtask.info.number, reverse=downwards)
