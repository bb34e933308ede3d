"""Jobs in MongoDB: one document a job, and its inputs and outcomes part by part.

A part is JSON, compressed, in chunks far below the limit of 16 MB a document. A part all of whose chunks are
there counts; it is written again as a whole.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import orjson
from pydantic import BaseModel
from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.mongo_client import make_indexes, store_errors
from activities.backends.mongo_lists import by_id, owned
from activities.backends.projection import Document
from activities.ports import Page
from goatherd.contracts.inference_job import ENDED, Job, JobPart, JobPlan, PartOutcomes, SettleJob
from goatherd.contracts.inference_work import Problem
from goatherd.payloads import utc_now

LIVES = timedelta(days=7)
"""A job and its results. Files among them live as long as Temporal keeps the job's workflow."""
_CHUNK = 1 << 20
_LEVEL = 1

Part = TypeVar("Part", bound=BaseModel)


class MongoJobStore:
    """`JobStore` on MongoDB."""

    def __init__(self, database: AsyncDatabase[Document], *, now: Callable[[], datetime] = utc_now) -> None:
        self._jobs: AsyncCollection[Document] = database["jobs"]
        self._inputs = _Parts(database["job_inputs"], now)
        self._outcomes = _Parts(database["job_outcomes"], now)
        self._now = now

    async def prepare(self) -> None:
        """Makes collections and indexes. Idempotent."""
        expire = IndexModel([("at", ASCENDING)], expireAfterSeconds=int(LIVES.total_seconds()))
        part = IndexModel([("job", ASCENDING), ("n", ASCENDING), ("k", ASCENDING)], unique=True)
        await make_indexes(
            {
                self._jobs: [expire, IndexModel([("owner", ASCENDING), ("_id", ASCENDING)])],
                self._inputs.collection: [expire, part],
                self._outcomes.collection: [expire, part],
            }
        )

    async def add(self, plan: JobPlan, parts: Sequence[JobPart]) -> None:
        with store_errors():
            for part in parts:
                await self._inputs.put(part.job, part.n, part)
            document = _document(plan) | {"at": self._now()}
            await self._jobs.update_one({"_id": plan.job.id}, {"$setOnInsert": document}, upsert=True)

    async def plan(self, job: str) -> JobPlan | None:
        with store_errors():
            found = await self._jobs.find_one({"_id": job})
        return None if found is None else _plan(found)

    async def jobs(
        self, owner: str, page: Page, *, status: str | None = None, model: str | None = None
    ) -> list[Job]:
        where = owned(owner, status, None) | ({} if model is None else {"model": model})
        with store_errors():
            found = await by_id(self._jobs, where, page, "job")
        return [_plan(one).job for one in found]

    async def open(self, ids: Sequence[str]) -> list[str]:
        where = {"_id": {"$in": list(ids)}, "status": {"$nin": sorted(ENDED)}}
        with store_errors():
            return [str(one["_id"]) async for one in self._jobs.find(where, {"_id": 1})]

    async def part(self, job: str, n: int) -> JobPart | None:
        with store_errors():
            return await self._inputs.one(job, n, JobPart)

    async def put_outcomes(self, outcomes: PartOutcomes) -> None:
        current = {"_id": outcomes.job, "attempt": outcomes.attempt, "status": {"$nin": sorted(ENDED)}}
        failed = sum(one.problem is not None for one in outcomes.outcomes)
        with store_errors():
            if await self._jobs.find_one(current, {"_id": 1}) is None:
                return
            counts = {"items": len(outcomes.outcomes), "failed": failed}
            await self._outcomes.put(outcomes.job, outcomes.n, outcomes, **counts)
            done, bad = await self._outcomes.counts(outcomes.job)
            begun = {"status": "running", "progress.done": done, "progress.failed": bad, "error": None}
            await self._jobs.update_one(current, {"$set": begun})
            await self._jobs.update_one(
                {**current, "started_at": None}, {"$set": {"started_at": self._now()}}
            )

    async def outcomes(self, job: str, *, start: int = 0, limit: int | None = None) -> list[PartOutcomes]:
        with store_errors():
            return await self._outcomes.all(job, PartOutcomes, start, limit)

    async def put_error(self, job: str, attempt: int, error: Problem) -> None:
        current = {"_id": job, "attempt": attempt, "status": {"$nin": sorted(ENDED)}}
        with store_errors():
            await self._jobs.update_one(current, {"$set": {"error": error.model_dump(mode="json")}})

    async def settle(self, settled: SettleJob) -> bool:
        current = {"_id": settled.job, "attempt": settled.attempt, "status": {"$nin": sorted(ENDED)}}
        error = None if settled.error is None else settled.error.model_dump(mode="json")
        end = {"status": settled.status, "error": error, "finished_at": self._now()}
        with store_errors():
            return (await self._jobs.update_one(current, {"$set": end})).matched_count > 0

    async def begin_again(self, job: str, attempt: int) -> bool:
        ended = {"_id": job, "attempt": attempt - 1, "status": {"$in": sorted(ENDED)}}
        again = {
            "status": "queued",
            "attempt": attempt,
            "begun_at": self._now(),
            "error": None,
            "finished_at": None,
        }
        with store_errors():
            return (await self._jobs.update_one(ended, {"$set": again})).matched_count > 0


