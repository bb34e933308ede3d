"""HEAD, wherever GET is: the same answer without its body."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Head:
    """Has a HEAD answered by its GET. An answer that would go on for ever ends after its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        begun = asyncio.Event()

        async def receive_until_begun() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                return message
            await begun.wait()
            return {"type": "http.disconnect"}

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                begun.set()
                await send({"type": "http.response.body", "body": b""})

        as_get = {**scope, "method": "GET"}
        getting = asyncio.ensure_future(self._app(as_get, receive_until_begun, send_without_body))
        answered = asyncio.create_task(begun.wait())
        try:
            await asyncio.wait({getting, answered}, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                getting.result()
        finally:
            answered.cancel()
            getting.cancel()
            await asyncio.gather(getting, answered, return_exceptions=True)
