"""One order on its way to a worker and back: an activity without a workflow.

A call is computed at most a few times: if the worker that took it is lost, another one does it. Nothing is
kept of it, what is too large for a message included: who wants that asks for a job.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from temporalio import exceptions
from temporalio.client import ActivityFailureError, ActivityHandle, Client
from temporalio.common import RetryPolicy
from temporalio.service import RPCError

from activities.blobs import Blobs
from api.placement import Place, Placement
from goatherd.contracts.ids import new_id
from goatherd.contracts.inference_work import INFER, InferAnswer, InferOrder
from goatherd.errors import DeadlineExceeded, GoatherdError, Unavailable
from goatherd.payloads import Owner, noted_owners
from goatherd.telemetry import get_logger
from goatherd.temporal import told, translate

HEARTBEAT_S = 3.0
"""A worker that has not been heard of for so long is lost. It beats twice a second."""
_TAKEN_WITHIN_S = 2.0
"""By the worker that it was sent to."""
_MOST_TRIES = 4
_MARGIN_S = 5.0
_ELSEWHERE = {"model-broken", "model-too-large", "no-room", "too-many-requests"}
"""What another worker may do all the same."""
_NOT_TAKEN = "not taken"
_ONCE = RetryPolicy(maximum_attempts=1)

log = get_logger(__name__)


class _Lost(Exception):
    """The worker took it, and was not heard of again; or did not even take it."""


class Flights:
    """Sends orders by `placement`."""

    def __init__(self, client: Client, placement: Placement, blobs: Blobs) -> None:
        """`blobs`: where what is too large for a message is."""
        self._client = client
        self._placement = placement
        self._blobs = blobs

    async def fly(self, order: InferOrder, *, resend: bool = True) -> InferAnswer:
        """The answer. Cancelled, it has the worker stop.

        `order.deadline` must be set. Without `resend` an order that a worker may have begun is not sent to
        another one.

        Raises:
            DeadlineExceeded: there was none in time.
            Unavailable: no worker, none that can hold the model, or Temporal is away.
            GoatherdError: what the worker said about the whole order.
        """
        assert order.deadline is not None
        refused: set[str] = set()
        shared = False
        for tries in range(1, _MOST_TRIES + 1):
            if shared:
                place = self._placement.shared
            else:
                place = await self._placement.choose(order.model, refused_by=refused)
            try:
                return await self._fly_to(place, order)
            except _Lost as lost:
                not_taken = lost.args[0] == _NOT_TAKEN
                shared = not_taken and await self._hears(place)
                if shared:
                    # It has its hands full, and others' calls of other models may well have room there.
                    log.info("a worker is busy", worker=place.worker, model=order.model)
                else:
                    self._placement.shun(place)
                    log.warning("a worker was lost", worker=place.worker, model=order.model, why=str(lost))
                if tries == _MOST_TRIES or (not resend and not not_taken):
                    raise Unavailable(
                        "The worker that computed this was lost. Try again.", code="worker-lost"
                    ) from lost
            except GoatherdError as error:
                if error.code not in _ELSEWHERE or place.worker is None or tries == _MOST_TRIES:
                    raise
                refused.add(place.worker)
                if len(refused) >= len(await self._placement.workers()):
                    raise
        raise AssertionError("unreachable")

    async def _hears(self, place: Place) -> bool:
        try:
            return place.worker is not None and await self._placement.hears(place)
        except GoatherdError:
            return False

    async def _fly_to(self, place: Place, order: InferOrder) -> InferAnswer:
        assert order.deadline is not None
        left = order.deadline - time.time()
        if left <= 0:
            raise DeadlineExceeded("The deadline passed before a worker had room for it.")
        self._placement.sent(place, len(order.items))
        activity_id = new_id("call")
        with noted_owners() as large:
            # Who leaves while it is started must not leave it started: it goes on, and then it is put down.
            starting = asyncio.create_task(self._start(place, order, activity_id, left))
            try:
                return await self._result(await asyncio.shield(starting), left)
            except RPCError as error:
                raise translate(error) from error
            except asyncio.CancelledError:
                if not starting.done():
                    _later(self._put_down_started(starting, activity_id, large))
                raise
            finally:
                self._placement.sent(place, -len(order.items))
                if starting.done():
                    self._drop(large)

    async def _start(
        self, place: Place, order: InferOrder, activity_id: str, left: float
    ) -> ActivityHandle[InferAnswer]:
        started: ActivityHandle[InferAnswer] = await self._client.start_activity(
            INFER,
            order,
            id=activity_id,
            task_queue=place.queue,
            result_type=InferAnswer,
            schedule_to_close_timeout=timedelta(seconds=left + _MARGIN_S),
            schedule_to_start_timeout=timedelta(
                seconds=left if place.worker is None else min(left, _TAKEN_WITHIN_S)
            ),
            heartbeat_timeout=timedelta(seconds=HEARTBEAT_S),
            retry_policy=_ONCE,
            rpc_timeout=timedelta(seconds=left + _MARGIN_S),
        )
        return started

    async def _result(self, handle: ActivityHandle[InferAnswer], left: float) -> InferAnswer:
        try:
            async with asyncio.timeout(left):
                return await handle.result()
        except ActivityFailureError as error:
            raise meaning(error) from error
        except (asyncio.CancelledError, TimeoutError) as error:
            _later(self._put_down(handle))
            if isinstance(error, asyncio.CancelledError):
                raise
            raise DeadlineExceeded("The model gave no answer in time.") from None

    async def _put_down_started(
        self, starting: asyncio.Task[ActivityHandle[InferAnswer]], activity_id: str, large: set[Owner]
    ) -> None:
        """When the start has ended. If it failed, it may have come about all the same."""
        await asyncio.wait({starting})
        if starting.exception() is None:
            handle = starting.result()
        else:
            handle = self._client.get_activity_handle(activity_id, result_type=InferAnswer)
        await self._put_down(handle)
        self._drop(large)

    async def _put_down(self, handle: ActivityHandle[InferAnswer]) -> None:
        """Has the worker stop, without waiting for it."""
        try:
            await handle.cancel(reason="nobody waits for it", rpc_timeout=timedelta(seconds=5))
        except RPCError as error:
            log.debug("could not cancel a call", error=error.message)

    def _drop(self, large: set[Owner]) -> None:
        """The order and the answer, if these had to be stored. Most calls have neither."""
        for owner in large:
            _later(self._forget(owner))

    async def _forget(self, owner: Owner) -> None:
        try:
            await self._blobs.drop(owner.workflow)
        except GoatherdError as error:
            log.debug("could not drop a large order or answer", error=error.message)


def _later(chore: Coroutine[Any, Any, None]) -> None:
    """Nobody waits for it."""
    task = asyncio.create_task(chore)
    _LATER.add(task)
    task.add_done_callback(_LATER.discard)


_LATER: set[asyncio.Task[None]] = set()
"""The loop itself keeps no task alive."""


def meaning(error: ActivityFailureError) -> Exception:
    """An activity's failure as an error of ours; another exception if its worker was lost."""
    cause: BaseException | None = error.cause
    if isinstance(cause, exceptions.ActivityError):
        cause = cause.cause
    match cause:
        case exceptions.TimeoutError(type=exceptions.TimeoutType.SCHEDULE_TO_START):
            return _Lost(_NOT_TAKEN)
        case exceptions.TimeoutError(type=exceptions.TimeoutType.HEARTBEAT):
            return _Lost("not heard of")
        case exceptions.TimeoutError():
            return DeadlineExceeded("The model gave no answer in time.")
        case exceptions.CancelledError():
            return Unavailable("The call was cancelled at the worker.", code="cancelled")
        case exceptions.ApplicationError(type="worker-shutdown"):
            return _Lost("shut down")
        case exceptions.ApplicationError():
            return told(cause)
    return GoatherdError(f"The model failed: {cause}")
