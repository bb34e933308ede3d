"""Jobs: made, waited for, cancelled, retried, and their results read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from temporalio.client import Client, WorkflowFailureError
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from activities.blobs import Blobs
from activities.job_ports import JobStore
from activities.job_reconcile import JobReadSide
from activities.ports import Page
from activities.reconcile import how_ended
from api.grouped_calls import check_task
from api.hf_inputs import Asked
from api.idempotency import Ids
from api.model_registry import ModelRegistry
from goatherd.contracts.inference_job import (
    ENDED,
    JOB_WORKFLOW,
    Job,
    JobPart,
    JobPlan,
    JobProgress,
    SettleJob,
    StartJob,
    attempt_id,
)
from goatherd.contracts.inference_tasks import SHAPES, Media, Task
from goatherd.contracts.inference_work import ModelEntry, Outcome, Problem, WorkItem
from goatherd.contracts.model import Json
from goatherd.contracts.queues import Pool
from goatherd.errors import Conflict, NotFound
from goatherd.security.access import Principal, require
from goatherd.settings import Settings
from goatherd.temporal import OWNER, is_gone, translate

_RPC_TIMEOUT = timedelta(seconds=10)
_STARTING = timedelta(seconds=10)
"""So long after a job was made, or begun again, its workflow may not be there yet."""
_NOT_COMPUTED = Problem(code="not-computed", message="This was not computed.")


class JobNotDone(Conflict):
    """There is no result yet, or there will be none."""

    code = "job-not-done"


@dataclass(frozen=True, slots=True)
class JobResult:
    """A job's answer: what was asked, and each item's outcome, files with their bytes."""

    task: Task
    asked: Asked
    outcomes: list[Outcome]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a job is made of."""

    task: Task
    asked: Asked
    metadata: Json
    timeout_s: float


