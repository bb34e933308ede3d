"""The events of tasks in MongoDB: many in one document, since an insert costs about the same for one.

A document holds some events of one task, whose numbers lie close together and need not be next to each
other; its id says which. The same events may be in several documents, as several writers have cut them:
readers take each number once. `…:closing` ends a sequence: what others have written from its number on is of
a past that does not count.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from pydantic import TypeAdapter
from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.mongo_client import insert_new
from activities.backends.projection import Document
from activities.task_ports import TaskNews
from goatherd.contracts.task import TaskEvent

COLLECTION = "task_events"
SPAN = 256
"""Numbers that one document can hold: so far below a number may its document begin."""
_MOST_CHARS = 4_000_000
_MOST_EXPECTED = 16
"""Documents of this process that its own feed has not come to yet."""

_EVENTS: TypeAdapter[list[TaskEvent]] = TypeAdapter(list[TaskEvent])


class TaskEventLog:
    """Keeps and reads events. Raises the driver's errors: its caller translates them."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self.collection: AsyncCollection[Document] = database[COLLECTION]
        self._own: OrderedDict[str, list[TaskEvent]] = OrderedDict()
        self._watched = 0

    @staticmethod
    def indexes() -> list[IndexModel]:
        return [IndexModel([("task", ASCENDING), ("first", ASCENDING)])]

    async def keep(self, events: Iterable[TaskEvent]) -> None:
        by_task: dict[str, dict[int, TaskEvent]] = {}
        for event in events:
            by_task.setdefault(event.task, {})[event.seq] = event
        chunks = [chunk for task, by_seq in by_task.items() for chunk in _cut(task, by_seq)]
        if self._watched:
            for chunk in chunks:
                self._expect(chunk, by_task[chunk["task"]])
        await insert_new(self.collection, chunks)

    # -- followed

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While this is open, `read_news` is given all that is written."""
        self._watched += 1
        try:
            yield
        finally:
            self._watched -= 1
            if not self._watched:
                self._own.clear()

    def read_news(self, document: Document) -> TaskNews:
        """A document that was written by anybody. What this process has written needs no reading."""
        own = self._own.pop(document["_id"], None)
        return TaskNews(document["task"], _EVENTS.validate_json(document["events"]) if own is None else own)

    def _expect(self, chunk: Document, by_seq: dict[int, TaskEvent]) -> None:
        numbers = range(chunk["first"], chunk["last"] + 1)
        self._own[chunk["_id"]] = [by_seq[seq] for seq in numbers if seq in by_seq]
        if len(self._own) > _MOST_EXPECTED:
            self._own.popitem(last=False)

    # -- read and closed

    async def close(self, task: str, events: Sequence[TaskEvent]) -> None:
        """Ends the sequence, unless it has been ended."""
        texts = [event.model_dump_json(exclude_defaults=True) for event in events]
        chunk = _chunk(task, [event.seq for event in events], texts)
        await insert_new(self.collection, [{**chunk, "_id": f"{task}:closing"}])

    async def read(self, task: str, *, after: int, limit: int, closing: int | None) -> list[TaskEvent]:
        """`TaskStore.events`. `closing`: the number that the sequence was closed by from outside."""
        found: dict[int, TaskEvent] = {}
        await self._read(task, {"$gt": after - SPAN, "$lte": after + limit}, found, closing)
        events = _between(found, after)
        if len(events) < limit:
            # Numbers have no gaps, so that this was all, but for what is being written right now.
            await self._read(task, {"$gt": after + limit}, found, closing)
            events = _between(found, after)
        return events[:limit]

    async def _read(
        self, task: str, first: Document, found: dict[int, TaskEvent], closing: int | None
    ) -> None:
        cursor = self.collection.find({"task": task, "first": first}, {"events": 1})
        async for document in cursor:
            closes = document["_id"].endswith(":closing")
            for event in _EVENTS.validate_json(document["events"]):
                if closes or closing is None or event.seq < closing:
                    found[event.seq] = event

    async def last(self, task: str, near: int) -> int:
        """The newest number, which is likely to lie near one."""
        width = 2 * SPAN
        while True:
            low = near - width
            where = {"task": task, "first": {"$gt": low}}
            cursor = self.collection.find(where, {"_id": 0, "last": 1})
            last = max([document["last"] async for document in cursor], default=0)
            # One with a higher number would begin above `low` too.
            if last > low + SPAN or low <= 0:
                return last
            width *= 4


def _between(found: dict[int, TaskEvent], after: int) -> list[TaskEvent]:
    return [found[seq] for seq in sorted(found) if seq > after]


def _cut(task: str, by_seq: dict[int, TaskEvent]) -> Iterator[Document]:
    numbers: list[int] = []
    texts: list[str] = []
    size = 0
    for seq in sorted(by_seq):
        text = by_seq[seq].model_dump_json(exclude_defaults=True)
        if numbers and (seq - numbers[0] >= SPAN or size + len(text) > _MOST_CHARS):
            yield _chunk(task, numbers, texts)
            numbers, texts, size = [], [], 0
        numbers.append(seq)
        texts.append(text)
        size += len(text)
    if numbers:
        yield _chunk(task, numbers, texts)


def _chunk(task: str, numbers: Sequence[int], texts: Sequence[str]) -> Document:
    first, last = numbers[0], numbers[-1]
    if len(numbers) == last - first + 1:
        which = f"{first}-{last}"
    else:
        which = f"{first}+{sum(1 << number - first for number in numbers):x}"
    return {
        "_id": f"{task}:{which}",
        "task": task,
        "first": first,
        "last": last,
        "events": f"[{','.join(texts)}]",
    }
