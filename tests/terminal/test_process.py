"""The chat as a process of its own: in a pipe, and on a terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import socket
import sys
from pathlib import Path

from tests.terminal.conftest import served
from tests.terminal.server import REPLY, FakeApi, delta, finished

PROGRAM = "import sys; from goatherd.terminal import chat; sys.exit(chat(sys.argv[1], None, model='fake'))"


async def _start(url: str, **streams: int) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    streams = {"stdin": pipe, "stdout": pipe, "stderr": pipe, **streams}
    return await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, url, **streams)


async def test_in_a_pipe_it_prints_the_replies_and_ends_with_the_input(fake: FakeApi) -> None:
    fake.streams = [[delta(0, "Hel"), finished("completed", "Hello")], [finished("completed", "Bye")]]
    async with served(fake) as url:
        process = await _start(url.removeprefix("http://"))
        out, err = await process.communicate(b"hi\nbye")
    assert out == b"Hello\nBye\n", err
    assert process.returncode == 0
    assert fake.calls[0] == "create {'model': 'fake'}"


async def test_where_nothing_answers_it_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    process = await _start(url)
    out, err = await process.communicate(b"hi\n")
    assert (process.returncode, out) == (1, b"")
    assert f"Nothing answers at {url}" in err.decode()
    assert "goatherd up" in err.decode()
    assert len(err.splitlines()) == 1


async def test_ctrl_c_in_a_pipe_cancels_the_reply_and_ends(fake: FakeApi) -> None:
    fake.streams = [[delta(0, "Once"), fake.deleted.wait, finished("cancelled", "Once")]]
    async with served(fake) as url:
        process = await _start(url)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"tell\n")
        assert await process.stdout.read(4) == b"Once"
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
    assert fake.calls[-1] == f"delete {REPLY}"


async def test_ctrl_c_while_it_reads_from_a_pipe_ends_it(fake: FakeApi) -> None:
    async with served(fake) as url:
        process = await _start(url)
        assert process.stderr is not None
        assert await process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


async def test_on_a_terminal(fake: FakeApi, tmp_path: Path) -> None:
    """A reply with an escape sequence in it; Ctrl-C during the next one; Ctrl-C twice at the prompt."""
    fake.streams = [
        [delta(0, "Hel"), delta(3, "lo\x1b]0;owned\x07"), finished("completed", "Hello\x1b]0;owned\x07")],
        [delta(0, "Once upon"), fake.deleted.wait, finished("cancelled", "Once upon")],
    ]
    ours, theirs = pty.openpty()
    seen = bytearray()
    arrived = asyncio.Event()

    def read() -> None:
        try:
            seen.extend(os.read(ours, 65_536))
        except OSError:  # the other side is closed
            loop.remove_reader(ours)
        # The terminal is asked where its cursor is.
        if b"\x1b[6n" in seen:
            seen.replace(b"\x1b[6n", b"")
            os.write(ours, b"\x1b[1;1R")
        arrived.set()

    async def shows(text: str) -> None:
        while text.encode() not in seen:
            arrived.clear()
            await asyncio.wait_for(arrived.wait(), 10)
        del seen[: seen.index(text.encode()) + len(text.encode())]

    loop = asyncio.get_running_loop()
    loop.add_reader(ours, read)
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "TERM": "xterm"}
    async with served(fake) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, url),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        await shows("you ›")
        os.write(ours, b"first\x1b\rsecond\r")
        await shows("Hello]0;owned")
        await shows("you ›")
        os.write(ours, b"tell\r")
        await shows("Once upon")
        process.send_signal(signal.SIGINT)
        await shows("(cancelled)")
        await shows("you ›")
        os.write(ours, b"\x03")
        await shows("Ctrl-C again")
        await shows("you ›")
        os.write(ours, b"\x03")
        await shows("goes on with it")
        assert await process.wait() == 0
    loop.remove_reader(ours)
    os.close(ours)
    assert [post["content"] for post in fake.posts] == ["first\nsecond", "tell"]
    assert fake.calls[-1] == f"delete {REPLY}"
    history = tmp_path / "goatherd" / "chat_history"
    assert "first" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0
