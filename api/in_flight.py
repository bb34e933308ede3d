"""How much of requests' larger bodies this process has in hand, and where that ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Message, Receive


class NoRoom(Exception):
    """Not an error of ours, so that no handler answers it before the rest of the body is read.

    `ended`: there is no rest.
    """

    def __init__(self, ended: bool) -> None:
        super().__init__()
        self.ended = ended


class InFlight:
    """Counts bytes as they come, until their requests are answered: a body is held as long, in one form or
    another. Belongs to one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.bytes = 0

    @contextmanager
    def counting(self, receive: Receive) -> Iterator[Receive]:
        """`receive` that raises `NoRoom` when the bytes of all are more than may be. One body always fits."""
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            size = len(message.get("body", b""))
            alone = self.bytes == taken
            taken += size
            self.bytes += size
            if size and self.bytes > self._most and not alone:
                raise NoRoom(ended=not message.get("more_body", False))
            return message

        try:
            yield counted
        finally:
            self.bytes -= taken
