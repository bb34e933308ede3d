"""How `up` starts, watches and stops its parts, with stand-ins for them (tests/e2e has the real ones)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from goatherd.embedded._ports import any_free
from tests.embedded.waiting import gone, is_running, until

READY = "Ctrl-C stops it."


class Run:
    """A running `up` and what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""
        self.reading = asyncio.create_task(self._read())

    def children(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]

    async def said(self, text: str) -> None:
        await until(lambda: text in self.output or self.reading.done(), within=20)
        assert text in self.output, self.output

    async def ended(self) -> int:
        async with asyncio.timeout(10):
            await self.reading
            return await self.process.wait()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while chunk := await self.process.stdout.read(65_536):
            self.output += chunk.decode()


Start = Callable[..., Awaitable[Run]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    runs: list[Run] = []

    async def start_up(*options: str, **env: str) -> Run:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.embedded.run_up",
            *("--data", str(tmp_path / "data"), "--port", "0"),
            *options,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **env},
            cwd=Path(__file__).parents[2],
        )
        runs.append(Run(process))
        return runs[-1]

    yield start_up
    for run in runs:
        if run.process.returncode is None:
            run.process.kill()
        await run.ended()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_ends_it_and_all_children(start: Start, number: signal.Signals) -> None:
    up = await start()
    await up.said(READY)
    children = up.children()
    assert len(children) == 3
    up.process.send_signal(number)
    assert await up.ended() == 0
    assert not any(map(is_running, children))


async def test_progress_then_the_banner_without_secrets(start: Start) -> None:
    up = await start()
    await up.said(READY)
    loading, ready, banner = (up.output.index(part) for part in ("… model  loading …", "✓ model", "is ready"))
    assert loading < ready < banner
    for part in ("mongodb://127.0.0.1:2/", "127.0.0.1:1 (namespace default)", "GET  /chat  The caller's"):
        assert part in up.output
    assert "hunter2" not in up.output


async def test_a_part_that_dies_again_and_again_while_starting_ends_the_attempt(start: Start) -> None:
    up = await start(FAKE_BROKEN="api")
    await until(up.reading.done, within=30)
    assert await up.ended() == 1
    assert "api is broken" in up.output
    assert "died 5 times while starting" in up.output


async def test_a_part_that_does_not_listen_is_killed_in_time(start: Start) -> None:
    up = await start(FAKE_DEAF="api")
    await up.said(READY)
    children = up.children()
    up.process.terminate()
    assert await up.ended() == 0
    assert not any(map(is_running, children))
    assert "did not stop in time" in up.output


async def test_a_second_ctrl_c_does_not_wait(start: Start) -> None:
    up = await start(FAKE_DEAF="worker")
    await up.said(READY)
    children = up.children()
    up.process.send_signal(signal.SIGINT)
    await up.said("Stopping")
    up.process.send_signal(signal.SIGINT)
    assert await up.ended() == 130
    assert not any(map(is_running, children))


async def test_a_killed_part_is_brought_back_also_when_all_was_ready(start: Start) -> None:
    up = await start()
    await up.said(READY)
    before = up.children()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: len(set(up.children()) - set(before)) == 3)
    assert up.output.count("child died") == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
async def test_kill_9_of_it_leaves_no_child(start: Start) -> None:
    up = await start()
    await up.said(READY)
    children = up.children()
    up.process.kill()
    await gone(*children)


async def test_a_second_one_says_who_runs_and_leaves_it_alone(start: Start) -> None:
    first = await start()
    await first.said(READY)
    second = await start()
    assert await second.ended() == 1
    for part in ("already running", str(first.process.pid), "http://127.0.0.1:"):
        assert part in second.output
    assert len(first.children()) == 3


async def test_a_taken_port_is_told_with_a_way_out(start: Start) -> None:
    port = any_free()
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port)
    async with server:
        up = await start("--port", str(port))
        assert await up.ended() == 1
    assert f"can't listen on 127.0.0.1 port {port}: Address already in use" in up.output
    assert f"--port {port + 1}" in up.output


async def test_a_folder_that_cannot_be_used_is_told(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    up = await start("--data", str(tmp_path / "file"))
    assert await up.ended() == 1
    assert "Can't use the data folder" in up.output
    assert "--data FOLDER" in up.output


async def test_it_stays_out_of_version_control_and_of_others_sight(start: Start, tmp_path: Path) -> None:
    await (await start()).said(READY)
    assert (tmp_path / "data" / ".gitignore").read_text() == "*\n"
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data" / "up.lock").stat().st_mode & 0o777 == 0o600
