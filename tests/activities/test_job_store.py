"""What every `JobStore` does, on MongoDB and in memory."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.memory_jobs import MemoryJobStore
from activities.backends.mongo_jobs import MongoJobStore
from activities.backends.projection import Document
from activities.job_ports import JobStore
from activities.ports import Page
from goatherd.contracts.ids import new_id
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_job import (
    Job,
    JobPart,
    JobPlan,
    JobProgress,
    JobStatus,
    PartOutcomes,
    SettleJob,
)
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.inference_work import Outcome, Problem, WorkItem


@pytest.fixture
async def mongo_jobs(database: AsyncDatabase[Document]) -> MongoJobStore:
    store = MongoJobStore(database)
    await store.prepare()
    return store


@pytest.fixture(params=["memory", "mongo"])
def jobs(request: pytest.FixtureRequest) -> JobStore:
    store: JobStore = MemoryJobStore()
    return store if request.param == "memory" else request.getfixturevalue("mongo_jobs")


def plan(total: int = 3, **fields: Any) -> JobPlan:
    given = {
        "id": new_id("job"),
        "owner": "ann",
        "model": "org/m",
        "task": Task.FILL_MASK,
        "created_at": datetime.now(UTC),
        "metadata": {"$a.b": [None, 1]},
    }
    job = Job.model_validate({**given, **fields, "progress": JobProgress(total=total)})
    return JobPlan(job=job, spec=ModelSpec(source="x"), parts=2, many=True, parameters={"top_k": 2})


def inputs(job: str, n: int, *texts: str) -> JobPart:
    return JobPart(job=job, n=n, items=[WorkItem(inputs=text) for text in texts])


def done(job: str, n: int, *outputs: str | None, attempt: int = 1) -> PartOutcomes:
    problem = Problem(code="invalid", message="no")
    outcomes = [Outcome(problem=problem) if one is None else Outcome(output=one) for one in outputs]
    return PartOutcomes(job=job, n=n, outcomes=outcomes, attempt=attempt)


async def begun(jobs: JobStore, **fields: Any) -> str:
    made = plan(**fields)
    id = made.job.id
    await jobs.add(made, [inputs(id, 0, "a", "b"), inputs(id, 1, "c")])
    return id


async def read(jobs: JobStore, id: str) -> Job:
    found = await jobs.plan(id)
    assert found is not None
    return found.job


async def test_a_job_is_read_as_it_was_added(jobs: JobStore) -> None:
    made = plan()
    id = made.job.id
    parts = [inputs(id, 0, "a", "b"), inputs(id, 1, "c")]
    await jobs.add(made, parts)
    await jobs.add(made, parts)
    assert await jobs.plan(id) == made
    assert [await jobs.part(id, n) for n in (0, 1, 2)] == [*parts, None]
    assert await jobs.plan("job_nobody") is None
    assert await jobs.outcomes(id) == []


async def test_parts_of_many_megabytes_are_read_as_they_were_added(jobs: JobStore) -> None:
    made = plan()
    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=9_000_000))
    await jobs.add(made, [inputs(made.job.id, 0, noise), inputs(made.job.id, 1, "small")])
    assert await jobs.part(made.job.id, 0) == inputs(made.job.id, 0, noise)
    await jobs.put_outcomes(done(made.job.id, 0, noise))
    await jobs.put_outcomes(done(made.job.id, 0, "small"))
    assert await jobs.outcomes(made.job.id) == [done(made.job.id, 0, "small")]


async def test_outcomes_are_counted_once_however_often_they_come(jobs: JobStore) -> None:
    id = await begun(jobs)
    for _ in range(2):
        await jobs.put_outcomes(done(id, 1, None))
    job = await read(jobs, id)
    assert (job.status, job.progress) == ("running", JobProgress(total=3, done=1, failed=1))
    assert job.started_at is not None
    assert await jobs.outcomes(id, limit=1) == []
    await jobs.put_outcomes(done(id, 0, "A", "B"))
    assert (await read(jobs, id)).progress == JobProgress(total=3, done=3, failed=1)
    assert (await read(jobs, id)).started_at == job.started_at
    assert await jobs.outcomes(id) == [done(id, 0, "A", "B"), done(id, 1, None)]
    assert await jobs.outcomes(id, start=1) == [done(id, 1, None)]
    assert await jobs.outcomes(id, limit=1) == [done(id, 0, "A", "B")]


async def test_a_job_ends_once(jobs: JobStore) -> None:
    id = await begun(jobs)
    problem = Problem(code="wrong-task", message="no", pointer="/task")
    assert await jobs.settle(SettleJob(job=id, attempt=1, status="failed", error=problem))
    assert not await jobs.settle(SettleJob(job=id, attempt=1, status="completed"))
    job = await read(jobs, id)
    assert (job.status, job.error) == ("failed", problem)
    assert job.finished_at is not None
    assert await jobs.open([id]) == []


async def test_what_comes_after_the_end_does_not_count(jobs: JobStore) -> None:
    id = await begun(jobs)
    await jobs.settle(SettleJob(job=id, attempt=1, status="cancelled"))
    await jobs.put_outcomes(done(id, 0, "A", "B"))
    assert (await read(jobs, id)).status == "cancelled"
    assert await jobs.outcomes(id) == []


async def test_a_job_that_has_ended_begins_again_and_keeps_what_it_has(jobs: JobStore) -> None:
    id = await begun(jobs)
    await jobs.put_outcomes(done(id, 0, "A", "B"))
    assert not await jobs.begin_again(id, 2)
    await jobs.settle(SettleJob(job=id, attempt=1, status="failed"))
    assert not await jobs.begin_again(id, 3)
    assert await jobs.begin_again(id, 2)
    assert not await jobs.begin_again(id, 2)
    job = await read(jobs, id)
    assert (job.status, job.attempt, job.error, job.finished_at) == ("queued", 2, None, None)
    assert await jobs.outcomes(id) == [done(id, 0, "A", "B")]


async def test_an_attempt_that_was_given_up_changes_nothing(jobs: JobStore) -> None:
    id = await begun(jobs)
    await jobs.settle(SettleJob(job=id, attempt=1, status="failed"))
    await jobs.begin_again(id, 2)
    await jobs.put_outcomes(done(id, 0, "old", "old"))
    assert not await jobs.settle(SettleJob(job=id, attempt=1, status="completed"))
    assert await jobs.outcomes(id) == []
    assert (await read(jobs, id)).status == "queued"


async def test_what_a_job_waits_for_is_kept_until_it_goes_on(jobs: JobStore) -> None:
    id = await begun(jobs)
    away = Problem(code="unavailable", message="not now", retry_after_s=2.0)
    await jobs.put_error(id, 2, away)
    assert (await read(jobs, id)).error is None
    await jobs.put_error(id, 1, away)
    assert (await read(jobs, id)).error == away
    await jobs.put_outcomes(done(id, 0, "A", "B"))
    assert (await read(jobs, id)).error is None
    await jobs.settle(SettleJob(job=id, attempt=1, status="completed"))
    await jobs.put_error(id, 1, away)
    assert (await read(jobs, id)).error is None


async def test_an_owners_jobs_are_listed_by_page_and_filter(jobs: JobStore) -> None:
    mine = sorted([await begun(jobs) for _ in range(5)])
    await begun(jobs, owner="bob")
    other = await begun(jobs, model="other")
    await jobs.settle(SettleJob(job=mine[0], attempt=1, status="completed"))

    async def ids(page: Page, **filters: str) -> list[str]:
        return [job.id for job in await jobs.jobs("ann", page, **filters)]

    assert set(await ids(Page(descending=True))) == {*mine, other}
    assert await ids(Page(limit=2), model="org/m") == mine[:2]
    assert await ids(Page(limit=2, after=mine[1]), model="org/m") == mine[2:4]
    assert await ids(Page(limit=9, descending=True), model="org/m") == mine[::-1]
    assert await ids(Page(), status="completed") == [mine[0]]


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_those_that_have_ended_are_not_open(jobs: JobStore, status: JobStatus) -> None:
    ended, running, queued = [await begun(jobs) for _ in range(3)]
    await jobs.settle(SettleJob(job=ended, attempt=1, status=status))
    await jobs.put_outcomes(done(running, 0, "A", "B"))
    assert set(await jobs.open([ended, running, queued, "job_nobody"])) == {running, queued}
