"""`goatherd task work`: takes subtasks one at a time and has them answered, by a person or a program."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from goatherd.terminal._api import IN_USE, Refused
from goatherd.terminal._screen import Screen
from goatherd.terminal._task_api import ENDED, AssignmentView, TakenView, TaskApi
from goatherd.terminal._task_lease import LOST, Lease, give_back
from goatherd.waiting import put_down

WAIT_S = 3.0
"""How long a take waits for something to come. Whoever leaves waits that long for the answer: what it gives
has to be given back. The server answers at once when there is something."""
_GRACE_S = 1.0
_MOST_AT_ONCE = 100
_LAST_LINES = 5
_UNANSWERED = "A request for work is unanswered: what it may have got comes back when its lease runs out."


@dataclass(frozen=True, slots=True)
class Completed:
    result: Any


@dataclass(frozen=True, slots=True)
class Failed:
    code: str
    message: str
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class Skipped:
    """Somebody else may have it."""


@dataclass(frozen=True, slots=True)
class Left:
    """As skipped, and there will be no more answers."""


Outcome = Completed | Failed | Skipped | Left
Answering = Callable[[AssignmentView], Awaitable[Outcome]]
"""Answers one subtask. It is cancelled when there is no point in going on."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On which a worker takes. `stay`: also when the task is done, since more may be added."""

    task: str
    worker: str
    capabilities: list[str]
    lease_s: float | None = None
    stay: bool = False


