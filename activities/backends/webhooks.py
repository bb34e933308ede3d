"""Sends webhooks, and only to where it may.

The address is a user's, so that by it he could have us ask what only we can reach. A name is resolved here,
each of its addresses is looked at, and the connection is made to one that was looked at: a name that changes
its mind in between changes nothing. Host, and the name that TLS asks for and checks, stay the URL's.
Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any

import httpcore
import httpx
from standardwebhooks import Webhook as Signer

from activities.task import Webhook, WebhookAnswer
from goatherd.errors import Forbidden, Invalid, Unavailable
from goatherd.security.addresses import is_public

_CONNECT_S = 5.0
_WHOLE_S = 20.0


class Webhooks:
    """`WebhookSender` by HTTP. `allow_private`: also to addresses that are not on the public Internet."""

    def __init__(self, *, allow_private: bool = False, wait_s: float = _WHOLE_S) -> None:
        self._allow_private = allow_private
        self._wait_s = wait_s
        self._ssl = httpx.create_ssl_context()

    async def send(self, webhook: Webhook) -> WebhookAnswer:
        headers = {
            "content-type": "application/json",
            "user-agent": "Goatherd",
            **_signature(webhook, datetime.now(UTC)),
        }
        try:
            url = httpx.URL(webhook.url)
        except httpx.InvalidURL as error:
            raise Invalid(f"The callback's address can't be used: {error}") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise Invalid("The callback's address is not of http or https.")
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._ssl, network_backend=_CheckedBackend(self._allow_private), retries=0
        )
        try:
            # A transport by itself follows no redirect and reads no proxy or password from the environment.
            async with asyncio.timeout(self._wait_s), pool:
                return await _post(pool, url, headers, webhook.body)
        except _Refused as error:
            raise Forbidden("The callback's address is none that webhooks may be sent to.") from error
        except TimeoutError as error:
            raise Unavailable("The callback gave no answer in time.") from error
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            raise Unavailable(f"The callback can't be reached ({type(error).__name__}).") from error


async def _post(
    pool: httpcore.AsyncConnectionPool, url: httpx.URL, headers: dict[str, str], body: bytes
) -> WebhookAnswer:
    request = httpx.Request("POST", url, headers=headers, content=body)
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    timeouts = {"connect": _CONNECT_S, "read": None, "write": None, "pool": None}
    async with pool.stream(
        "POST", target, headers=request.headers.raw, content=body, extensions={"timeout": timeouts}
    ) as response:
        # What it says besides is not for us: it is not read.
        return WebhookAnswer(response.status, _retry_after(response.headers))


def _signature(webhook: Webhook, now: datetime) -> dict[str, str]:
    stamped = {"webhook-id": webhook.id, "webhook-timestamp": str(int(now.timestamp()))}
    if webhook.secret is None:
        return stamped
    try:
        signature = Signer(webhook.secret).sign(webhook.id, now, webhook.body.decode())
    except Exception:
        # Whatever is wrong with it, it must not be told.
        raise Invalid("The callback's secret can't be used.") from None
    return {**stamped, "webhook-signature": signature}


def _retry_after(headers: Sequence[tuple[bytes, bytes]]) -> float | None:
    value = next((value.decode("latin-1") for name, value in headers if name.lower() == b"retry-after"), None)
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


# -- where it may connect to


class _Refused(Exception):
    """A name has an address that is not public."""


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were looked at, and to nothing else."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            found = await _resolve(host, port)
        except (socket.gaierror, UnicodeError) as error:
            raise httpcore.ConnectError("the name is not known") from error
        addresses = list(dict.fromkeys(ip_address(str(one[4][0]).partition("%")[0]) for one in found))
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise _Refused
        last: Exception = httpcore.ConnectError("the name has no address")
        for address in addresses:
            try:
                return await self._backend.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as refusal:
                last = refusal
        raise last

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise _Refused

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


async def _resolve(host: str, port: int) -> Sequence[Any]:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
