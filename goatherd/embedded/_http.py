"""Asking our own parts how they are: no proxies, no redirects, and no client library to hold."""

from __future__ import annotations

import asyncio
import http.client


async def get(host: str, port: int, path: str, *, timeout: float = 2.0) -> tuple[int, bytes]:
    """Status and body. Raises `OSError` if nobody answers properly within `timeout` seconds (a read)."""
    return await asyncio.to_thread(_get, host, port, path, timeout)


def _get(host: str, port: int, path: str, timeout: float) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"no proper HTTP answer from {host}:{port}: {error!r}") from error
    finally:
        connection.close()
