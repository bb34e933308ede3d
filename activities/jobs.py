"""The activities of a job: thin shells around the models and the store of jobs."""

from __future__ import annotations

import asyncio
from typing import Protocol

from temporalio import activity

from activities.attending import beating, handed_over
from activities.job_ports import JobStore
from goatherd.contracts.inference_job import ComputePart, JobProgress, PartOutcomes, SettleJob
from goatherd.contracts.inference_work import InferAnswer, InferOrder
from goatherd.errors import GoatherdError, NotFound
from goatherd.temporal import failure


class Answering(Protocol):
    """Whoever has models compute (`InferenceActivities`)."""

    async def answer(self, order: InferOrder) -> InferAnswer: ...


class JobActivities:
    """What a job has done by models."""

    def __init__(self, store: JobStore, models: Answering) -> None:
        self._store = store
        self._models = models

    @activity.defn(name="job.compute_part")
    async def compute_part(self, part: ComputePart) -> JobProgress:
        """Computes a part, and keeps its outcomes. A second time gives the same, and counts once."""
        try:
            async with beating():
                return await self._compute(part)
        except GoatherdError as error:
            raise failure(error) from error
        except asyncio.CancelledError:
            if (over := handed_over("the job")) is not None:
                raise over from None
            raise

    async def _compute(self, part: ComputePart) -> JobProgress:
        inputs = await self._store.part(part.job, part.n)
        if inputs is None:
            raise NotFound(f"The job {part.job!r} has no inputs {part.n} any more.")
        order = InferOrder(
            model=part.model, task=part.task, items=inputs.items, spec=part.spec, owner=part.job
        )
        answer = await self._models.answer(order)
        outcomes = PartOutcomes(job=part.job, n=part.n, outcomes=answer.outcomes)
        await self._store.put_outcomes(outcomes, attempt=part.attempt)
        failed = sum(one.problem is not None for one in answer.outcomes)
        return JobProgress(total=len(inputs.items), done=len(answer.outcomes), failed=failed)


class JobSettling:
    """What a job has done in the store alone."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    @activity.defn(name="job.settle")
    async def settle_job(self, settled: SettleJob) -> None:
        """Ends an attempt of a job. Idempotent."""
        try:
            await self._store.settle(settled)
        except GoatherdError as error:
            raise failure(error) from error
