"""What uvicorn's connections lack for clients that stay: a way to be rid of one that doesn't read, and a word
to the application before the server waits for it to end.

Give uvicorn `http=HttpConnection, ws=WebSocketConnection`. A peer that takes nothing leaves its connection
with a full buffer: closing waits for that buffer for ever, and ASGI knows nothing else. So each
connection's state has `cut`, and `cut_off` uses it where there is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import HTTPConnection
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

LINGER_S = 10.0
"""For so long a slow client may still fetch what was sent before it was cut off, and why it was."""
_GOODBYE_S = 2.0


def cut_off(connection: HTTPConnection) -> None:
    """Makes an end of a client that doesn't read: nothing that is sent from now on waits for it."""
    cut: Callable[[], None] | None = getattr(connection.state, "cut", None)
    if cut is not None:
        cut()


class HttpConnection(HttpToolsProtocol):
    """An HTTP connection that can be dropped in the middle of an answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {**self.app_state, "cut": transport.abort}
        super().connection_made(transport)

    def shutdown(self) -> None:
        _close_feed(self.app_state)
        super().shutdown()


class WebSocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket whose close frame can be sent past a full buffer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {**self.app_state, "cut": self._cut}
        super().connection_made(transport)

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            # Uvicorn forgets that the answer of a refusal ends the handshake, and logs an error.
            self.handshake_complete = True

    def _cut(self) -> None:
        self.writable.set()
        self.loop.call_later(LINGER_S, self.transport.abort)

    def shutdown(self) -> None:
        _close_feed(self.app_state)
        super().shutdown()
        self.loop.call_later(_GOODBYE_S, self.transport.abort)


def _close_feed(state: dict[str, Any]) -> None:
    # Else streams go on, and the server waits for them.
    parts = state.get("parts")
    if parts is not None:
        parts.feed.close()
        parts.tasks.feed.close()
