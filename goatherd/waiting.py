"""Waiting for what a process needs to come up, and for the signal to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from goatherd.errors import GoatherdError
from goatherd.telemetry import get_logger

_RETRY_S = 0.3
_AGAIN_S = 0.1

Value = TypeVar("Value")

log = get_logger(__name__)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def put_down(*tasks: asyncio.Future[Any]) -> None:
    """Cancels tasks that have nothing long to tidy up, and waits until they have ended; what they raise is
    dropped.

    Again until it is heard: a cancellation at the very moment of a result is lost in `asyncio.wait_for` of
    Python 3.11, which PyMongo uses.
    """
    for task in tasks:
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_AGAIN_S)
        if not task.cancelled():
            task.exception()


async def run_until(stop: asyncio.Event, work: Awaitable[None]) -> None:
    """Awaits `work`, or cancels it when `stop` is set and waits until it has tidied up."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    working.cancel()
    try:
        await working
    except asyncio.CancelledError:
        if not stop.is_set():
            raise


async def until_up(what: str, connect: Callable[[], Awaitable[Value]]) -> Value:
    """What `connect` gives, as soon as it can. Says once what is waited for."""
    said = False
    while True:
        try:
            return await connect()
        except (GoatherdError, RuntimeError, OSError) as error:
            # RuntimeError is what Temporal's client raises when nobody listens.
            if not said:
                log.info(f"waiting for {what}", error=str(error))
                said = True
        await asyncio.sleep(_RETRY_S)
