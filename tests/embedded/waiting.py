"""Waiting for what other processes do, which nothing here can be told of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psutil


async def until(true: Callable[[], bool], *, within: float = 10.0) -> None:
    """Returns once it is true; raises `TimeoutError` if it isn't `within` that many seconds."""
    async with asyncio.timeout(within):
        while True:
            if true():
                return
            await asyncio.sleep(0.005)


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def gone(*pids: int, within: float = 10.0) -> None:
    """Returns once none of the processes runs."""
    await until(lambda: not any(map(is_running, pids)), within=within)