class Work:
    """A worker, at one or more subtasks at a time. `stop` it, and it gives back what it has."""

    def __init__(self, api: TaskApi, screen: Screen, terms: Terms, answering: Answering) -> None:
        self._api = api
        self._screen = screen
        self._terms = terms
        self._answering = answering
        self._lease_s = terms.lease_s or 60.0
        self._stopped = asyncio.Event()
        self._skipped: set[str] = set()
        self._told: str | None = None
        self._broken: Exception | None = None
        self.tally: Counter[str] = Counter()

    def stop(self) -> None:
        self._stopped.set()

    async def run(self, concurrency: int = 1) -> None:
        """Until the task is done, the one who answers has left, or it is stopped.

        Raises `Refused`, once all that is held has been given back.
        """
        task = await self._api.task(self._terms.task)
        self._lease_s = self._terms.lease_s or task.lease_s
        self._screen.notice(f"“{task.title}”: {task.counts.told() or 'nothing yet'}.")
        async with asyncio.TaskGroup() as slots:
            for _ in range(concurrency):
                slots.create_task(self._guarded_slot())
        if self._broken is not None:
            raise self._broken
        if self.tally:
            self._screen.notice(", ".join(f"{count:,} {what}" for what, count in sorted(self.tally.items())))

    async def _guarded_slot(self) -> None:
        """What breaks one stops all, in order: the others may have work, or be asking for some."""
        try:
            await self._slot()
        except Exception as error:
            self._broken = self._broken or error
            self.stop()

    async def _slot(self) -> None:
        while (assignment := await self._next()) is not None:
            async with Lease(self._api, self._terms.task, assignment, lease_s=self._lease_s) as lease:
                work = asyncio.ensure_future(self._answering(assignment))
                stopped = asyncio.create_task(self._stopped.wait())
                try:
                    first: set[asyncio.Future[Any]] = {work, lease.over, stopped}
                    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
                    if lease.over.done():
                        self._screen.problem(f"{assignment.subtask} is over. {lease.over.result()}")
                        self.tally["lost"] += 1
                    elif work.done():
                        await self._settle(lease, work.result())
                finally:
                    await put_down(work, stopped)

    # -- taking

    async def _next(self) -> AssignmentView | None:
        """What is to be done next; None if there will be nothing."""
        while not self._stopped.is_set():
            started = asyncio.get_running_loop().time()
            taken = await self._take()
            if taken is None:
                return None
            if taken.assignments:
                return await self._choose(taken.assignments)
            status = taken.task.status
            if status == "cancelling" or (status in ENDED and not self._terms.stay):
                self._tell(f"Nothing is left to do: the task is {status}.")
                return None
            if status == "paused":
                self._tell("The task is paused; waiting until it goes on.")
            else:
                self._tell("There is nothing for you right now; waiting.")
            # Where the server did not wait, we do.
            rest = max(0.0, min(WAIT_S, 1.0) - (asyncio.get_running_loop().time() - started))
            await self._pause(rest)
        return None

    async def _take(self) -> TakenView | None:
        """None if it was stopped before there was an answer, or the task is closed."""
        terms = self._terms
        take = asyncio.create_task(
            self._api.take(
                terms.task,
                terms.worker,
                capabilities=terms.capabilities,
                # Released ones come again, and first: so many more, to find one that was not skipped.
                most=min(_MOST_AT_ONCE, len(self._skipped) + 1),
                lease_s=terms.lease_s,
                wait_s=WAIT_S,
            )
        )
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait({take, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not take.done():
                await asyncio.wait({take}, timeout=WAIT_S + _GRACE_S)
            if not take.done():
                self._screen.notice(_UNANSWERED)
                return None
            return take.result()
        except Refused as refusal:
            if refusal.code == IN_USE:
                # Longer than any claim lasts: what it may have got comes back when its lease runs out.
                self._screen.notice(_UNANSWERED)
                return None if self._stopped.is_set() else await self._take()
            if refusal.code != "task-closed":
                raise
            self._tell(str(refusal))
            return None
        finally:
            await put_down(take, stopped)

    async def _choose(self, assignments: list[AssignmentView]) -> AssignmentView | None:
        """One that was not skipped, if there is one; the others, and all if it was stopped, are released."""
        self._told = None
        chosen = next((one for one in assignments if one.subtask not in self._skipped), None)
        if chosen is None:  # There are no others: once more from the first.
            self._skipped.clear()
            chosen = assignments[0]
        if self._stopped.is_set():
            chosen = None
        for other in assignments:
            if other is not chosen:
                await give_back(self._api, self._terms.task, other)
        return chosen

    async def _pause(self, seconds: float) -> None:
        stopped = asyncio.create_task(self._stopped.wait())
        await asyncio.wait({stopped}, timeout=seconds)
        await put_down(stopped)

    # -- reporting

    async def _settle(self, lease: Lease, outcome: Outcome) -> None:
        subtask = lease.assignment.subtask
        try:
            while True:
                try:
                    return await self._report(lease, outcome)
                except Refused as refusal:
                    if refusal.code != IN_USE or lease.over.done():
                        raise
                    await asyncio.sleep(self._api.retry_s)
        except Refused as refusal:
            if refusal.code in (IN_USE, LOST, "invalid-transition", "task-closed"):
                self._screen.problem(f"{subtask}: too late. {refusal}")
                self.tally["lost"] += 1
                return
            # The answer itself is refused, for instance for its size.
            self._screen.problem(f"{subtask}: {refusal}")
            self.tally["failed"] += 1
            with suppress(Refused):
                await lease.fail(refusal.code or "refused", str(refusal), retryable=False)

    async def _report(self, lease: Lease, outcome: Outcome) -> None:
        subtask = lease.assignment.subtask
        match outcome:
            case Completed(result):
                status = await lease.complete(result)
                self.tally["completed"] += 1
                self._screen.notice(f"{subtask}: answered" + ("" if status == "completed" else f", {status}"))
            case Failed(code, message, retryable):
                status = await lease.fail(code, message, retryable=retryable)
                self.tally["failed"] += 1
                said = [f"\n    {line}" for line in message.splitlines()[-_LAST_LINES:]]
                self._screen.notice(f"{subtask}: failed ({code}), now {status}{''.join(said)}")
            case Skipped():
                self._skipped.add(subtask)
                self.tally["skipped"] += 1
                await lease.release()
            case Left():
                self.stop()
                await lease.release()

    def _tell(self, text: str) -> None:
        """Once, however often it is so."""
        if self._told != text:
            self._told = text
            self._screen.notice(text)
