"""Tells of durable actors that could not say themselves that they are no more.

An actor that stops or fails says so to those who watch it, and stops its children. One whose workflow is
terminated, or runs out of its time, says nothing. What it knew can still be had: `_last_words`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionStatus,
)
from temporalio.service import RPCError

from goatherd.actors.durable import _protocol as protocol
from goatherd.actors.durable._definition import DurableActor
from goatherd.actors.durable._environment import workflow_id
from goatherd.actors.durable._last_words import last_words
from goatherd.telemetry import get_logger
from goatherd.temporal import is_gone

PERIOD_S = 2.0
_LOOK_BACK = timedelta(days=1)
# Visibility may lag behind: what closed in this time before the last look is looked at again.
_OVERLAP = timedelta(minutes=1)
_TIMEOUT = timedelta(seconds=5)
MOST_TRIES = 16
"""To tell of one. With the waits between them, about three quarters of an hour."""
_LONGEST_WAIT_S = 300.0

log = get_logger(__name__)


@dataclass
class _Trial:
    """Of one that could not be told of yet. `due`: when to try again, by the loop's clock."""

    tries: int = 0
    due: float = 0.0

    def failed(self, now: float) -> None:
        self.due = now + min(PERIOD_S * 2**self.tries, _LONGEST_WAIT_S)
        self.tries += 1


class Obituaries:
    """Runs wherever workers run. Several at once are harmless: who is told twice takes it once."""

    def __init__(self, client: Client, kinds: Sequence[type[DurableActor[Any]]], *, task_queue: str) -> None:
        """Of actors of these types on this queue: its workers have to answer queries for them."""
        self._client = client
        self._task_queue = task_queue
        self._types = ", ".join(f'"{kind.actor_type}"' for kind in kinds)
        self._since = datetime.now(UTC) - _LOOK_BACK
        self._told: dict[str, datetime] = {}
        self._trials: dict[str, _Trial] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except RPCError as error:
                log.warning("could not look for actors that were terminated", error=str(error))
            await asyncio.sleep(PERIOD_S)

    async def look(self) -> int:
        """Once over those that closed since the last time; how many were told of. One whose last words can't
        be had now is tried again at a later look, later each time, and at last given up."""
        began = datetime.now(UTC)
        query = (
            f'WorkflowType IN ({self._types}) AND TaskQueue = "{self._task_queue}"'
            ' AND ExecutionStatus IN ("Terminated", "TimedOut")'
            f' AND CloseTime >= "{self._since.isoformat()}"'
        )
        told, since = 0, began - _OVERLAP
        trials: dict[str, _Trial] = {}
        async for execution in self._client.list_workflows(query):
            if execution.run_id in self._told:
                continue
            closed = execution.close_time or began
            trial = self._trials.get(execution.run_id) or _Trial()
            done, new = await self._try(execution, trial)
            told += new
            if done:
                self._told[execution.run_id] = closed
            else:
                trials[execution.run_id] = trial
                since = min(since, closed)
        self._since, self._trials = since, trials
        self._told = {run: closed for run, closed in self._told.items() if closed >= since}
        return told

    async def _try(self, execution: WorkflowExecution, trial: _Trial) -> tuple[bool, bool]:
        """Whether it is done with, and whether it was told of just now."""
        now = asyncio.get_running_loop().time()
        if now < trial.due:
            return False, False
        told = False
        try:
            told = await self._tell_of(execution)
        except Exception as error:  # Of users' code, too: it must not keep others from being told of.
            trial.failed(now)
            if trial.tries < MOST_TRIES:
                say = log.warning if trial.tries == 1 else log.debug
                say("can't tell of an actor yet", actor=execution.id, error=str(error))
                return False, False
            log.warning("gave up telling of an actor", actor=execution.id, error=str(error))
        return True, told

    async def _tell_of(self, execution: WorkflowExecution) -> bool:
        latest = await self._client.get_workflow_handle(execution.id).describe(rpc_timeout=_TIMEOUT)
        if latest.status == WorkflowExecutionStatus.RUNNING:
            return False  # It was reset: it lives on in another run.
        handle = self._client.get_workflow_handle(execution.id, run_id=execution.run_id)
        words = await last_words(self._client, handle)
        for watching in words.watchers:
            await self._signal(workflow_id(watching.watcher), protocol.TERMINATED, [watching])
        for child in words.children:
            await self._signal(child, protocol.STOP, [])
        return True

    async def _signal(self, receiver: str, name: str, inputs: list[Any]) -> None:
        handle = self._client.get_workflow_handle(receiver)
        try:
            await handle.signal(name, args=inputs, rpc_timeout=_TIMEOUT)
        except RPCError as error:
            if not is_gone(error):
                raise
