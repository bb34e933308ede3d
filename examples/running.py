"""How an example is run: in this process, or on the Temporal server that is named; and how it ends."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from goatherd.leaving import leave


def run_example(
    in_this_process: Callable[[], Coroutine[Any, Any, list[str]]],
    on_temporal: Callable[[str], Coroutine[Any, Any, list[str]]],
) -> None:
    """Prints what it says, and ends the program: with one line if nobody answers at the address."""
    if len(sys.argv) < 2:
        told = asyncio.run(in_this_process())
    else:
        address = sys.argv[1]
        if not _answers(address):
            sys.exit(f"No Temporal server answers at {address}. `goatherd up` starts one and says where.")
        told = asyncio.run(on_temporal(address))
    print("\n".join(told))
    leave()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True
