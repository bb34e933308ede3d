"""`goatherd task` as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from goatherd.cli import app
from tests.terminal.conftest import served
from tests.terminal.task_server import TASK, FakeTasks

# A runner that was started in the background ignores SIGINT, and so would all that it starts.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from goatherd.cli import main; main()"
)


async def _start(url: str, *arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, "task", *arguments),
        env={**os.environ, "GOATHERD_URL": url},
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    )


async def _run(url: str, *arguments: str, text: bytes = b"") -> tuple[int | None, str, str]:
    process = await _start(url, *arguments)
    out, err = await process.communicate(text)
    return process.returncode, out.decode(), err.decode()


async def test_from_a_pipe_to_results() -> None:
    fake = FakeTasks()
    async with served(fake) as url:  # type: ignore[arg-type]
        code, out, err = await _run(url, "create", "-", "--overlap", "2", text=b'"one"\n"two"\n')
        assert (code, out) == (0, f"{TASK}\n"), err
        assert fake.settings is not None
        assert fake.settings["overlap"] == 2
        code, _, err = await _run(url, "work", TASK, "--worker", "ada", text=b"1\n2\n")
        assert code == 0, err
        code, out, _ = await _run(url, "watch", TASK)
        assert (code, out) == (0, "completed: 2 of 2 done (100 %) · 2 completed\n")
        code, out, _ = await _run(url, "results", TASK)
        assert [json.loads(line)["result"] for line in out.splitlines()] == [1, 2]
        code, _, err = await _run(url, "cancel", TASK)
        assert code == 0
        assert f"{TASK} is cancelled" in err
        assert (await _run(url, "watch", TASK))[0] == 3


async def test_what_can_not_be_is_said_in_a_line(tmp_path: Path) -> None:
    fake = FakeTasks()
    async with served(fake) as url:  # type: ignore[arg-type]
        code, out, err = await _run(url, "create", "-", text=b"1\n{\n")
        assert (code, out) == (2, "")
        assert err.startswith("Line 2: it is not JSON")
        assert (await _run(url, "create", str(tmp_path / "none.jsonl")))[0] == 2
        assert (await _run(url, "create", os.devnull))[0] == 2
        assert fake.settings is None
        code, _, err = await _run(url, "work", TASK, "--command", "no-such-program-here")
        assert (code, "no shell" in err) == (2, True)
        assert (await _run(url, "work", TASK, "--command", "echo 'half"))[0] == 2
        code, _, err = await _run(url, "show", "task_0")
        assert (code, err) == (1, "There is no such task.\n")


async def test_ctrl_c_gives_back_what_a_program_has() -> None:
    fake = FakeTasks()
    fake.put("one")
    async with served(fake) as url:  # type: ignore[arg-type]
        process = await _start(url, "work", TASK, "--command", "sleep 60")
        await fake.taken.wait()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert process.returncode == 130, err.decode()
    assert fake.leased() == []
    assert fake.items[0].status == "pending"


async def test_requeue_says_what_it_was_not_asked_for() -> None:
    fake = FakeTasks()
    fake.put(1, 2, 3)
    for item in fake.items:
        item.status = "failed"
    async with served(fake) as url:  # type: ignore[arg-type]
        code, _, err = await _run(url, "requeue", TASK)
        assert (code, err.splitlines()[0]) == (0, "0 requeued; 3 are failed: --status failed")
        code, _, err = await _run(url, "requeue", TASK, "--status", "failed")
        assert (code, err.splitlines()[0]) == (0, "3 requeued")


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_the_version_is_an_option_too(arguments: list[str]) -> None:
    shown = CliRunner().invoke(app, arguments)
    assert (shown.exit_code, shown.output) == (0, f"goatherd {version('goatherd')}\n")


def test_help_says_that_a_command_is_no_shell() -> None:
    shown = CliRunner().invoke(app, ["task", "work", "--help"], env={"COLUMNS": "200"})
    assert "no shell" in shown.output
