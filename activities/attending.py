"""What long activities share: they say that they live, and hand over what they do when their worker stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from goatherd.errors import GoatherdError
from goatherd.temporal import failure

HEARTBEAT_S = 0.5


@asynccontextmanager
async def beating(*details: object) -> AsyncIterator[None]:
    """Heartbeats meanwhile, with details for the next try: a cancellation comes with the answer to one.

    With details, at once. Without, the first is left to those who take long: the end of an activity waits for
    the answer to a heartbeat, which would cost a short one several milliseconds.
    """
    beats = asyncio.create_task(_beat(details))
    try:
        yield
    finally:
        beats.cancel()


@asynccontextmanager
async def attended(what: str) -> AsyncIterator[None]:
    """An activity's work: heartbeats meanwhile, errors of ours as Temporal has them, and `what` it does is
    handed over when the worker stops."""
    try:
        async with beating():
            yield
    except GoatherdError as error:
        raise failure(error) from error
    except asyncio.CancelledError:
        if (over := handed_over(what)) is not None:
            raise over from None
        raise


async def _beat(details: tuple[object, ...]) -> None:
    if not details:
        await asyncio.sleep(HEARTBEAT_S)
    while True:
        activity.heartbeat(*details)
        await asyncio.sleep(HEARTBEAT_S)


def handed_over(what: str) -> ApplicationError | None:
    """The error to end with if this worker shuts down: another one does it at once. None if it does not."""
    details = activity.cancellation_details()
    if details is None or not details.worker_shutdown:
        return None
    return ApplicationError(
        f"The worker shuts down; another goes on with {what}.",
        type="worker-shutdown",
        next_retry_delay=timedelta(milliseconds=10),
        category=ApplicationErrorCategory.BENIGN,
    )
