"""The chat as a process of its own: in a pipe, and on a terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tests.terminal.conftest import served
from tests.terminal.server import REPLY, FakeApi, delta, finished, frame

# A runner that was started in the background ignores SIGINT, and so would all that it starts.
INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
PROGRAM = f"""{INTERRUPTIBLE}
import sys; from goatherd.terminal import chat; sys.exit(chat(sys.argv[1], None, model='fake'))
"""
IN_FRONT = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "


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
    assert all(way in err.decode() for way in ("--data", "--url", "goatherd up"))
    assert len(err.splitlines()) == 1


async def test_ctrl_c_in_a_pipe_cancels_the_reply_and_ends(fake: FakeApi) -> None:
    fake.streams = [[delta(0, "Once"), fake.cancelled.wait, finished("cancelled", "Once")]]
    async with served(fake) as url:
        process = await _start(url)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"tell\n")
        assert await process.stdout.read(4) == b"Once"
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
    assert fake.calls[-1] == f"cancel {REPLY}"


async def test_ctrl_c_while_it_reads_from_a_pipe_ends_it(fake: FakeApi) -> None:
    async with served(fake) as url:
        process = await _start(url)
        assert process.stderr is not None
        assert await process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


class Tty:
    """A terminal, and what it was sent. One end is for the person."""

    def __init__(self, ours: int) -> None:
        self._ours = ours
        self._seen = bytearray()
        self._arrived = asyncio.Event()

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def read(self) -> None:
        try:
            self._seen.extend(os.read(self._ours, 65_536))
        except OSError:  # the other side is closed
            asyncio.get_running_loop().remove_reader(self._ours)
        # The terminal is asked where its cursor is.
        if b"\x1b[6n" in self._seen:
            self._seen = self._seen.replace(b"\x1b[6n", b"")
            self.type(b"\x1b[1;1R")
        self._arrived.set()

    async def shows(self, text: str) -> str:
        """What came before it since the last time."""
        while text.encode() not in self._seen:
            self._arrived.clear()
            await asyncio.wait_for(self._arrived.wait(), 10)
        before, _, self._seen = self._seen.partition(text.encode())
        return before.decode()


@contextmanager
def _tty() -> Iterator[tuple[Tty, int]]:
    ours, theirs = pty.openpty()
    tty = Tty(ours)
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, tty.read)
    try:
        yield tty, theirs
    finally:
        loop.remove_reader(ours)
        os.close(ours)


@asynccontextmanager
async def _on_tty(url: str, home: Path) -> AsyncIterator[tuple[Tty, asyncio.subprocess.Process]]:
    """The chat, whose terminal this is: Ctrl-C that is typed there is a signal to it."""
    with _tty() as (tty, theirs):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", IN_FRONT + PROGRAM, url),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "XDG_DATA_HOME": str(home), "TERM": "xterm"},
            start_new_session=True,
        )
        os.close(theirs)
        try:
            yield tty, process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_on_a_terminal(fake: FakeApi, tmp_path: Path) -> None:
    """A reply with what steers a terminal in it; Ctrl-C during the next one; Ctrl-C twice at the prompt."""
    nasty = "Hello\x1b]0;ow\u202ened\u2066\x07"
    fake.streams = [
        [delta(0, "Hel"), delta(3, nasty[3:]), finished("completed", nasty)],
        [delta(0, "Once upon"), fake.cancelled.wait, finished("cancelled", "Once upon")],
    ]
    async with served(fake) as url, _on_tty(url, tmp_path) as (tty, process):
        await tty.shows("you ›")
        tty.type(b"first\x1b\rsecond\r")
        await tty.shows("Hello]0;owned")
        await tty.shows("you ›")
        tty.type(b"tell\r")
        await tty.shows("Once upon")
        tty.type(b"\x03")
        assert "^C" not in await tty.shows("(cancelled)")
        await tty.shows("you ›")
        tty.type(b"\x03")
        await tty.shows("Ctrl-C again")
        await tty.shows("you ›")
        tty.type(b"\x03")
        await tty.shows("goes on with it")
        assert await process.wait() == 0
    assert [post["content"] for post in fake.posts] == ["first\nsecond", "tell"]
    assert fake.calls[-1] == f"cancel {REPLY}"
    history = tmp_path / "goatherd" / "chat_history"
    assert "first" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


async def test_on_a_terminal_each_piece_is_shown_before_the_next_one_is_sent(
    fake: FakeApi, tmp_path: Path
) -> None:
    seen = [asyncio.Event() for _ in range(3)]
    fake.streams = [
        [
            frame("run.started", "6", {"model": "fake"}),
            seen[0].wait,
            delta(0, "Once"),
            seen[1].wait,
            delta(4, " upon"),
            seen[2].wait,
            delta(9, " a\ntime"),
            finished("completed", "Once upon a\ntime"),
        ]
    ]
    async with served(fake) as url, _on_tty(url, tmp_path) as (tty, _):
        await tty.shows("you ›")
        tty.type(b"tell\r")
        await tty.shows("thinking…")
        seen[0].set()
        # The line that was the spinner's has been emptied.
        assert (await tty.shows("Once")).endswith("\x1b[2K")
        seen[1].set()
        assert await tty.shows(" upon") == ""
        seen[2].set()
        assert await tty.shows(" a\r\ntime") == ""
        assert "thinking" not in await tty.shows("you ›")


async def test_what_is_not_a_prompt_is_still_no_way_to_steer_a_terminal(fake: FakeApi) -> None:
    fake.streams = [[finished("completed", "He\x1b[31mllo\u202e")]]
    with _tty() as (tty, theirs):
        async with served(fake) as url:
            process = await _start(url, stdout=theirs)
            os.close(theirs)
            await process.communicate(b"hi\n")
            assert await tty.shows("He[31mllo\r\n") == ""


async def test_where_no_goatherd_up_runs_the_folder_and_the_url_tried_are_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GOATHERD_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "goatherd", "chat", "--data", str(tmp_path)),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**inherited, "GOATHERD_PORT": str(port)},
    )
    _, err = await process.communicate()
    assert process.returncode == 1
    assert f"No `goatherd up` runs on '{tmp_path}'; trying http://127.0.0.1:{port}." in err.decode()
    assert "--url (GOATHERD_URL)" in err.decode()
