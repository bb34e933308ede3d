"""Where jobs are kept, as a protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from activities.ports import Page
from goatherd.contracts.inference_job import Job, JobPart, JobPlan, PartOutcomes, SettleJob
from goatherd.contracts.inference_work import Problem


class JobStore(Protocol):
    """Plans, inputs and outcomes of jobs. A job and all that belongs to it goes some time after it was made.

    An attempt's writes count only while it is the job's latest: an attempt that was given up can't spoil the
    next one.
    """

    async def prepare(self) -> None:
        """Makes collections and indexes. Idempotent."""

    async def add(self, plan: JobPlan, parts: Sequence[JobPart]) -> None:
        """Keeps a new job, its inputs first. The same again changes nothing."""

    async def plan(self, job: str) -> JobPlan | None: ...

    async def jobs(
        self, owner: str, page: Page, *, status: str | None = None, model: str | None = None
    ) -> list[Job]:
        """The owner's, by id (that is, by when they were made)."""

    async def open(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that have not ended."""

    async def part(self, job: str, n: int) -> JobPart | None: ...

    async def put_outcomes(self, outcomes: PartOutcomes) -> None:
        """Keeps a part's outcomes in place of those it had, and counts them: the job is running, and waits
        for nothing."""

    async def outcomes(self, job: str, *, start: int = 0, limit: int | None = None) -> list[PartOutcomes]:
        """Those there are, by part: of the parts from `start` on, and of the first `limit` of these only."""

    async def put_error(self, job: str, attempt: int, error: Problem) -> None:
        """Keeps what an attempt waits for, until it has outcomes or ends."""

    async def settle(self, settled: SettleJob) -> bool:
        """Ends an attempt. False, and nothing changed, if it is not the latest or has ended."""

    async def begin_again(self, job: str, attempt: int) -> bool:
        """Makes `attempt` the latest of a job that has ended. False if it has not, or is another than the
        last but this."""
