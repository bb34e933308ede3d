"""A whole `goatherd up` of its own, to measure, and raw Temporal on the same server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

TEXT = "A goat is a goat, and a herd is a herd. "


@dataclass(frozen=True, slots=True)
class Stack:
    """`seconds`: how long it took to be ready. `temporal`: the address of its server."""

    http: aiohttp.ClientSession
    temporal: str
    pid: int
    seconds: float

    async def session(self) -> str:
        async with self.http.post("/chat", json={}) as answer:
            assert answer.status == 201, await answer.text()
            return str((await answer.json())["id"])

    async def post(self, session: str) -> None:
        """A message without a reply, until it is stored."""
        body = {"content": TEXT, "reply": False}
        async with self.http.post(f"/chat/{session}/message", json=body) as answer:
            assert answer.status == 201, await answer.text()
            await answer.read()


@asynccontextmanager
async def running(more: Mapping[str, str] | None = None) -> AsyncIterator[Stack]:
    """`more`: settings, as environment variables."""
    with tempfile.TemporaryDirectory() as folder:
        up, seconds = _up(Path(folder), more or {})
        try:
            state = json.loads((Path(folder) / "run.json").read_text())
            # The server closes what was idle for 5 s, as connections are while the other side is measured.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
            async with aiohttp.ClientSession(f"http://127.0.0.1:{state['api']}", connector=connector) as http:
                yield Stack(http, f"127.0.0.1:{state['temporal']}", up.pid, seconds)
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(15)


@asynccontextmanager
async def raw_worker(temporal: str) -> AsyncIterator[None]:
    """A worker of the bare workflow, in a process of its own as ours are."""
    worker = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.chat.raw", temporal)
    try:
        yield
    finally:
        worker.kill()
        await worker.wait()


def _up(folder: Path, more: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], float]:
    started = time.perf_counter()
    command = [sys.executable, "-m", "goatherd", "up", "--port", "0", "--data", str(folder)]
    environment = os.environ | {"GOATHERD_LOG_LEVEL": "warning", **more}
    log = (folder / "up.log").open("wb")
    up = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    while b"curl" not in (folder / "up.log").read_bytes():
        if up.poll() is not None or time.perf_counter() - started > 120:
            raise SystemExit((folder / "up.log").read_text())
        time.sleep(0.05)
    return up, time.perf_counter() - started