class JobService:
    """What can be done with jobs. A job is in the store before it is started, and is started before it is
    answered for: what was answered is done, whoever dies."""

    def __init__(
        self, client: Client, store: JobStore, blobs: Blobs, registry: ModelRegistry, settings: Settings
    ) -> None:
        self._client = client
        self._store = store
        self._blobs = blobs
        self._registry = registry
        self._settings = settings
        self._side = JobReadSide(store)

    async def create(self, ids: Ids, principal: Principal, entry: ModelEntry, wish: Wish) -> Job:
        """Raises `WrongTask`, `Unavailable`."""
        check_task(entry, wish.task)
        id = ids.make("job", "job")
        items = [await self._ready(wish.task, item, id) for item in wish.asked.items]
        most = entry.spec.limits.batch
        parts = [
            JobPart(job=id, n=n, items=items[begin : begin + most])
            for n, begin in enumerate(range(0, len(items), most))
        ]
        job = Job(
            id=id,
            owner=principal.id,
            model=entry.name,
            task=wish.task,
            progress=JobProgress(total=len(items)),
            created_at=datetime.now(UTC),
            metadata=wish.metadata,
        )
        plan = JobPlan(
            job=job,
            spec=entry.spec,
            parts=len(parts),
            many=wish.asked.many,
            parameters=wish.asked.parameters,
            base64=wish.asked.base64,
            timeout_s=wish.timeout_s,
        )
        await self._store.add(plan, parts)
        await self._start(plan, list(range(len(parts))))
        return await self._job(principal, id) if ids.keyed else job

    async def job(self, principal: Principal, id: str, *, wait_s: float = 0.0) -> Job:
        """As it is; or, waiting for at most so long, as it has ended. Raises `NotFound`."""
        job = await self._job(principal, id)
        if job.status in ENDED:
            return job
        young = datetime.now(UTC) - (job.begun_at or job.created_at) < _STARTING
        if wait_s:
            await self._wait(job, wait_s)
        if wait_s or not young:
            await self._see_to_it(job, young=young)
        return await self._job(principal, id)

    async def jobs(
        self, principal: Principal, page: Page, *, status: str | None, model: str | None
    ) -> list[Job]:
        return await self._store.jobs(principal.id, page, status=status, model=model)

    async def cancel(self, principal: Principal, id: str) -> Job:
        """Has it stop; what is computed is kept. One that has ended stays as it is."""
        job = await self._job(principal, id)
        if job.status in ENDED:
            return job
        try:
            workflow = attempt_id(id, job.attempt)
            await self._client.get_workflow_handle(workflow).cancel(rpc_timeout=_RPC_TIMEOUT)
        except RPCError as error:
            if not is_gone(error):
                raise translate(error) from error
            await self._store.settle(SettleJob(job=id, attempt=job.attempt, status="cancelled"))
        return await self._job(principal, id)

    async def retry(self, principal: Principal, id: str) -> Job:
        """Computes what has no output yet, of a job that has ended; what it has, it keeps.

        Raises `Conflict` (`job-running`, `job-completed`) if it runs, or has all its outputs.
        """
        plan = require(principal, await self._plan(id), f"job {id!r}").plan
        job = plan.job
        if job.status not in ENDED:
            raise Conflict("The job has not ended: wait for it, or cancel it first.", code="job-running")
        done = {part.n: part for part in await self._store.outcomes(id)}
        left = [
            n
            for n in range(plan.parts)
            if n not in done or any(one.problem is not None for one in done[n].outcomes)
        ]
        if not left:
            raise Conflict("The job has all of its outputs.", code="job-completed")
        # The model as it is registered now: maybe that is what has been mended.
        spec = self._registry.entry(job.model).spec
        plan = plan.model_copy(
            update={"job": job.model_copy(update={"attempt": job.attempt + 1}), "spec": spec}
        )
        if not await self._store.begin_again(id, plan.job.attempt):
            raise Conflict("Somebody else has just begun it again.", code="job-running")
        await self._start(plan, left)
        return await self._job(principal, id)

    async def result(self, principal: Principal, id: str, *, partial: bool = False) -> JobResult:
        """Raises `JobNotDone` unless every input has its outcome. `partial`: what has none yet has a problem
        (`not-computed`), and what there is can be read while the job runs."""
        plan = require(principal, await self._plan(id), f"job {id!r}").plan
        job = plan.job
        done = {}
        if partial or job.status in ENDED:
            done = {part.n: part.outcomes for part in await self._store.outcomes(id)}
        if len(done) < plan.parts and not partial:
            raise JobNotDone(
                f"The job is {job.status}, with {job.progress.done} of {job.progress.total} inputs done. "
                "With `partial=true` these can be read."
            )
        items: list[WorkItem] = []
        outcomes: list[Outcome] = []
        for n in range(plan.parts):
            part = await self._store.part(id, n)
            if part is None:
                raise NotFound(f"The job {id!r} is too old: it is not kept any more.")
            items += part.items
            outcomes += done.get(n) or [Outcome(problem=_NOT_COMPUTED)] * len(part.items)
        outcomes = [await self._with_bytes(job.task, one) for one in outcomes]
        asked = Asked(items, plan.many, plan.parameters, base64=plan.base64)
        return JobResult(job.task, asked, outcomes)

    async def _start(self, plan: JobPlan, parts: Sequence[int]) -> None:
        job = plan.job
        start = StartJob(
            job=job.id,
            model=job.model,
            task=job.task,
            spec=plan.spec,
            owner=job.owner,
            attempt=job.attempt,
            parts=list(parts),
            timeout_s=plan.timeout_s,
            task_queue_prefix=self._settings.task_queue_prefix,
        )
        try:
            await self._client.start_workflow(
                JOB_WORKFLOW,
                start,
                id=attempt_id(job.id, job.attempt),
                task_queue=self._settings.task_queue(Pool.ACTORS),
                # A request that is repeated does not do an attempt again.
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                static_summary=f"{job.task} by {job.model}",
                search_attributes=TypedSearchAttributes([SearchAttributePair(OWNER, job.owner)]),
                rpc_timeout=_RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            return
        except RPCError as error:
            raise translate(error) from error

    async def _wait(self, job: Job, wait_s: float) -> None:
        """Until its workflow is closed, however."""
        handle = self._client.get_workflow_handle(attempt_id(job.id, job.attempt))
        try:
            async with asyncio.timeout(wait_s):
                await handle.result()
        except TimeoutError:
            return
        except RPCError as error:
            if not is_gone(error):
                raise translate(error) from error
        except WorkflowFailureError:
            return

    async def _see_to_it(self, job: Job, *, young: bool) -> None:
        """Ends a job in the store whose workflow has ended, or is not there; a young one's may come yet."""
        workflow = attempt_id(job.id, job.attempt)
        ended = await how_ended(self._client, workflow)
        if ended is not None and not (young and ended.reason == "lost"):
            await self._side.end(workflow, ended)

    async def _job(self, principal: Principal, id: str) -> Job:
        return require(principal, await self._plan(id), f"job {id!r}").plan.job

    async def _plan(self, id: str) -> _Owned | None:
        plan = await self._store.plan(id)
        return None if plan is None else _Owned(plan.job.owner, plan)

    async def _ready(self, task: Task, item: WorkItem, job: str) -> WorkItem:
        """The item as it is kept: a large file by its claim."""
        if not SHAPES[task].media:
            return item
        media = await self._blobs.stow(Media.model_validate(item.inputs), job)
        return item.model_copy(update={"inputs": media.model_dump(mode="json", exclude_none=True)})

    async def _with_bytes(self, task: Task, outcome: Outcome) -> Outcome:
        if SHAPES[task].output is not Media or outcome.output is None:
            return outcome
        media = await self._blobs.fetch(Media.model_validate(outcome.output))
        return outcome.model_copy(update={"output": media})


@dataclass(frozen=True, slots=True)
class _Owned:
    """A plan as a resource with an owner."""

    owner: str
    plan: JobPlan
