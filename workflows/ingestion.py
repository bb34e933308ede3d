"""Ingestion: an index's documents are taken in, by all of its versions, whatever dies meanwhile.

The store knows what is to do; this workflow knows only what it has in hand. So it may end at any time, and
whoever starts it anew goes on where it was. Whoever writes documents nudges it (`NUDGE`), by a
signal that starts it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    RetryState,
    is_cancelled_exception,
)
from temporalio.exceptions import TimeoutError as ActivityTimeout
from temporalio.workflow import ActivityCancellationType

from activities.indexing import MOST_QUICK, PARTS_AT_ONCE, SUSPECT, IndexPlanning, TakingIn
from goatherd.contracts.queues import Pool, task_queue
from goatherd.contracts.retrieval import (
    INGEST_WORKFLOW,
    NUDGE,
    TIDY_INDEX,
    WARM_INDEX,
    AskPlan,
    Ingest,
    Plan,
    TakeIn,
    Version,
    VersionOf,
    take_in_queue,
)
from workflows.ingestion_lines import Lines, Part

LINGER = timedelta(seconds=5)
"""How long it waits for the next nudge when all is done: a start costs more than that."""
MOST_PARTS = 500
"""Of one run: some six events each."""
_DRAINED_WITHIN = timedelta(seconds=30)
_PART_WITHIN = timedelta(hours=6)
_ALONE_WITHIN = timedelta(minutes=10)
"""A suspect that waits for its model keeps others from being taken in."""
_QUICK_SOON = timedelta(seconds=5)
_QUICK_WITHIN = timedelta(seconds=20)
"""What is taken in without a plan keeps pauses and plans waiting meanwhile."""
_LOST_AFTER = timedelta(seconds=5)
_PLAN_WITHIN = timedelta(seconds=30)
_AUDIT_WITHIN = timedelta(hours=2)
_SWEEP_WITHIN = timedelta(hours=6)
_WARM_SOON = timedelta(seconds=10)
"""How long a worker that could load a version is waited for."""
_WARM_WITHIN = timedelta(minutes=10)
_TIDY_SOON = timedelta(seconds=10)
"""How long a worker that could remove what engines keep is waited for."""
_TIDY_WITHIN = timedelta(minutes=10)
_CATCH_UP_WITHIN = timedelta(seconds=5)
_CATCH_UPS = 4
_SWAPS_REFUSED = 5
"""Swaps in vain after which the next run tries it again."""
_PATIENT = RetryPolicy(
    initial_interval=timedelta(seconds=1), backoff_coefficient=2, maximum_interval=timedelta(seconds=30)
)
_ONCE = RetryPolicy(maximum_attempts=1)
_TWICE = RetryPolicy(maximum_attempts=2)


@workflow.defn(name=INGEST_WORKFLOW)
class Ingestion:
    """One an index. It plans while somebody nudges it or something is left, and has parts taken in, several
    of each version at once. A version that is being built serves when it has all that the serving one has."""

    def __init__(self) -> None:
        self._nudges = 0
        self._planned = -1
        """The nudges that the last plan knew of."""
        self._unsure = True
        """Something has happened since the last plan that may need another."""
        self._quick: Version | None = None
        """The only version, while little is to do."""
        self._may_be_quick = True
        self._in_vain = False
        """Nudged for no work: maybe for what a version has left that is given up."""
        self._lines = Lines()
        self._tasks: dict[asyncio.Task[None], Part] = {}
        self._parts = 0
        self._chore: asyncio.Task[None] | None = None
        self._ready: int | None = None
        """The version that nothing was found to lack, and that a worker has loaded."""
        self._refused = 0
        self._error: BaseException | None = None

    @workflow.signal(name=NUDGE)
    def nudge(self) -> None:
        """There is something to do, or to stop."""
        self._nudges += 1

    @workflow.run
    async def run(self, ingest: Ingest) -> None:
        """Until nothing has been to do for a while; or the index is paused, or gone."""
        self._ingest, self._ready = ingest, ingest.ready
        try:
            while await self._go_on():
                pass
        except BaseException as raised:
            if is_cancelled_exception(raised):
                await self._stop()
            raise

    # -- what comes next

    async def _go_on(self) -> bool:
        """The next step; False: nothing is to be done any more."""
        if self._error is not None:
            raise self._error
        if self._is_long():
            await self._drain()
            workflow.continue_as_new(self._ingest.model_copy(update={"ready": self._ready}))
        if self._wants_plan():
            if self._is_quick():
                await self._take_first()
                return True
            return await self._plan()
        self._begin()
        if self._tasks or self._chore is not None:
            await workflow.wait_condition(self._has_news)
            return True
        return await self._linger()

    def _is_long(self) -> bool:
        most = self._ingest.rounds or MOST_PARTS
        return self._parts >= most or workflow.info().is_continue_as_new_suggested()

    def _wants_plan(self) -> bool:
        return self._unsure or self._nudges != self._planned or self._lines.want_more()

    def _has_news(self) -> bool:
        nothing = not self._tasks and self._chore is None
        return nothing or self._error is not None or self._wants_plan() or self._is_long()

    async def _linger(self) -> bool:
        try:
            await workflow.wait_condition(self._wants_plan, timeout=LINGER)
        except TimeoutError:
            if self._in_vain and not self._wants_plan():
                self._in_vain = False
                await self._sweep(tidy=False)
        # What came just now must not be lost. What comes from here on, Temporal does not let end unseen.
        return self._wants_plan()

    # -- planning

    async def _plan(self) -> bool:
        """Asks what is to do. False: nothing ever again, as far as anybody has said."""
        nudged = self._nudges - max(self._planned, 0)
        self._planned, self._unsure = self._nudges, False
        busy, in_hand = self._lines.known()
        ask = AskPlan(
            index=self._ingest.index, in_hand=in_hand, busy=busy, gather=nudged > 1 and self._parts > 0
        )
        plan: Plan = await workflow.execute_activity_method(
            IndexPlanning.plan,
            ask,
            task_queue=self._queue(Pool.STORE),
            start_to_close_timeout=_PLAN_WITHIN,
            retry_policy=_PATIENT,
        )
        if plan.gone or plan.paused:
            await self._stop()
            if plan.gone:
                await self._sweep()
            return self._wants_plan()
        for number in self._lines.follow(plan.work, busy):
            await self._stop(number)
        self._quick = _only_little(plan) if self._may_be_quick else None
        if any(one.parts for one in plan.work):
            self._in_vain = False
        elif nudged and not self._tasks:
            self._in_vain = True
        self._begin()
        if plan.complete:
            await self._bring_forward()
        return True

    # -- parts

    def _is_quick(self) -> bool:
        under_way = self._tasks or self._chore is not None
        return self._quick is not None and not (under_way or self._unsure or self._lines.want_more())

    async def _take_first(self) -> None:
        """Has what is to do taken in without a plan: all that a stream of single documents needs. Whatever
        comes in its way, a plan is made."""
        assert self._quick is not None
        self._planned = self._nudges
        self._parts += 1
        try:
            taken = await workflow.execute_activity_method(
                TakingIn.take_in,
                self._order(self._quick, first=MOST_QUICK),
                task_queue=self._take_in_queue(self._quick),
                schedule_to_start_timeout=_QUICK_SOON,
                start_to_close_timeout=_QUICK_WITHIN,
                heartbeat_timeout=_LOST_AFTER,
                retry_policy=_ONCE,
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            self._quick, self._unsure, self._may_be_quick = None, True, False
            return
        if taken.more:
            self._quick, self._unsure = None, True
        self._in_vain = not (taken.done or taken.failed)

    def _begin(self) -> None:
        """Has as many parts taken in as may be."""
        if any(part.alone for part in self._tasks.values()):
            return
        while not self._is_long() and (part := self._lines.next(PARTS_AT_ONCE)) is not None:
            self._start(part)
        if not self._tasks and not self._is_long() and (part := self._lines.next_suspect()) is not None:
            self._start(part)

    def _start(self, part: Part) -> None:
        self._parts += 1
        task = asyncio.create_task(self._take_in(part))
        self._tasks[task] = part
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        part = self._tasks.pop(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not is_cancelled_exception(error):
            self._error = error
        if self._lines.end(part) and self._lines.building is not None:
            # The last one of a version: this may be all that the one that is being built lacked.
            self._unsure = True
        self._begin()

    async def _take_in(self, part: Part) -> None:
        version = self._lines.version(part.version)
        try:
            await workflow.execute_activity_method(
                TakingIn.take_in,
                self._order(version, docs=part.docs, alone=part.alone),
                task_queue=self._take_in_queue(version),
                start_to_close_timeout=_PART_WITHIN,
                schedule_to_close_timeout=_ALONE_WITHIN if part.alone else None,
                heartbeat_timeout=_LOST_AFTER,
                retry_policy=_PATIENT,
                # Nothing is kept any more when it has ended: others count on that.
                cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                summary=f"{len(part.docs)} documents, version {part.version}",
            )
        except ActivityError as error:
            if isinstance(error.cause, ApplicationError) and error.cause.type == SUSPECT:
                self._lines.suspect(part)
            elif part.alone and (
                isinstance(error.cause, ActivityTimeout) or error.retry_state is RetryState.TIMEOUT
            ):
                self._lines.wait(part)
            else:
                raise

    async def _stop(self, version: int | None = None) -> None:
        """Takes back what is under way, of one version or of all."""
        tasks = [task for task, part in self._tasks.items() if version in (None, part.version)]
        if version is None and self._chore is not None:
            tasks.append(self._chore)
        self._lines.clear(version)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._lines.clear(version)

    async def _drain(self) -> None:
        """Lets what is under way end, or takes it back: this run has become long."""
        self._lines.clear_waiting()
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: not self._tasks, timeout=_DRAINED_WITHIN)
        while not self._tasks and (part := self._lines.next_suspect()) is not None:
            # Else the next run would lose workers to find it anew.
            self._start(part)
            await workflow.wait_condition(lambda: not self._tasks)
        await self._stop()

    # -- versions

    async def _bring_forward(self) -> None:
        """Of a version that has everything: makes it ready, and then has it serve."""
        building = self._lines.building
        if building is None or self._chore is not None or self._refused >= _SWAPS_REFUSED:
            return
        if self._ready != building:
            self._chore = asyncio.create_task(self._make_ready(building))
            self._chore.add_done_callback(self._chore_ended)
        elif await self._swap(building):
            self._refused, self._ready, self._unsure = 0, None, True
            self._chore = asyncio.create_task(self._sweep())
            self._chore.add_done_callback(self._chore_ended)
        else:
            self._refused += 1

    def _chore_ended(self, task: asyncio.Task[None]) -> None:
        self._chore, self._unsure = None, True
        error = None if task.cancelled() else task.exception()
        if error is not None and not is_cancelled_exception(error):
            self._error = error

    async def _make_ready(self, number: int) -> None:
        version = VersionOf(index=self._ingest.index, version=number)
        await workflow.execute_activity_method(
            IndexPlanning.audit,
            version,
            task_queue=self._queue(Pool.STORE),
            start_to_close_timeout=_AUDIT_WITHIN,
            heartbeat_timeout=_LOST_AFTER,
            retry_policy=_PATIENT,
        )
        if not await self._try_retrieval(WARM_INDEX, version, _WARM_SOON, _WARM_WITHIN):
            # The first search of it loads it, and waits as long.
            workflow.logger.warning("no worker has loaded version %d before it serves", number)
        self._ready, self._refused = number, 0

    async def _swap(self, number: int) -> bool:
        """Has it serve, unless it lacks what can be found now. The serving one takes nothing in meanwhile, so
        that the other can catch up however much is written."""
        serving = self._lines.serving
        self._lines.hold(serving)
        try:
            await self._stop(serving)
            for _ in range(_CATCH_UPS):
                done: bool = await workflow.execute_activity_method(
                    IndexPlanning.complete,
                    VersionOf(index=self._ingest.index, version=number),
                    task_queue=self._queue(Pool.STORE),
                    start_to_close_timeout=_PLAN_WITHIN,
                    retry_policy=_PATIENT,
                )
                if done:
                    return True
                await self._catch_up(number)
            return False
        finally:
            self._lines.hold(None)
            self._unsure = True
            self._begin()

    async def _catch_up(self, number: int) -> None:
        """Until this version has taken in what it lacks now, but not for long."""
        busy, in_hand = self._lines.known(but=number)
        plan: Plan = await workflow.execute_activity_method(
            IndexPlanning.plan,
            AskPlan(index=self._ingest.index, in_hand=in_hand, busy=busy),
            task_queue=self._queue(Pool.STORE),
            start_to_close_timeout=_PLAN_WITHIN,
            retry_policy=_PATIENT,
        )
        if plan.gone or plan.paused:
            return
        self._lines.follow(plan.work, busy)
        self._begin()
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: self._lines.is_done(number), timeout=_CATCH_UP_WITHIN)

    async def _sweep(self, *, tidy: bool = True) -> None:
        """`tidy`: engines may keep something, too."""
        await workflow.execute_activity_method(
            IndexPlanning.sweep,
            self._ingest.index,
            task_queue=self._queue(Pool.STORE),
            start_to_close_timeout=_SWEEP_WITHIN,
            heartbeat_timeout=_LOST_AFTER,
            retry_policy=_PATIENT,
        )
        if tidy and not await self._try_retrieval(TIDY_INDEX, self._ingest.index, _TIDY_SOON, _TIDY_WITHIN):
            # Nothing is found by it any more; it only takes room.
            workflow.logger.warning("what engines keep of versions that are no more is left")

    async def _try_retrieval(self, name: str, argument: object, soon: timedelta, within: timedelta) -> bool:
        """Has a worker of the pool `retrieval` do what can be done without: false, if it was not done."""
        try:
            await workflow.execute_activity(
                name,
                argument,
                task_queue=self._queue(Pool.RETRIEVAL),
                schedule_to_start_timeout=soon,
                schedule_to_close_timeout=within,
                heartbeat_timeout=_LOST_AFTER,
                retry_policy=_TWICE,
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return False
        return True

    def _order(
        self, version: Version, docs: Sequence[str] = (), alone: bool = False, first: int = 0
    ) -> TakeIn:
        return TakeIn(
            index=self._ingest.index,
            owner=self._ingest.owner,
            version=version,
            docs=list(docs),
            alone=alone,
            first=first,
        )

    def _take_in_queue(self, version: Version) -> str:
        return take_in_queue(self._queue(Pool.STORE if version.spec.model is None else Pool.INFERENCE))

    def _queue(self, pool: Pool) -> str:
        return task_queue(pool, self._ingest.task_queue_prefix)


def _only_little(plan: Plan) -> Version | None:
    """The only version of an index, if this plan is all that it has to do, and that is little."""
    if len(plan.work) != 1 or plan.work[0].more or sum(map(len, plan.work[0].parts)) > MOST_QUICK:
        return None
    return plan.work[0].version
