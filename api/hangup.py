"""Work that goes on only as long as somebody waits for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from goatherd.waiting import put_down

Value = TypeVar("Value")


async def disconnected(receive: Receive) -> None:
    """Returns when the client is gone. What it still sends is dropped: its body has to be read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(request: Request, work: Coroutine[Any, Any, Value]) -> Value:
    """What `work` gives or raises. If the client goes first, the work is cancelled, and has ended when this
    raises `ClientDisconnect`. The request's body has to be read before.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(disconnected(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        await put_down(leaving)
        if not working.done():
            # Once only: it may have something to tidy up.
            working.cancel()
            await asyncio.wait({working})
        if not working.cancelled():
            working.exception()
