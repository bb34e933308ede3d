"""The activities of a job: thin shells around the models and the store of jobs."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

from temporalio import activity

from activities.attending import beating, handed_over
from activities.inference_items import problem
from activities.job_ports import JobStore
from goatherd.contracts.inference_job import ComputePart, JobProgress, PartOutcomes, SettleJob
from goatherd.contracts.inference_work import InferAnswer, InferOrder, Outcome, Problem
from goatherd.errors import GoatherdError, NotFound, Unavailable, from_code
from goatherd.temporal import failure

MOST_TRIES = 20
"""Of a part some of whose items have errors that may pass; then these are their outcomes."""
MOST_LOST = 5
_TELL_WITHIN_S = 2.0
_POISON = Problem(
    code="worker-lost-too-often",
    message=f"The worker that computed this, and what was with it, was lost {MOST_LOST} times.",
)


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
        """Computes what a part has no outcomes of yet, and keeps them.

        An error of one item that may pass fails this try, and the next one computes that item again. A part
        whose worker is lost again and again is given up, since it may be what kills them.
        """
        # The last try left how often workers were lost before it. If it was lost itself, this one is told so.
        told = list(activity.info().heartbeat_details)
        lost = int(told[0]) + 1 if told else 0
        try:
            async with beating(lost):
                return await self._compute(part, lost)
        except GoatherdError as error:
            activity.heartbeat(-1)
            if error.retryable:
                await self._tell(part, error)
            raise failure(error) from error
        except asyncio.CancelledError:
            activity.heartbeat(lost - 1)
            if (over := handed_over("the job")) is not None:
                raise over from None
            raise

    async def _tell(self, part: ComputePart, error: GoatherdError) -> None:
        """What the job waits for, for those who look at it. If that is the store, it can't be told."""
        with suppress(GoatherdError, TimeoutError):
            async with asyncio.timeout(_TELL_WITHIN_S):
                await self._store.put_error(part.job, part.attempt, problem(error))

    async def _compute(self, part: ComputePart, lost: int) -> JobProgress:
        inputs = await self._store.part(part.job, part.n)
        if inputs is None:
            raise NotFound(f"The job {part.job!r} has no inputs {part.n} any more.")
        outcomes = await self._so_far(part, len(inputs.items))
        left = [place for place, outcome in enumerate(outcomes) if outcome is None]
        if left and lost >= MOST_LOST:
            for place in left:
                outcomes[place] = Outcome(problem=_POISON)
        elif left:
            order = InferOrder(
                model=part.model,
                task=part.task,
                items=[inputs.items[place] for place in left],
                spec=part.spec,
                owner=part.job,
            )
            answer = await self._models.answer(order)
            for place, outcome in zip(left, answer.outcomes, strict=True):
                outcomes[place] = outcome
        known = [one for one in outcomes if one is not None]
        await self._store.put_outcomes(
            PartOutcomes(job=part.job, n=part.n, outcomes=known, attempt=part.attempt)
        )
        problems = [one.problem for one in known if one.problem is not None]
        passing = [one for one in problems if _may_pass(one)]
        if passing and activity.info().attempt < MOST_TRIES:
            longest = max(one.retry_after_s or 1.0 for one in passing)
            raise Unavailable(passing[0].message, retry_after_s=longest)
        return JobProgress(total=len(known), done=len(known), failed=len(problems))

    async def _so_far(self, part: ComputePart, count: int) -> list[Outcome | None]:
        """What need not be computed: outputs; and errors that this attempt has seen, and that do not pass."""
        found = await self._store.outcomes(part.job, start=part.n, limit=1)
        if not found or len(found[0].outcomes) != count:
            return [None] * count
        this = found[0].attempt == part.attempt
        return [
            one if one.problem is None or (this and not _may_pass(one.problem)) else None
            for one in found[0].outcomes
        ]


def _may_pass(problem: Problem) -> bool:
    return from_code(problem.code, problem.message).retryable


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
