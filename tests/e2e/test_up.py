"""`goatherd up`, as its user runs it: one command, all of it, through kills and restarts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from goatherd.embedded._ports import any_free
from tests.embedded.waiting import gone, until

READY_S = 60.0


class Up:
    """A running `goatherd up`, whose output is read all the time."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url
        self.output = ""
        self._reader = asyncio.create_task(self._read())

    async def ready(self) -> None:
        """Returns when the banner is complete."""
        await until(lambda: "Ctrl-C stops it." in self.output or self._reader.done(), within=READY_S)
        assert not self._reader.done(), self.output

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

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit code, 10 s after the signal at the latest."""
        self.process.send_signal(number)
        async with asyncio.timeout(10):
            code = await self.process.wait()
            await self._reader
        return code

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while chunk := await self.process.stdout.read(65_536):
            self.output += chunk.decode(errors="replace")


@asynccontextmanager
async def running_up(data: Path, port: int, *options: str) -> AsyncIterator[Up]:
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GOATHERD_")},
        "GOATHERD_MODELS": '{"scripted": {"provider": "scripted"}}',
        "GOATHERD_MODEL": "scripted",
    }
    arguments = ("-P", "-m", "goatherd", "up", "--data", str(data), "--port", str(port), *options)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    up = Up(process, f"http://127.0.0.1:{port}")
    try:
        yield up
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await up._reader


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


async def test_up_shows_where_all_is_and_ends_without_a_trace(tmp_path: Path) -> None:
    async with running_up(tmp_path / "data", any_free()) as up, httpx.AsyncClient(base_url=up.url) as client:
        await up.ready()
        assert await status_of(client, "/readyz") == 200
        for part in (
            up.url,
            f"{up.url}/docs",
            "Temporal UI",
            "mongodb://127.0.0.1",
            "scripted",
            "/chat/{session}",
        ):
            assert part in up.output
        pids = [child.pid for child in up.children()]
        assert len(pids) >= 5
        assert await up.end() == 0
        await gone(*pids, within=1)


async def test_ctrl_c_ends_it_too_and_so_does_a_signal_during_the_start(tmp_path: Path) -> None:
    async with running_up(tmp_path / "data", any_free()) as up:
        await until(lambda: up.child("start-dev") is not None, within=READY_S)
        pids = [child.pid for child in up.children()]
        assert await up.end(signal.SIGINT) == 0
        await gone(*pids, within=1)


async def test_a_second_up_on_the_same_folder_says_so(tmp_path: Path) -> None:
    async with running_up(tmp_path / "data", any_free()) as up:
        await until((tmp_path / "data" / "run.json").exists, within=READY_S)
        async with running_up(tmp_path / "data", any_free()) as second:
            assert await asyncio.wait_for(second.process.wait(), 10) == 1
            await second._reader
            for part in ("already running", str(up.process.pid), up.url):
                assert part in second.output


async def test_a_taken_port_is_said_with_a_way_out(tmp_path: Path) -> None:
    port = any_free()
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port)
    async with server, running_up(tmp_path / "data", port) as up:
        assert await asyncio.wait_for(up.process.wait(), 10) == 1
        await up._reader
        assert f"can't listen on 127.0.0.1 port {port}" in up.output
        assert "--port" in up.output


@pytest.mark.parametrize(
    "words",
    [("goatherd", "api"), ("goatherd", "actors"), ("goatherd", "inference"), ("start-dev",), ("secantusd",)],
    ids=["api", "workers", "inference", "temporal", "store"],
)
async def test_a_killed_child_comes_back_and_all_is_ready_again(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    async with running_up(tmp_path / "data", any_free()) as up, httpx.AsyncClient(base_url=up.url) as client:
        await up.ready()
        killed = up.child(*words)
        assert killed is not None
        killed.kill()
        await until(lambda: up.child(*words) not in (None, killed))
        await until_ready(client)
        session = await client.post("/chat", json={}, timeout=30)
        assert session.status_code == 201
        assert "child died" in up.output
        assert "SIGKILL" in up.output
        assert await up.end() == 0


async def test_kill_9_of_all_loses_no_session_and_a_restart_finds_it(tmp_path: Path) -> None:
    port = any_free()
    async with running_up(tmp_path / "data", port) as up, httpx.AsyncClient(base_url=up.url) as client:
        await up.ready()
        made = (
            (await client.post("/chat", json={"title": "kept"}, timeout=30)).raise_for_status().json()["id"]
        )
        pids = [child.pid for child in up.children()]
        up.process.kill()
        await gone(*pids)  # nobody outlives `up`
    async with running_up(tmp_path / "data", port) as up, httpx.AsyncClient(base_url=up.url) as client:
        await up.ready()
        found = (await client.get("/chat")).raise_for_status().json()["data"]
        assert [session["id"] for session in found] == [made]
        assert await up.end() == 0