class _Parts:
    """Numbered parts of jobs."""

    def __init__(self, collection: AsyncCollection[Document], now: Callable[[], datetime]) -> None:
        self.collection = collection
        self._now = now

    async def put(self, job: str, n: int, part: BaseModel, **counts: int) -> None:
        packed = await asyncio.to_thread(lambda: zlib.compress(part.model_dump_json().encode(), _LEVEL))
        chunks = [packed[begin : begin + _CHUNK] for begin in range(0, len(packed), _CHUNK)]
        # The first one, which says how many there are, comes last.
        for k in reversed(range(len(chunks))):
            key = {"_id": f"{job}:{n}:{k}"}
            chunk: Document = {"job": job, "n": n, "k": k, "data": chunks[k], "at": self._now()}
            if k == 0:
                chunk |= {"chunks": len(chunks), **counts}
            await self.collection.replace_one(key, {**key, **chunk}, upsert=True)

    async def one(self, job: str, n: int, kind: type[Part]) -> Part | None:
        found = await self.all(job, kind, n, 1)
        return found[0] if found else None

    async def all(self, job: str, kind: type[Part], start: int, limit: int | None) -> list[Part]:
        numbers: Document = {"$gte": start} if limit is None else {"$gte": start, "$lt": start + limit}
        cursor = self.collection.find({"job": job, "n": numbers}).sort([("n", ASCENDING), ("k", ASCENDING)])
        packed: dict[int, list[bytes]] = {}
        expected: dict[int, int] = {}
        async for one in cursor:
            packed.setdefault(one["n"], []).append(bytes(one["data"]))
            if one["k"] == 0:
                expected[one["n"]] = one["chunks"]
        whole = [
            b"".join(chunks[: expected[n]])
            for n, chunks in packed.items()
            if n in expected and len(chunks) >= expected[n]
        ]
        return await asyncio.to_thread(
            lambda: [kind.model_validate_json(zlib.decompress(one)) for one in whole]
        )

    async def counts(self, job: str) -> tuple[int, int]:
        """Items, and those that failed."""
        fields = {"items": 1, "failed": 1}
        found = await self.collection.find({"job": job, "k": 0}, fields).to_list()
        return sum(one["items"] for one in found), sum(one["failed"] for one in found)


def _document(plan: JobPlan) -> Document:
    document = plan.job.model_dump(exclude={"id", "metadata"})
    document["task"] = plan.job.task.value
    # As text: names in them may be what field names may not.
    document["metadata"] = orjson.dumps(plan.job.metadata).decode()
    document["plan"] = plan.model_dump_json(exclude={"job"})
    return document


def _plan(document: Document) -> JobPlan:
    fields = {name: value for name, value in document.items() if name not in ("_id", "plan", "at")}
    fields["id"] = document["_id"]
    fields["metadata"] = orjson.loads(document["metadata"])
    return JobPlan.model_validate({"job": fields, **orjson.loads(document["plan"])})
