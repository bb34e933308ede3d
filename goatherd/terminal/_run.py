"""Puts a chat on this process's terminal or pipe."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import sys
import termios
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import httpx
from rich.console import Console

from goatherd.terminal._api import Api, Refused, Unreachable
from goatherd.terminal._chat import INTERRUPTED, Chat
from goatherd.terminal._input import Lines, Prompt
from goatherd.terminal._screen import Pipe, Screen, Terminal

# How long a script waits out an outage; a person can press Ctrl-C.
_PIPE_PATIENCE_S = 120.0
_ELSEWHERE = (
    "If Goatherd runs elsewhere, name its folder with --data or its address with --url (GOATHERD_URL); "
    "else start it with `goatherd up`."
)


def chat(url: str, session: str | None, *, model: str | None = None) -> int:
    """Chats with the API at `url` until the person or the input ends it; gives the exit code.

    `session` is an existing session's id, else one is started (`model` is for that one). Where stdin or
    stdout is no terminal, each line read is a message or a command, replies go to stdout, and all else
    to stderr. 0: all went well. 1: it could not begin, or (in a pipe) a line failed. 130: interrupted.
    """
    try:
        return asyncio.run(_chat(url, session, model))
    except KeyboardInterrupt:
        return INTERRUPTED


async def _chat(url: str, session: str | None, model: str | None) -> int:
    url = url.rstrip("/") if "://" in url else f"http://{url.rstrip('/')}"
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    screen: Screen = Terminal(Console()) if interactive else Pipe(sys.stdout, sys.stderr)
    # A proxy from the environment is not asked for what runs on this machine.
    async with httpx.AsyncClient(base_url=url, timeout=30.0, trust_env=not _is_loopback(url)) as http:
        api = Api(http, notice=screen.notice, patience_s=0.0)
        talk = Chat(api, screen, model=model, interactive=interactive)
        try:
            await talk.open(session)
        except Unreachable as error:
            screen.problem(f"Nothing answers at {url} ({error}). {_ELSEWHERE}")
            return 1
        except Refused as refusal:
            # Without a code it is hardly Goatherd that says so.
            screen.problem(str(refusal) if refusal.code else f"{refusal} {_ELSEWHERE}")
            return 1
        api.patience_s = None if interactive else _PIPE_PATIENCE_S
        if not interactive:
            return await talk.run(_interruptible(Lines(sys.stdin), talk))
        screen.notice("/help shows the commands. Alt-Enter begins a new line, Ctrl-C stops a reply.")
        with _no_caret_c(sys.stdin.fileno()):
            code = await talk.run(_interruptible(Prompt(talk.commands, screen.notice), talk))
        screen.notice(f"`goatherd chat {talk.session.id}` goes on with it.")
        return code


def _interruptible(
    read: Callable[[], Awaitable[str | None]], talk: Chat
) -> Callable[[], Awaitable[str | None]]:
    """`read`, with Ctrl-C left to it while it reads, and to the chat while the line is handled."""
    loop = asyncio.get_running_loop()

    async def line() -> str | None:
        loop.remove_signal_handler(signal.SIGINT)
        text = await read()
        loop.add_signal_handler(signal.SIGINT, talk.interrupt)
        return text

    return line


@contextmanager
def _no_caret_c(terminal: int) -> Iterator[None]:
    """Keeps the terminal from writing `^C` into a reply. The prompt writes its own."""
    before = termios.tcgetattr(terminal)
    quiet = termios.tcgetattr(terminal)
    quiet[3] &= ~termios.ECHOCTL
    termios.tcsetattr(terminal, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)


def _is_loopback(url: str) -> bool:
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
