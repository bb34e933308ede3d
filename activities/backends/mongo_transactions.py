"""Transactions that are made again when they meet others."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import ConnectionFailure, PyMongoError

_FIRST_S, _LAST_S = 0.004, 0.25
"""Most that is waited before the second try, and before any."""
_GIVE_UP_S = 30.0

Value = TypeVar("Value")


async def in_transaction(
    client: AsyncMongoClient[Any], work: Callable[[AsyncClientSession], Awaitable[Value]]
) -> Value:
    """Makes what `work` does by its session visible at once, or not at all.

    `work` is called again, after a random wait that grows, while others change what it changes: it must
    begin from what it reads by the session. Raises the driver's errors: what others caused for half a minute
    too. Whether a commit that was cut off came to pass is unknown.
    """
    until = time.monotonic() + _GIVE_UP_S
    most = _FIRST_S
    while True:
        try:
            async with client.start_session() as session, await session.start_transaction():
                return await work(session)
        except PyMongoError as error:
            met_others = error.has_error_label("TransientTransactionError")
            if isinstance(error, ConnectionFailure) or not met_others or time.monotonic() > until:
                raise
        await asyncio.sleep(random.uniform(0, most))
        most = min(2 * most, _LAST_S)
