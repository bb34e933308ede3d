"""What workers do with subtasks: take them, say that they are alive, report, give them back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from activities.task_ports import TaskStore
from api.task_actors import Facts, TaskActors
from api.task_again import named_by, reported_before
from api.task_documents import brief
from api.task_inputs import Inputs
from api.task_json import digest, dumps
from api.task_lines import Lines
from api.task_schemas import HeartbeatBody, ReportBody, TakeBody
from goatherd.contracts.ids import new_id
from goatherd.contracts.model import rfc3339
from goatherd.contracts.task import Answer
from goatherd.contracts.task_messages import (
    Beaten,
    Heartbeat,
    Leased,
    Reported,
    ReportStatus,
    Taken,
    TakeSubtasks,
)
from goatherd.errors import InvalidTransition, TaskClosed, Unavailable
from goatherd.security.access import Principal
from goatherd.waiting import put_down

MOST_INLINE_BYTES = 4_096
"""Of a result that goes through the actor; a larger one goes to the store first."""

Gone = Callable[[], Awaitable[None]]
"""Returns when the client has gone away."""


class TaskWork:
    """One a process."""

    def __init__(
        self, actors: TaskActors, inputs: Inputs, lines: Lines, listen: Callable[[], Awaitable[None]]
    ) -> None:
        """`listen`: returns when the store's changes come in, so that none is missed from then on."""
        self._actors = actors
        self._inputs = inputs
        self._lines = lines
        self._listen = listen

    @property
    def _store(self) -> TaskStore:
        return self._actors.store

    # -- taking

    async def take(
        self, principal: Principal, task: str, body: TakeBody, *, take_id: str | None, gone: Gone
    ) -> bytes:
        """Leases as JSON; none if there is nothing to take, and there was nothing for `wait_s`.

        `take_id`: the same again gives the same leases, as far as they are held.
        """
        facts = await self._actors.authorize(principal, task)
        order = TakeSubtasks(
            worker=body.worker,
            capabilities=body.capabilities,
            max=body.max,
            lease_s=body.lease_s,
            # One of its own: an ask that is repeated on its way must not lease what nobody hears of.
            id=take_id or new_id("req"),
        )
        if body.wait_s:
            taken = await self._wait_and_take(task, facts, order, body.wait_s, gone)
        else:
            taken = await self._actors.ask(task, order)
        return await self._render(task, taken)

    async def _wait_and_take(
        self, task: str, facts: Facts, order: TakeSubtasks, wait_s: float, gone: Gone
    ) -> Taken:
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        line = self._lines.of(task, facts.overlap)
        waiter = line.enter(order.max)
        watching: asyncio.Future[None] | None = None
        try:
            await self._listen()
            while True:
                line.asks(waiter)
                taken = await self._actors.ask(task, order)
                line.answered(waiter, taken.task.version, taken.available, taken.retry_at)
                if taken.assignments or loop.time() >= until:
                    return taken
                if watching is None:
                    watching = asyncio.ensure_future(gone())
                if not await _unless(watching, line.wait(waiter, until)):
                    return taken
                if waiter.ended:
                    until = 0.0  # Nothing is left to do: one more look, and he may go.
        finally:
            line.leave(waiter)
            if watching is not None:
                await put_down(watching)

    async def _render(self, task: str, taken: Taken) -> bytes:
        about = dumps(brief(task, taken.task))
        if not taken.assignments:
            return b'{"assignments":[],"task":%b}' % about
        said = await self._inputs.of([(one.subtask, one.info_version) for one in taken.assignments])
        assignments = b",".join(
            [_assignment(one, said[one.subtask, one.info_version]) for one in taken.assignments]
        )
        return b'{"assignments":[%b],"task":%b}' % (assignments, about)

    # -- reporting

    async def report(self, principal: Principal, task: str, subtask: str, body: ReportBody) -> bytes:
        """What became of the report, as JSON: the same for the same report."""
        await self._actors.authorize(principal, task)
        order = ReportStatus(
            subtask=subtask,
            status=body.status,
            lease_token=body.lease_token,
            error=body.error,
            retryable=body.retryable,
            retry_after_s=body.retry_after_s,
            progress=body.progress,
            checkpoint=body.checkpoint,
        )
        if body.status == "completed":
            written = dumps(body.result)
            stored = len(written) > MOST_INLINE_BYTES and await self._store_answer(task, order, body)
            order = order.model_copy(
                update={
                    "result": None if stored else body.result,
                    "stored": stored,
                    "digest": digest(body.result),
                }
            )
        return await self._report(task, order)

    async def _report(self, task: str, order: ReportStatus) -> bytes:
        try:
            reported = await self._actors.ask(task, order)
        except TaskClosed:
            await self._actors.writer.settled(task)
            before = await reported_before(self._store, task, order)
            if before is None:
                raise
            reported = before
        return render_report(task, reported)

    async def _store_answer(self, task: str, order: ReportStatus, body: ReportBody) -> bool:
        """Keeps a large result under its assignment, if it is known to be this subtask's. The first counts:
        a report that may have been heard can't be followed by another."""
        assignment = named_by(task, order.lease_token)
        if assignment is None:
            return False
        await self._actors.writer.settled(task)
        known = await self._store.subtask(task, order.subtask)
        lease = next((one for one in known.state.leases if one.id == assignment), None) if known else None
        if known is None or lease is None:
            return False
        if lease.outcome is not None:
            return True  # It is over: what was kept counts, and nothing is added.
        answer = Answer(
            id=assignment,
            task=task,
            subtask=order.subtask,
            worker=lease.worker,
            result=body.result,
            at=lease.taken_at,
        )
        await self._store.put_answers([answer])
        kept = await self._store.answers(task, [order.subtask])
        if any(one.id == assignment and digest(one.result) != digest(body.result) for one in kept):
            raise InvalidTransition("Another result was reported under this lease before, and counts.")
        return True

    async def heartbeat(self, principal: Principal, task: str, subtask: str, body: HeartbeatBody) -> Beaten:
        await self._actors.authorize(principal, task)
        order = Heartbeat(
            subtask=subtask,
            lease_token=body.lease_token,
            extend_s=body.extend_s,
            progress=body.progress,
            checkpoint=body.checkpoint,
        )
        return await self._actors.ask(task, order)

    async def release(self, principal: Principal, task: str, subtask: str, token: str) -> bytes:
        await self._actors.authorize(principal, task)
        order = ReportStatus(subtask=subtask, status="pending", lease_token=token)
        return await self._report(task, order)


