"""One supervised child process: restarted when it dies, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from goatherd.telemetry import get_logger

_EXEC = Path(__file__).with_name("_exec.py")
_LOG_LIMIT = 10 << 20

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a child that died stays down: doubling from `first`, at most `most`, all in seconds.

    One that lived for `stable` counts as well again.
    """

    first: float = 0.2
    most: float = 10.0
    stable: float = 20.0

    def delay(self, deaths: int) -> float:
        """After that many early deaths in a row (from 1)."""
        return min(self.most, self.first * 2.0 ** min(deaths - 1, 30))


class Child:
    """A program that runs until `stop`.

    It leads a session and a process group of its own, so that a terminal's Ctrl-C passes it by and
    whatever it starts can be ended with it. On Linux it is killed when this process dies, however it does.
    With `log_file` its output goes there (and the last one is kept as `….1` once it is over 10 MB); else
    it shares ours.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log_file: Path | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.name = name
        self.log_file = log_file
        self.deaths = 0
        """How often it ended without being asked to."""
        self._argv = list(argv)
        self._env = env
        self._cwd = cwd
        self._backoff = backoff or Backoff()
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._changed = asyncio.Condition()
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Starts it. Raises `OSError` if that is impossible; that it is of use later is for others to see."""
        if self.log_file is not None:
            _rotate(self.log_file)
        process = await self._spawn()
        self._supervisor = asyncio.create_task(self._supervise(process), name=f"supervise {self.name}")

    async def stop(self, grace: float) -> None:
        """Asks it to end, and after `grace` seconds kills it, with all that is left of its group."""
        if self._supervisor is None:
            return
        self._stopping.set()
        self._signal(signal.SIGTERM)
        done, _ = await asyncio.wait({self._supervisor}, timeout=grace)
        if not done:
            log.warning("child killed: it did not stop in time", child=self.name, pid=self.pid, grace_s=grace)
            self.kill()
        await self._supervisor

    def kill(self) -> None:
        """Kills it and its group now, for good; `stop` then only waits for the end."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    async def died(self, times: int = 1) -> None:
        """Returns once it has ended unasked that many times."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.deaths >= times)

    async def restarted(self, *, not_pid: int | None) -> int:
        """The process's id, once it runs and that is another one than `not_pid`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.pid not in (None, not_pid))
        assert self.pid is not None
        return self.pid

    async def _supervise(self, process: asyncio.subprocess.Process) -> None:
        early = 0
        while True:
            began = time.monotonic()
            code = await process.wait()
            _signal_group(process.pid, signal.SIGKILL)  # what it started must not run beside its successor
            self._process = None
            if self._stopping.is_set():
                return
            early = 1 if time.monotonic() - began >= self._backoff.stable else early + 1
            delay = self._backoff.delay(early)
            log.warning(
                "child died", child=self.name, pid=process.pid, **how_it_ended(code), restart_in_s=delay
            )
            await self._tell(deaths=self.deaths + 1)
            successor = await self._respawn(early)
            if successor is None:
                return
            process = successor
            log.info("child restarted", child=self.name, pid=process.pid)
            await self._tell()
            if self._stopping.is_set():  # asked while it was being started
                self._signal(signal.SIGTERM)

    async def _respawn(self, early: int) -> asyncio.subprocess.Process | None:
        """The next process, after the pause that is due; None if it is not wanted any more."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._backoff.delay(early))
                return None
            try:
                return await self._spawn()
            except OSError as error:  # no memory, no file handles: that may pass
                early += 1
                log.error(
                    "child could not be restarted",
                    child=self.name,
                    error=str(error),
                    restart_in_s=self._backoff.delay(early),
                )

    async def _spawn(self) -> asyncio.subprocess.Process:
        with ExitStack() as opened:
            output = None
            if self.log_file is not None:
                self.log_file.parent.mkdir(parents=True, exist_ok=True)
                output = opened.enter_context(self.log_file.open("ab"))
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                str(_EXEC),
                str(os.getpid()),
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
        return self._process

    async def _tell(self, *, deaths: int | None = None) -> None:
        async with self._changed:
            if deaths is not None:
                self.deaths = deaths
            self._changed.notify_all()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            _signal_group(self._process.pid, number)


def how_it_ended(code: int) -> dict[str, str | int]:
    """A return code as fields of a log line: `{"signal": "SIGKILL"}` or `{"exit_code": 1}`."""
    if code >= 0:
        return {"exit_code": code}
    try:
        return {"signal": signal.Signals(-code).name}
    except ValueError:  # a real-time signal has no name
        return {"signal": str(-code)}


def _signal_group(leader: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # nobody left; macOS says EPERM of a zombie
        os.killpg(leader, number)


def _rotate(path: Path) -> None:
    if path.exists() and path.stat().st_size > _LOG_LIMIT:
        path.replace(path.with_name(f"{path.name}.1"))
