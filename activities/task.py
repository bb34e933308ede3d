"""The activities of a task: thin shells around the store and the sender of webhooks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol

from temporalio import activity

from activities.task_ports import TaskChange, TaskStore
from goatherd.contracts.model import rfc3339
from goatherd.contracts.task_messages import CallbackTold, FlushTask, TaskFlushed, TellCallback
from goatherd.errors import GoatherdError
from goatherd.temporal import failure

_LONGEST_WAIT_S = 3_600.0
"""Whoever asks for more time before the next attempt gets this."""
_MAY_PASS = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class Webhook:
    """What is told to a callback. `id` is the same for each attempt; without a secret it is not signed."""

    id: str
    url: str
    body: bytes
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    status: int
    retry_after_s: float | None = None


class WebhookSender(Protocol):
    """Posts webhooks."""

    async def send(self, webhook: Webhook) -> WebhookAnswer:
        """Whatever the other side answers.

        Raises:
            Forbidden: nothing may be sent there.
            Invalid: the address or the secret can't be used.
            Unavailable: there was no answer.
        """
        ...


class TaskActivities:
    """What a task's actor has done outside of it. Without `webhooks` nothing can be told to callbacks."""

    def __init__(self, store: TaskStore, webhooks: WebhookSender | None = None) -> None:
        self._store = store
        self._webhooks = webhooks

    @activity.defn(name="task.flush")
    async def flush(self, flush: FlushTask) -> TaskFlushed:
        """Writes what the store may lack. Idempotent."""
        try:
            if flush.task is not None:
                await self._store.put_task(flush.task)
            await self._store.apply([TaskChange(flush.id, flush.events, flush.summary)])
        except GoatherdError as error:
            raise failure(error) from error
        return TaskFlushed()

    @activity.defn(name="task.tell_callback")
    async def tell_callback(self, order: TellCallback) -> CallbackTold:
        """Posts how the task ended, signed as Standard Webhooks says. The same `id` may come twice.

        A status of 2xx is a success. Another one, or an address that nothing may be sent to, gives its error;
        `again` if that may pass. Whether it does, and when, the task's actor knows: see `task_callback`.
        """
        body = {"type": order.type, "timestamp": rfc3339(order.ts), "data": order.data}
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
        try:
            secret = await self._store.secret(order.task)
        except GoatherdError as error:
            raise failure(error) from error
        if self._webhooks is None:
            return CallbackTold(error="This worker sends no webhooks.")
        try:
            answer = await self._webhooks.send(Webhook(order.id, order.url, text.encode(), secret))
        except GoatherdError as error:
            return CallbackTold(error=error.message, again=error.retryable)
        if 200 <= answer.status < 300:
            return CallbackTold(status=answer.status)
        said = f"The callback answered {answer.status}."
        if answer.status < 500 and answer.status not in _MAY_PASS:
            return CallbackTold(status=answer.status, error=said)
        wait = answer.retry_after_s
        return CallbackTold(
            status=answer.status,
            error=said,
            again=True,
            retry_after_s=None if wait is None else min(wait, _LONGEST_WAIT_S),
        )
