"""Starting a server that others made: as a child, until it answers."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from goatherd.embedded._process import Child
from goatherd.errors import Unavailable

_ATTEMPTS = 3
_POLL_S = 0.02

Probe = Callable[[], Awaitable[bool]]
"""Whether the server does its work now; `OSError` counts as no."""


class StartFailed(Unavailable):
    """A part could not be started; the message says which, why, and what to do."""

    code = "start-failed"


async def start_server(
    attempt: Callable[[], tuple[Child, Probe]], *, log_file: Path, timeout: float = 30.0
) -> Child:
    """Starts what `attempt` makes and waits until its probe says yes.

    A server that dies before that is tried again, each time made anew: its port may have been taken between
    the moment it was found free and the moment it was bound.

    Raises:
        StartFailed: with the end of its log.
    """
    began = _size(log_file)
    name = ""
    for _ in range(_ATTEMPTS):
        child, probe = attempt()
        name = child.name
        await child.start()
        try:
            if await _answers(child, probe, timeout):
                return child
        except BaseException:
            child.kill()
            await child.stop(0)
            raise
        child.kill()
        await child.stop(0)
    raise StartFailed(f"{name} did not start. {_last_words(log_file, began)}")


async def _answers(child: Child, probe: Probe, timeout: float) -> bool:
    """Waits for the probe; false if the child dies first or time runs out."""
    died = asyncio.ensure_future(child.died())
    try:
        async with asyncio.timeout(timeout):
            while not died.done():
                try:
                    if await probe():
                        return True
                except OSError:
                    pass
                await asyncio.wait({died}, timeout=_POLL_S)
    except TimeoutError:
        pass
    finally:
        died.cancel()
    return False


def program(name: str, *, instead: str) -> str:
    """The absolute path of a program that one of our dependencies brings.

    Raises:
        StartFailed: it is not installed; `instead` says what else one can do.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise StartFailed(
            f"{name!r} is not installed. Install it (`pip install 'goatherd[embedded]'`), or {instead}."
        )
    return found


def bare_environment() -> dict[str, str]:
    """Our environment without what is meant for us or for Temporal's CLI: no secrets, no stray settings."""
    return {k: v for k, v in os.environ.items() if not k.upper().startswith(("GOATHERD_", "TEMPORAL_"))}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _last_words(log_file: Path, began: int) -> str:
    try:
        with log_file.open("rb") as file:
            file.seek(began if began <= _size(log_file) else 0)  # it may have been rotated since
            words = file.read()[-2_000:].decode(errors="replace").strip().splitlines()[-12:]
    except OSError:
        words = []
    if not words:
        return f"It said nothing in {log_file}."
    return "\n".join((f"The end of {log_file}:", *(f"  {line}" for line in words)))
