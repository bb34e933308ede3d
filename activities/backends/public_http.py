"""Requests to where a person has said a server is, who may name none that only we can reach.

As for webhooks: a name is resolved here, each of its addresses is looked at, and the connection is made to
one that was looked at. Host, and the name that TLS asks for and checks, stay the URL's. No proxy is read from
the environment, which would resolve the name for itself.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address

import httpx2

from goatherd.errors import Unavailable
from goatherd.security.addresses import Address, is_public


class PublicTransport(httpx2.AsyncHTTPTransport):
    """Connects to addresses of the public Internet only. Raises `Unavailable` (`model-unavailable`)."""

    def __init__(self, name: str, limits: httpx2.Limits) -> None:
        """`name`: of the model, for messages."""
        super().__init__(limits=limits)
        self._name = name

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        host = request.url.host
        addresses = await self._looked_at(host, request.url.port)
        # Known by its address from here on; the header Host has been written already.
        extensions = {**request.extensions, "sni_hostname": host}
        for address in addresses[:-1]:
            try:
                return await super().handle_async_request(_at(address, request, extensions))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue  # nothing of the body was read
        return await super().handle_async_request(_at(addresses[-1], request, extensions))

    async def _looked_at(self, host: str, port: int | None) -> list[Address]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpx2.ConnectError(f"the name {host!r} is not known") from error
        addresses = list(dict.fromkeys(ip_address(str(one[4][0]).partition("%")[0]) for one in found))
        if not addresses or not all(is_public(address) for address in addresses):
            raise Unavailable(
                f"model {self._name!r} is unavailable: it was registered by a request, and {host!r} is not "
                "on the public Internet; have it registered where GOATHERD_POSTED_MODEL_PRIVATE allows this",
                code="model-unavailable",
                retry_after_s=60,
            )
        return addresses


def _at(address: Address, request: httpx2.Request, extensions: dict[str, object]) -> httpx2.Request:
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,
        stream=request.stream,
        extensions=extensions,
    )
