"""Jobs in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from activities.backends.memory import page_of
from activities.ports import Page
from goatherd.contracts.inference_job import ENDED, Job, JobPart, JobPlan, PartOutcomes, SettleJob
from goatherd.contracts.inference_work import Problem
from goatherd.payloads import utc_now


class MemoryJobStore:
    """`JobStore` in memory."""

    def __init__(self, *, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self._plans: dict[str, JobPlan] = {}
        self._parts: dict[tuple[str, int], JobPart] = {}
        self._outcomes: dict[tuple[str, int], PartOutcomes] = {}

    async def prepare(self) -> None:
        """Nothing to do."""

    async def add(self, plan: JobPlan, parts: Sequence[JobPart]) -> None:
        for part in parts:
            self._parts.setdefault((part.job, part.n), part)
        self._plans.setdefault(plan.job.id, plan)

    async def plan(self, job: str) -> JobPlan | None:
        return self._plans.get(job)

    async def jobs(
        self, owner: str, page: Page, *, status: str | None = None, model: str | None = None
    ) -> list[Job]:
        found = [
            plan.job
            for plan in self._plans.values()
            if plan.job.owner == owner
            and (status is None or plan.job.status == status)
            and (model is None or plan.job.model == model)
        ]
        return page_of(found, page, lambda job: job.id)

    async def open(self, ids: Sequence[str]) -> list[str]:
        return [id for id in ids if id in self._plans and self._plans[id].job.status not in ENDED]

    async def part(self, job: str, n: int) -> JobPart | None:
        return self._parts.get((job, n))

    async def put_outcomes(self, outcomes: PartOutcomes) -> None:
        plan = self._plans.get(outcomes.job)
        if plan is None or plan.job.attempt != outcomes.attempt or plan.job.status in ENDED:
            return
        self._outcomes[outcomes.job, outcomes.n] = outcomes
        done = [one for part in await self.outcomes(outcomes.job) for one in part.outcomes]
        failed = sum(one.problem is not None for one in done)
        progress = plan.job.progress.model_copy(update={"done": len(done), "failed": failed})
        begun = plan.job.started_at or self._now()
        self._change(plan, status="running", progress=progress, started_at=begun, error=None)

    async def outcomes(self, job: str, *, start: int = 0, limit: int | None = None) -> list[PartOutcomes]:
        found = {n: part for (of, n), part in self._outcomes.items() if of == job and n >= start}
        return [found[n] for n in sorted(found) if limit is None or n < start + limit]

    async def put_error(self, job: str, attempt: int, error: Problem) -> None:
        plan = self._plans.get(job)
        if plan is not None and plan.job.attempt == attempt and plan.job.status not in ENDED:
            self._change(plan, error=error)

    async def settle(self, settled: SettleJob) -> bool:
        plan = self._plans.get(settled.job)
        if plan is None or plan.job.attempt != settled.attempt or plan.job.status in ENDED:
            return False
        self._change(plan, status=settled.status, error=settled.error, finished_at=self._now())
        return True

    async def begin_again(self, job: str, attempt: int) -> bool:
        plan = self._plans.get(job)
        if plan is None or plan.job.attempt != attempt - 1 or plan.job.status not in ENDED:
            return False
        again = {"status": "queued", "attempt": attempt, "begun_at": self._now()}
        self._change(plan, **again, error=None, finished_at=None)
        return True

    def _change(self, plan: JobPlan, **fields: object) -> None:
        job = Job.model_validate(plan.job.model_dump() | fields)
        self._plans[job.id] = plan.model_copy(update={"job": job})