async def _unless(gone: asyncio.Future[None], waiting: Awaitable[bool]) -> bool:
    """What `waiting` gives. Raises `Unavailable`, which nobody reads, if the client has gone away."""
    wait = asyncio.ensure_future(waiting)
    both: list[asyncio.Future[Any]] = [gone, wait]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise Unavailable("The client has gone away.", code="client-gone")
        return wait.result()
    finally:
        await put_down(wait)


def _assignment(one: Leased, said: bytes) -> bytes:
    fields = {
        "id": one.id,
        "subtask": one.subtask,
        "lease_token": one.lease_token,
        "fence": one.fence,
        "expires_at": rfc3339(one.expires_at),
        "attempt": one.attempt,
        "checkpoint": one.checkpoint,
    }
    return b"%b,%b}" % (dumps(fields)[:-1], said)


def render_report(task: str, reported: Reported) -> bytes:
    """Nothing that is another the next time."""
    return dumps(
        {
            "object": "subtask.report",
            "subtask": reported.subtask,
            "task": task,
            "status": reported.status,
            "assignment": reported.assignment,
            "attempt": reported.attempt,
            "outcome": reported.outcome,
        }
    )


def render_beat(subtask: str, beaten: Beaten) -> bytes:
    return dumps(
        {
            "object": "subtask.heartbeat",
            "subtask": subtask,
            "expires_at": rfc3339(beaten.expires_at),
            "cancel_requested": beaten.cancel_requested,
            "paused": beaten.paused,
            "deadline": None if beaten.deadline is None else rfc3339(beaten.deadline),
        }
    )
