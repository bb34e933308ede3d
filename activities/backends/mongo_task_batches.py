"""Subtasks that are about to be made, in MongoDB: so that their inputs need not travel through the actor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from pydantic import TypeAdapter
from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.mongo_client import insert_new
from activities.backends.projection import Document
from goatherd.contracts.task import SubtaskSpec

_LIVE_S = 7 * 86_400
_MOST_CHARS = 4_000_000

_SPECS: TypeAdapter[list[SubtaskSpec]] = TypeAdapter(list[SubtaskSpec])


class TaskBatches:
    """Keeps batches until they are used. Raises the driver's errors: its caller translates them."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self.collection: AsyncCollection[Document] = database["task_batches"]

    @staticmethod
    def indexes() -> list[IndexModel]:
        return [
            IndexModel([("batch", ASCENDING), ("n", ASCENDING)]),
            IndexModel([("at", ASCENDING)], expireAfterSeconds=_LIVE_S),
        ]

    async def put(self, batch: str, task: str, specs: Sequence[SubtaskSpec]) -> None:
        now = datetime.now(UTC)
        parts = list(_cut(specs))
        for n, text in enumerate(parts):
            part = {"_id": f"{batch}:{n}", "batch": batch, "n": n, "of": len(parts), "task": task}
            await insert_new(self.collection, [{**part, "at": now, "specs": text}])

    async def get(self, batch: str, task: str) -> list[SubtaskSpec] | None:
        """None: it is not there, or no longer."""
        cursor = self.collection.find({"batch": batch, "task": task}).sort("n", ASCENDING)
        parts = [document async for document in cursor]
        if not parts or len(parts) != parts[0]["of"]:
            return None
        return [spec for part in parts for spec in _SPECS.validate_json(part["specs"])]

    async def delete(self, batch: str) -> None:
        await self.collection.delete_many({"batch": batch})


def _cut(specs: Sequence[SubtaskSpec]) -> Iterator[str]:
    texts: list[str] = []
    size = 0
    for spec in specs:
        text = spec.model_dump_json(exclude_defaults=True)
        if texts and size + len(text) > _MOST_CHARS:
            yield f"[{','.join(texts)}]"
            texts, size = [], 0
        texts.append(text)
        size += len(text)
    yield f"[{','.join(texts)}]"
