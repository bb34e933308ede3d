"""What a durable actor sends to others: in order for each receiver.

Temporal carries out the signals of one workflow side by side, in any order. So one is under way to a receiver
at a time; what is sent there meanwhile follows together, as one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json
from temporalio import workflow
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import FailureError, WorkflowAlreadyStartedError

from goatherd.actors.durable import _protocol as protocol

MOST_TOGETHER = 100
"""Signals that travel as one."""
MOST_BYTES = 1_000_000
"""Of several. Temporal takes 2 MB; more would stop the sender."""


@dataclass(frozen=True, slots=True)
class _Post:
    signal: protocol.Signal
    gone: Callable[[], None] | None
    shard: str | None


class Outbox:
    """One a workflow."""

    def __init__(self) -> None:
        self._posts: dict[str, deque[_Post]] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._starting: dict[str, asyncio.Future[Any]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether Temporal has taken all that was sent: a run must not end before."""
        return not self._posts

    def send(
        self,
        receiver: str,
        name: str,
        inputs: list[Any],
        *,
        gone: Callable[[], None] | None = None,
        shard: str | None = None,
    ) -> None:
        """Sends a signal with inputs that are JSON; `gone` is called if no such workflow runs. `shard`: it is
        one, of this workflow type, and is started then."""
        post = _Post(protocol.Signal(name=name, inputs=inputs), gone, shard)
        posts = self._posts.get(receiver)
        if posts is not None:
            posts.append(post)
            return
        self._posts[receiver] = deque([post])
        self._sending[receiver] = asyncio.create_task(self._send_all(receiver))

    def await_start(self, receiver: str, started: asyncio.Future[Any]) -> None:
        """What is sent to a child that is being started waits for that."""
        self._starting[receiver] = started
        started.add_done_callback(lambda _: self._starting.pop(receiver, None))

    async def _send_all(self, receiver: str) -> None:
        waiting = self._posts[receiver]
        while waiting:
            starting = self._starting.get(receiver)
            if starting is not None:
                await workflow.wait((starting,))
            posts = _together(waiting)
            failed = starting is not None and (starting.cancelled() or starting.exception() is not None)
            signals = [post.signal for post in posts]
            shard = next((post.shard for post in posts if post.shard is not None), None)
            if not failed and await _signal(receiver, signals):
                continue
            if shard is None or not (await _start(receiver, shard) and await _signal(receiver, signals)):
                for post in posts:
                    if post.gone is not None:
                        post.gone()
        del self._posts[receiver], self._sending[receiver]


def _together(waiting: deque[_Post]) -> list[_Post]:
    """Takes the next ones: at least one, and no more than Temporal would take as one."""
    posts = [waiting.popleft()]
    if not waiting:
        return posts
    room = MOST_BYTES - _size(posts[0])
    while waiting and len(posts) < MOST_TOGETHER and (room := room - _size(waiting[0])) >= 0:
        posts.append(waiting.popleft())
    return posts


def _size(post: _Post) -> int:
    return len(to_json(post.signal))


async def _start(shard: str, kind: str) -> bool:
    """Starts a shard, which outlives this workflow. Whether it runs now."""
    try:
        await workflow.start_child_workflow(
            kind,
            id=shard,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        )
    except WorkflowAlreadyStartedError:
        return True  # Somebody else was first.
    except FailureError:
        return False
    return True


async def _signal(receiver: str, signals: list[protocol.Signal]) -> bool:
    """Whether there is somebody to get them."""
    handle = workflow.get_external_workflow_handle(receiver)
    try:
        if len(signals) == 1:
            await handle.signal(signals[0].name, args=signals[0].inputs)
        else:
            await handle.signal(protocol.SEVERAL, protocol.Signals(signals=signals))
    except FailureError:
        return False  # Temporal says so of a workflow that is closed or never was.
    return True
