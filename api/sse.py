"""Frames as Server-Sent Events, and a response that sends them for as long as somebody reads.

Source of the format: the HTML standard, section 9.2. An event's id is its cursor, so that an
`EventSource` which comes back goes on exactly where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, ClassVar, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.connections import cut_off
from api.frames import Frame
from api.hangup import disconnected
from api.subscription import FeedClosed, SlowConsumer
from goatherd.telemetry import get_logger
from goatherd.telemetry.metrics import OPEN_SOCKETS, SLOW_CONSUMERS
from goatherd.waiting import put_down

MEDIA_TYPE = "text/event-stream"
HELLO = b": hello\n\n"
"""Sent at once, so that proxies and clients know that the stream is open. A comment, which is no event."""
SEND_TIMEOUT_S = 5.0
"""A client that has taken nothing for so long, with its buffers full, is cut off."""

log = get_logger(__name__)


def encode(frame: Frame) -> bytes:
    kind, body = frame.wire.type.encode(), frame.wire.body
    if not body:
        return b": %b\n\n" % kind
    if frame.cursor is None:
        return b"event: %b\ndata: %b\n\n" % (kind, body)
    return b"event: %b\nid: %b\ndata: %b\n\n" % (kind, str(frame.cursor).encode(), body)


class EventStream(Response):
    """Sends frames until there are no more, the client goes, or the server shuts down; then closes them.

    A client that reads too slowly is cut off. It may come back with the last id it got.
    """

    media_type = MEDIA_TYPE
    hello: ClassVar[bytes] = HELLO

    def __init__(self, frames: AsyncGenerator[Any]) -> None:
        # Not `super().__init__`, which would say how long the body is.
        self.status_code = 200
        self.background = None
        # `X-Accel-Buffering` is for nginx, which else gathers some kilobytes before it passes them on.
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})
        self._frames = frames

    @staticmethod
    def encoded(frame: Frame) -> bytes:
        return encode(frame)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = asyncio.create_task(self._write(send))
        reader = asyncio.create_task(disconnected(receive))
        with OPEN_SOCKETS.labels("sse").track_inprogress():
            try:
                await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
                if writer.done():
                    writer.result()
            except (SlowConsumer, TimeoutError):
                SLOW_CONSUMERS.inc()
                log.info("cut off an event stream that reads too slowly")
                cut_off(Request(scope))
            except OSError:
                pass  # The client is gone, says the server.
            finally:
                await put_down(writer, reader)
                await self._frames.aclose()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if self.hello:
            await _send(send, self.hello)
        try:
            async with aclosing(self._frames) as frames:
                async for frame in frames:
                    await _send(send, self.encoded(frame))
        except FeedClosed:
            pass  # A whole answer, if a short one: the client comes back, to another process or the next.
        await _send(send, b"", more=False)


class Closable(Protocol):
    async def aclose(self) -> None: ...


class DataStream(EventStream):
    """As it, of what is written as events already: without names, ids, or a greeting.

    What the events are made from is closed at the end, even if they were never begun.
    """

    hello = b""

    def __init__(self, frames: AsyncGenerator[bytes], source: Closable) -> None:
        super().__init__(frames)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._source.aclose()

    @staticmethod
    def encoded(frame: bytes) -> bytes:  # type: ignore[override]
        return frame


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    async with asyncio.timeout(SEND_TIMEOUT_S):
        await send({"type": "http.response.body", "body": body, "more_body": more})
