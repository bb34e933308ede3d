"""What tests wait for when an actor is watched, or closed by others: nobody can be asked to announce it."""

from __future__ import annotations

from typing import Any, Protocol

from temporalio.client import WorkflowExecutionStatus, WorkflowHandle

from tests.actors.durable.accounts import WhoStopped
from tests.temporal import eventually


class Asked(Protocol):
    async def ask(self, request: Any) -> Any: ...


async def until_told(watcher: Asked, stopped: str) -> None:
    """Until an account has been told that this one has stopped, and of no other."""

    async def told() -> bool:
        return bool(await watcher.ask(WhoStopped()) == [stopped])

    await eventually(told)


async def until_closed(handle: WorkflowHandle[Any, Any], status: WorkflowExecutionStatus) -> None:
    async def closed() -> bool:
        return (await handle.describe()).status == status

    await eventually(closed)
