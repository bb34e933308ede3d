"""One assignment that somebody works on: kept by heartbeats, and given back unless it is reported."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

from goatherd.terminal._api import Refused, Unreachable
from goatherd.terminal._task_api import AssignmentView, TaskApi
from goatherd.waiting import put_down

_BEATS_A_LEASE = 3
_FAREWELL_S = 10.0
LOST = "lease-lost"


class Lease:
    """Use it as a context; what is not settled when it ends is released, so that others can have it at once.

    `over` is done, with a sentence that says why, when the work is nobody's any more: the lease was lost, or
    the task was cancelled.
    """

    def __init__(self, api: TaskApi, task: str, assignment: AssignmentView, *, lease_s: float) -> None:
        self.assignment = assignment
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._api = api
        self._task = task
        self._lease_s = lease_s
        # A beat that has no answer in time is followed by the next; nobody has to hear of it.
        self._beats = api.patient(lease_s / _BEATS_A_LEASE, notice=lambda text: None)
        self._settled = False
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._beating = asyncio.create_task(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._beating is not None
        await put_down(self._beating)
        if not self._settled and not self.over.done():
            await self.release()

    async def complete(self, result: Any) -> str:
        """The status of the subtask then. Raises `Refused`."""
        report = await self._api.report(self._task, self.assignment, "completed", result=result)
        self._settled = True
        return report.status

    async def fail(self, code: str, message: str, *, retryable: bool = True) -> str:
        """The status of the subtask then. Raises `Refused`."""
        error = {"code": code[:128], "message": message[:10_000]}
        report = await self._api.report(
            self._task, self.assignment, "failed", error=error, retryable=retryable
        )
        self._settled = True
        return report.status

    async def release(self) -> None:
        """Costs no attempt. If it can't be told, the lease runs out by itself."""
        self._settled = True
        await give_back(self._api, self._task, self.assignment)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / _BEATS_A_LEASE)
            try:
                beat = await self._beats.beat(self._task, self.assignment, extend_s=None)
            except Unreachable:
                continue
            except Refused as refusal:
                if refusal.status >= 500 or refusal.passing:
                    continue
                self._end(str(refusal))
                return
            if beat.cancel_requested:
                self._end("The task is being cancelled.")
                return

    def _end(self, why: str) -> None:
        if not self.over.done():
            self.over.set_result(why)


async def give_back(api: TaskApi, task: str, assignment: AssignmentView) -> None:
    """So that others can have it at once. It costs no attempt, and raises nothing: if it can't be told, the
    lease runs out by itself."""
    try:
        await api.patient(_FAREWELL_S).release(task, assignment)
    except Refused as refusal:
        if refusal.passing or refusal.status >= 500:
            api.notice(f"{assignment.subtask} is not given back ({refusal}): its lease runs out.")
        # Else it was over already.
    except Unreachable as error:
        api.notice(f"{assignment.subtask} is not given back ({error}): its lease runs out.")
