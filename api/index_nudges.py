"""Word to an index's ingestion that there is work: many writes of one process, few words.

The word is not what makes a write durable: the store has it, with what is to do. A word that is lost is said
again, here as long as the process lives, by the next write, and by whoever looks for work that nobody does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Self

from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.service import RPCError

from goatherd.contracts.queues import Pool
from goatherd.contracts.retrieval import INGEST_WORKFLOW, NUDGE, Index, Ingest, ingestion_id
from goatherd.errors import GoatherdError
from goatherd.settings import Settings
from goatherd.telemetry import get_logger
from goatherd.temporal import OWNER, translate
from goatherd.waiting import put_down

_APART_S = 0.05
"""Between words to one index: each is a part of its workflow's history."""
_AGAIN_S = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
_GOODBYE_S = 2.0
_RPC_TIMEOUT = timedelta(seconds=10)

Tell = Callable[[Index], Awaitable[None]]

log = get_logger(__name__)


def by_signal(client: Client, settings: Settings) -> Tell:
    """Signals the ingestion of an index, which is started by that if it does not run."""

    async def tell(index: Index) -> None:
        try:
            await start_ingestion(client, settings, index.id, index.owner, nudge=True)
        except RPCError as error:
            raise translate(error) from error

    return tell


async def start_ingestion(client: Client, settings: Settings, index: str, owner: str, *, nudge: bool) -> None:
    """Starts an index's ingestion, and signals it if `nudge`: then it may run already.

    Raises:
        WorkflowAlreadyStartedError: it runs, and is not nudged.
        RPCError: Temporal is away.
    """
    # Of a dropped index nobody is the owner any more.
    attributes = [SearchAttributePair(OWNER, owner)] if owner else []
    await client.start_workflow(
        INGEST_WORKFLOW,
        Ingest(index=index, owner=owner, task_queue_prefix=settings.task_queue_prefix),
        id=ingestion_id(index),
        task_queue=settings.task_queue(Pool.ACTORS),
        start_signal=NUDGE if nudge else None,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        static_summary="Takes an index's documents in",
        search_attributes=TypedSearchAttributes(attributes),
        rpc_timeout=_RPC_TIMEOUT,
    )


class Nudges:
    """One word at a time for each index; those that are asked for meanwhile are one more."""

    def __init__(self, tell: Tell, *, apart_s: float = _APART_S) -> None:
        self._tell = tell
        self._apart_s = apart_s
        self._wanted: dict[str, Index] = {}
        self._tellers: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """In the end, what is still to be said is, if it can be said quickly."""
        try:
            yield self
        finally:
            tellers = list(self._tellers.values())
            if tellers:
                await asyncio.wait(tellers, timeout=_GOODBYE_S)
            await put_down(*tellers)

    def nudge(self, index: Index) -> None:
        """Has it said soon. Nobody waits for it."""
        self._wanted[index.id] = index
        if index.id not in self._tellers:
            self._tellers[index.id] = asyncio.create_task(self._tell_it(index.id))

    async def said(self, index: str) -> None:
        """Returns when nothing is to be said to this index any more."""
        while (teller := self._tellers.get(index)) is not None:
            await asyncio.wait({teller})

    async def _tell_it(self, id: str) -> None:
        failures = 0
        try:
            while (index := self._wanted.pop(id, None)) is not None:
                try:
                    await self._tell(index)
                    failures = 0
                except GoatherdError as error:
                    log.warning("ingestion not nudged", index=id, error=error.message)
                    self._wanted.setdefault(id, index)
                    await asyncio.sleep(_AGAIN_S[min(failures, len(_AGAIN_S) - 1)])
                    failures += 1
                    continue
                await asyncio.sleep(self._apart_s)
        finally:
            del self._tellers[id]
