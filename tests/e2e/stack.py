"""A whole Goatherd as its user runs it, and the processes that others add to it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import psutil

from goatherd.embedded._lock import Running, find_running
from tests.embedded.waiting import until

READY_S = 60.0
SCRIPTED = {
    "GOATHERD_MODELS": '{"scripted": {"provider": "scripted"}}',
    "GOATHERD_MODEL": "scripted",
}


class Command:
    """A running `goatherd …`, whose output is read all the time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""
        self.reader = asyncio.create_task(self._read())

    async def said(self, words: str) -> None:
        """Returns when it has put this out."""
        await until(lambda: words in self.output or self.reader.done(), within=READY_S)
        assert words in self.output, self.output

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit code, 10 s after the signal at the latest."""
        self.process.send_signal(number)
        async with asyncio.timeout(10):
            code = await self.process.wait()
            await self.reader
        return code

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while chunk := await self.process.stdout.read(65_536):
            self.output += chunk.decode(errors="replace")


class Up(Command):
    """A running `goatherd up`."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, data: Path) -> None:
        super().__init__(process)
        self.url = url
        self.data = data

    async def ready(self) -> None:
        """Returns when the banner is complete."""
        await self.said("Ctrl-C stops it.")

    def where(self) -> Running:
        """Where its servers are, as others find them."""
        running = find_running(self.data)
        assert running is not None
        return running

    def children(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def child(self, *words: str) -> psutil.Process | None:
        """The child whose command line has all the words."""
        for child in self.children():
            try:
                line = child.cmdline()
            except psutil.Error:
                continue
            if all(any(word in part for part in line) for word in words) and "_exec.py" not in " ".join(line):
                return child
        return None

    def part(self, *words: str) -> psutil.Process:
        """As `child`, which has to be there."""
        child = self.child(*words)
        assert child is not None, f"no child {words} runs"
        return child

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It starts nothing anew meanwhile, so that what is killed stays dead."""
        with frozen(psutil.Process(self.process.pid)):
            yield


@contextmanager
def frozen(process: psutil.Process) -> Iterator[None]:
    """It does nothing at all meanwhile, with its connections open: a machine that hangs."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


async def _start(*arguments: str, env: Mapping[str, str]) -> asyncio.subprocess.Process:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GOATHERD_")}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", "goatherd", *arguments),
        env={**ours, **SCRIPTED, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )


async def _end(command: Command) -> None:
    if command.process.returncode is None:
        command.process.kill()
    await command.process.wait()
    await command.reader


@asynccontextmanager
async def running_up(
    data: Path, port: int, *options: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[Up]:
    process = await _start("up", "--data", str(data), "--port", str(port), *options, env=env or {})
    up = Up(process, f"http://127.0.0.1:{port}", data)
    try:
        yield up
    finally:
        await _end(up)


@asynccontextmanager
async def running_beside(up: Up, *arguments: str) -> AsyncIterator[Command]:
    """`goatherd api …` or `goatherd worker …` on the data folder of an `up` that runs."""
    command = Command(await _start(*arguments, "--data", str(up.data), env={}))
    try:
        yield command
    finally:
        await _end(command)


async def status_of(client: httpx.AsyncClient, path: str) -> int:
    """0 if nobody answers."""
    try:
        return (await client.get(path)).status_code
    except httpx.HTTPError:
        return 0


async def until_ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            if await status_of(client, "/readyz") == 200:
                return
            await asyncio.sleep(0.05)
