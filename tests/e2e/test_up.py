"""`goatherd up`, as its user runs it: one command, all of it, through kills and restarts."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import httpx
import pytest

from goatherd.embedded._ports import any_free
from tests.e2e.stack import READY_S, running_up, status_of, until_ready
from tests.embedded.waiting import gone, until


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
            await second.reader
            for part in ("already running", str(up.process.pid), up.url):
                assert part in second.output


async def test_a_taken_port_is_said_with_a_way_out(tmp_path: Path) -> None:
    port = any_free()
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", port)
    async with server, running_up(tmp_path / "data", port) as up:
        assert await asyncio.wait_for(up.process.wait(), 10) == 1
        await up.reader
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
