"""Brings the store in line with a job whose workflow is gone (see `reconcile`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from activities.job_ports import JobStore
from activities.reconcile import Ended
from goatherd.contracts.inference_job import ENDED, JOB_WORKFLOW, Job, JobStatus, SettleJob
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
        return await self._store.open(ids)

    async def has(self, id: str) -> bool:
        return await self._store.plan(id) is not None

    async def put(self, document: Job) -> None:
        raise NotImplementedError("A job without inputs can't be made.")

    async def end(self, id: str, ended: Ended) -> None:
        """As its workflow says, if it has ended by itself; else as cancelled or failed."""
        plan = await self._store.plan(id)
        if plan is None or plan.job.status in ENDED:
            return
        said = (ended.outcome or {}).get("status")
        status: JobStatus = (
            said if said in ENDED else "cancelled" if ended.reason == "cancelled" else "failed"
        )
        error = None
        if status == "failed":
            error = Problem(
                code="job-ended", message=f"The job's workflow ended from outside: {ended.reason}."
            )
        if await self._store.settle(SettleJob(job=id, attempt=plan.job.attempt, status=status, error=error)):
            log.warning("job ended from outside", job=id, reason=ended.reason)
