"""Brings the store in line with a job whose workflow is gone (see `reconcile`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from activities.job_ports import JobStore
from activities.reconcile import Ended
from goatherd.contracts.inference_job import (
    ENDED,
    JOB_WORKFLOW,
    Job,
    JobStatus,
    SettleJob,
    attempt_id,
    of_attempt,
)
from goatherd.contracts.inference_work import Problem
from goatherd.telemetry import get_logger

log = get_logger(__name__)


class JobReadSide:
    """`ReadSide` of jobs. A job is in the store before its workflow is started."""

    workflow_type = JOB_WORKFLOW
    document = Job
    grace = timedelta(0)

    def __init__(self, store: JobStore) -> None:
        self._store = store

    async def open(self, ids: Sequence[str]) -> list[str]:
        """Those of attempts that are their job's latest, and have not ended."""
        jobs = await self._store.open(list(dict.fromkeys(of_attempt(id)[0] for id in ids)))
        plans = {job: await self._store.plan(job) for job in jobs}
        latest = {attempt_id(job, plan.job.attempt) for job, plan in plans.items() if plan is not None}
        return [id for id in ids if id in latest]

    async def has(self, id: str) -> bool:
        return await self._store.plan(of_attempt(id)[0]) is not None

    async def put(self, document: Job) -> None:
        raise NotImplementedError("A job without inputs can't be made.")

    async def end(self, id: str, ended: Ended) -> None:
        """As its workflow says, if it has ended by itself; else as cancelled or failed."""
        job, attempt = of_attempt(id)
        said = (ended.outcome or {}).get("status")
        status: JobStatus = (
            said if said in ENDED else "cancelled" if ended.reason == "cancelled" else "failed"
        )
        error = None
        if status == "failed":
            error = Problem(
                code="job-ended", message=f"The job's workflow ended from outside: {ended.reason}."
            )
        if await self._store.settle(SettleJob(job=job, attempt=attempt, status=status, error=error)):
            log.warning("job ended from outside", job=job, attempt=attempt, reason=ended.reason)
