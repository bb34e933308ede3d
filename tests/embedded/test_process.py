"""A supervised child: brought back when it dies, gone with all it started when it is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from goatherd.embedded._process import Backoff, Child, how_it_ended
from tests.embedded.waiting import gone, is_running, until

QUICK = Backoff(first=0.01, most=0.04)

# Writes its id and that of a child of its own, then lives on.
PARENT = """
import os, signal, subprocess, sys, time
{setup}
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
path = sys.argv[1]
with open(path + ".tmp", "w") as file:
    file.write(f"{{os.getpid()}} {{child.pid}}")
os.replace(path + ".tmp", path)
time.sleep(600)
"""

StartChild = Callable[..., Awaitable[Child]]


@pytest.fixture
async def start() -> AsyncIterator[StartChild]:
    children: list[Child] = []

    async def start_child(code: str, *arguments: object, **options: object) -> Child:
        argv = [sys.executable, "-I", "-S", "-c", code, *map(str, arguments)]
        child = Child("sample", argv, **{"backoff": QUICK, **options})  # type: ignore[arg-type]
        await child.start()
        children.append(child)
        return child

    yield start_child
    for child in children:
        child.kill()
        await child.stop(0)


async def ids_from(path: Path) -> list[int]:
    await until(path.exists)
    return [int(text) for text in path.read_text().split()]  # noqa: ASYNC240 - a few bytes


async def test_a_killed_child_is_restarted_and_the_log_says_why(start: StartChild) -> None:
    child = await start("import time; time.sleep(600)")
    first = child.pid
    assert first is not None
    with capture_logs() as logs:
        os.kill(first, signal.SIGKILL)
        second = await asyncio.wait_for(child.restarted(not_pid=first), 10)
    assert is_running(second)
    assert logs[0] == {
        "event": "child died",
        "log_level": "warning",
        "child": "sample",
        "pid": first,
        "signal": "SIGKILL",
        "restart_in_s": 0.01,
    }
    assert logs[1]["event"] == "child restarted"
    assert logs[1]["pid"] == second


async def test_a_child_that_keeps_dying_is_restarted_more_and_more_slowly(start: StartChild) -> None:
    with capture_logs() as logs:
        child = await start("raise SystemExit(3)")
        await asyncio.wait_for(child.died(4), 20)
    deaths = [entry for entry in logs if entry["event"] == "child died"]
    assert [entry["restart_in_s"] for entry in deaths[:4]] == [0.01, 0.02, 0.04, 0.04]
    assert {entry["exit_code"] for entry in deaths} == {3}


def test_the_backoff_has_a_ceiling_also_after_very_many_deaths() -> None:
    assert Backoff().delay(100_000) == 10.0


async def test_stop_ends_the_child_and_its_children(start: StartChild, tmp_path: Path) -> None:
    child = await start(PARENT.format(setup=""), tmp_path / "ids")
    pids = await ids_from(tmp_path / "ids")
    await child.stop(10)
    await gone(*pids)


async def test_stop_kills_what_does_not_listen(start: StartChild, tmp_path: Path) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    child = await start(PARENT.format(setup=deaf), tmp_path / "ids")
    pids = await ids_from(tmp_path / "ids")
    with capture_logs() as logs:
        await child.stop(0.05)
    await gone(*pids)
    assert [entry["event"] for entry in logs] == ["child killed: it did not stop in time"]


async def test_a_dead_childs_children_do_not_live_on_beside_its_successor(
    start: StartChild, tmp_path: Path
) -> None:
    child = await start(PARENT.format(setup=""), tmp_path / "ids")
    first, grandchild = await ids_from(tmp_path / "ids")
    os.kill(first, signal.SIGKILL)
    await asyncio.wait_for(child.restarted(not_pid=first), 10)
    await gone(first, grandchild)


async def test_stop_while_it_waits_for_a_restart_returns_at_once(start: StartChild) -> None:
    child = await start("raise SystemExit(1)", backoff=Backoff(first=600, most=600))
    await asyncio.wait_for(child.died(), 10)
    await asyncio.wait_for(child.stop(600), 5)
    assert child.pid is None


async def test_stop_is_of_no_harm_before_start_and_twice(start: StartChild) -> None:
    await Child("never", [sys.executable]).stop(1)
    child = await start("import time; time.sleep(600)")
    await child.stop(10)
    await child.stop(10)


async def test_ctrl_c_on_the_terminal_does_not_reach_a_child(start: StartChild) -> None:
    child = await start("import time; time.sleep(600)")
    assert child.pid is not None
    assert os.getsid(child.pid) == os.getpgid(child.pid) == child.pid


async def test_output_goes_to_a_file_that_is_rotated_when_it_has_grown(
    start: StartChild, tmp_path: Path
) -> None:
    log_file = tmp_path / "logs" / "sample.log"
    log_file.parent.mkdir()
    log_file.write_bytes(b"x" * (10 << 20) + b"y")
    child = await start("print('hello', flush=True); import time; time.sleep(600)", log_file=log_file)
    await until(lambda: log_file.read_text() == "hello\n")
    assert log_file.with_name("sample.log.1").stat().st_size == (10 << 20) + 1
    await child.stop(10)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
async def test_kill_9_of_the_parent_leaves_no_child(tmp_path: Path) -> None:
    supervisor = """
import asyncio, sys
from goatherd.embedded._process import Child

async def main():
    child = Child("sample", [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
    await child.start()
    print(child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", supervisor, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        child = int(await asyncio.wait_for(process.stdout.readline(), 10))
        assert is_running(child)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
    await gone(child)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, {"exit_code": 0}),
        (2, {"exit_code": 2}),
        (-15, {"signal": "SIGTERM"}),
        (-40, {"signal": "40"}),
    ],
)
def test_how_a_child_ended_is_told_in_words(code: int, said: dict[str, object]) -> None:
    assert how_it_ended(code) == said
