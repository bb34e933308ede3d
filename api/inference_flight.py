"""One order on its way to a worker and back: an activity without a workflow.

A call is computed at most a few times: if the worker that took it is lost, another one does it. Nothing is
kept of it: who wants that asks for a job.
"""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from temporalio import exceptions
from temporalio.client import ActivityFailureError, ActivityHandle, Client
from temporalio.common import RetryPolicy
from temporalio.service import RPCError

from api.placement import Place, Placement
from goatherd.contracts.ids import new_id
from goatherd.contracts.inference_work import INFER, InferAnswer, InferOrder
from goatherd.errors import DeadlineExceeded, GoatherdError, Unavailable
from goatherd.telemetry import get_logger
from goatherd.temporal import told, translate

HEARTBEAT_S = 3.0
"""A worker that has not been heard of for so long is lost. It beats twice a second."""
_TAKEN_WITHIN_S = 2.0
"""By the worker that it was sent to."""
_MOST_TRIES = 4
_MARGIN_S = 5.0
_ELSEWHERE = {"model-too-large", "no-room"}
"""What another worker may do all the same."""
_ONCE = RetryPolicy(maximum_attempts=1)

log = get_logger(__name__)


class _Lost(Exception):
    """The worker took it, and was not heard of again; or did not even take it."""


class Flights:
    """Sends orders by `placement`."""

    def __init__(self, client: Client, placement: Placement) -> None:
        self._client = client
        self._placement = placement

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
        for tries in range(1, _MOST_TRIES + 1):
            place = await self._placement.choose(order.model, refused_by=refused)
            try:
                return await self._fly_to(place, order)
            except _Lost as lost:
                self._placement.shun(place)
                log.warning("a worker was lost", worker=place.worker, model=order.model, why=str(lost))
                if tries == _MOST_TRIES or (not resend and lost.args[0] != "not taken"):
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

    async def _fly_to(self, place: Place, order: InferOrder) -> InferAnswer:
        assert order.deadline is not None
        left = order.deadline - time.time()
        if left <= 0:
            raise DeadlineExceeded("The deadline passed before a worker had room for it.")
        self._placement.sent(place, len(order.items))
        try:
            handle: ActivityHandle[InferAnswer] = await self._client.start_activity(
                INFER,
                order,
                id=new_id("call"),
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
            return await self._result(handle, left)
        except RPCError as error:
            raise translate(error) from error
        finally:
            self._placement.sent(place, -len(order.items))

    async def _result(self, handle: ActivityHandle[InferAnswer], left: float) -> InferAnswer:
        try:
            async with asyncio.timeout(left):
                return await handle.result()
        except ActivityFailureError as error:
            raise meaning(error) from error
        except (asyncio.CancelledError, TimeoutError) as error:
            self._put_down(handle)
            if isinstance(error, asyncio.CancelledError):
                raise
            raise DeadlineExceeded("The model gave no answer in time.") from None

    def _put_down(self, handle: ActivityHandle[InferAnswer]) -> None:
        """Has the worker stop, without waiting for it."""

        async def cancel() -> None:
            try:
                await handle.cancel(reason="nobody waits for it", rpc_timeout=timedelta(seconds=5))
            except RPCError as error:
                log.debug("could not cancel a call", error=error.message)

        task = asyncio.create_task(cancel())
        _PUTTING_DOWN.add(task)
        task.add_done_callback(_PUTTING_DOWN.discard)


_PUTTING_DOWN: set[asyncio.Task[None]] = set()
"""The loop itself keeps no task alive."""


def meaning(error: ActivityFailureError) -> Exception:
    """An activity's failure as an error of ours; another exception if its worker was lost."""
    cause: BaseException | None = error.cause
    if isinstance(cause, exceptions.ActivityError):
        cause = cause.cause
    match cause:
        case exceptions.TimeoutError(type=exceptions.TimeoutType.SCHEDULE_TO_START):
            return _Lost("not taken")
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
