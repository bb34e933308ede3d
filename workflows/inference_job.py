"""A job: some inputs for one model, computed part by part, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    TimeoutError,
    is_cancelled_exception,
)

from activities.jobs import JobActivities, JobSettling
from goatherd.contracts.inference_job import JOB_WORKFLOW, ComputePart, JobEnd, SettleJob, StartJob
from goatherd.contracts.inference_work import Problem
from goatherd.contracts.queues import Pool, task_queue

PARTS_AT_ONCE = 4
_PART_WITHIN = timedelta(hours=6)
_LOST_AFTER = timedelta(seconds=5)
_SETTLE_WITHIN = timedelta(seconds=10)
_LATE = Problem(code="deadline-exceeded", message="The job was not done in its time.")
_PATIENT = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2, maximum_interval=timedelta(seconds=30)
)


@workflow.defn(name=JOB_WORKFLOW)
class InferenceJob:
    """One attempt of a job. Its parts' inputs and outcomes are in the store, so that its history stays small:
    some six events a part, at most as many parts as one request may have inputs."""

    @workflow.run
    async def run(self, start: StartJob) -> JobEnd:
        """Ends when every part has its outcomes, or one can't have any; cancelled, when that is settled."""
        self._start = start
        self._until = workflow.info().start_time + timedelta(seconds=start.timeout_s)
        try:
            error = await self._compute_all()
        except BaseException as raised:
            if not is_cancelled_exception(raised):
                raise
            await self._settle(SettleJob(job=start.job, attempt=start.attempt, status="cancelled"))
            raise
        status = "completed" if error is None else "failed"
        await self._settle(SettleJob(job=start.job, attempt=start.attempt, status=status, error=error))
        return JobEnd(status=status, reason=None if error is None else error.code)

    async def _compute_all(self) -> Problem | None:
        """Why a part can't be computed, if so: the others are not begun then."""
        left = list(reversed(self._start.parts))
        errors: list[Problem] = []

        async def lane() -> None:
            while left and not errors:
                problem = await self._compute(left.pop())
                if problem is not None:
                    errors.append(problem)

        await asyncio.gather(*(lane() for _ in range(min(PARTS_AT_ONCE, len(left)))))
        return errors[0] if errors else None

    async def _compute(self, n: int) -> Problem | None:
        start = self._start
        left = self._until - workflow.now()
        if left <= timedelta(0):
            return _LATE
        part = ComputePart(
            job=start.job, n=n, attempt=start.attempt, model=start.model, task=start.task, spec=start.spec
        )
        try:
            await workflow.execute_activity_method(
                JobActivities.compute_part,
                part,
                task_queue=task_queue(Pool.INFERENCE, start.task_queue_prefix),
                start_to_close_timeout=_PART_WITHIN,
                schedule_to_close_timeout=left,
                heartbeat_timeout=_LOST_AFTER,
                retry_policy=_PATIENT,
                summary=f"part {n}",
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return _problem(error)
        return None

    async def _settle(self, settled: SettleJob) -> None:
        await workflow.execute_activity_method(
            JobSettling.settle_job,
            settled,
            task_queue=task_queue(Pool.STORE, self._start.task_queue_prefix),
            start_to_close_timeout=_SETTLE_WITHIN,
            retry_policy=_PATIENT,
        )


def _problem(error: ActivityError) -> Problem:
    match error.cause:
        case ApplicationError() as cause:
            pointer = next((one for one in cause.details if isinstance(one, str)), None)
            return Problem(code=cause.type or "error", message=cause.message, pointer=pointer)
        case TimeoutError():
            return _LATE
    return Problem(code="error", message=str(error.cause or error))
