"""Puts the commands for tasks on this process's terminal or pipe."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.patch_stdout import patch_stdout
from rich.console import Console

from goatherd.terminal._api import Refused, Unreachable
from goatherd.terminal._chat import INTERRUPTED
from goatherd.terminal._input import Lines, _keys
from goatherd.terminal._run import _ELSEWHERE, _PIPE_PATIENCE_S, _is_loopback
from goatherd.terminal._screen import Pipe, Screen, Terminal
from goatherd.terminal._task_api import ENDED, CountsView, TaskApi
from goatherd.terminal._task_bar import meter_for
from goatherd.terminal._task_command import Program
from goatherd.terminal._task_create import Order, create, opened
from goatherd.terminal._task_lines import BadLine
from goatherd.terminal._task_person import COMMANDS, Person
from goatherd.terminal._task_show import list_tasks, results, show
from goatherd.terminal._task_watch import JsonView, LineView, LiveView, View, watch
from goatherd.terminal._task_work import Terms, Work

# Longer than any answer is waited for, a take's too.
_TIMEOUT_S = 60.0
_CONNECTIONS = 256
_USAGE = 2
_UNREACHABLE = 1
_NO_SHELL = "--command is no shell: for one, write sh -c '…'."
_REQUEUED = ("dead", "failed", "cancelled")

Action = Callable[[TaskApi, Screen], Awaitable[int]]


def create_task(url: str, path: str, order: Order) -> int:
    """Makes a task of a file; its id goes to stdout, all else to stderr."""

    async def act(api: TaskApi, screen: Screen) -> int:
        try:
            with opened(path) as file:
                task = await create(api, screen, meter_for(screen, Console(stderr=True)), file, order)
        except BadLine as error:
            screen.problem(str(error))
            return _USAGE
        except OSError as error:
            screen.problem(f"{path}: {error.strerror}.")
            return _USAGE
        screen.notice(f"{task.counts.total:,} subtasks. `goatherd task watch {task.id}` shows how it goes.")
        _put(task.id)
        return 0

    return _run(url, act, patience_s=_PIPE_PATIENCE_S)


def work_task(url: str, terms: Terms, *, command: str | None = None, concurrency: int = 1) -> int:
    """Works on a task: a program, or the person at the terminal or behind the pipe."""
    if command is not None:
        try:
            words = shlex.split(command)
        except ValueError as error:
            sys.stderr.write(f"{command!r} can't be told into words: {error}.\n")
            return _USAGE
        if not words or shutil.which(words[0]) is None:
            sys.stderr.write(f"There is no program {words[0] if words else command!r}. {_NO_SHELL}\n")
            return _USAGE

        async def run_program(api: TaskApi, screen: Screen) -> int:
            work = Work(api, screen, terms, Program(words, terms.task))
            return await _worked(work, concurrency)

        return _run(url, run_program, patience_s=None)

    interactive = sys.stdin.isatty() and sys.stdout.isatty()

    async def ask_person(api: TaskApi, screen: Screen) -> int:
        read = _Ask(screen) if interactive else Lines(sys.stdin)
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
        interrupts = _Interrupts()
        person = Person(screen, read, editor=editor, undisturbed=interrupts.undisturbed)
        if interactive:
            screen.notice("/help shows the commands. Ctrl-C gives back what you have, and leaves.")
        return await _worked(Work(api, screen, terms, person), 1, interrupts)

    if not interactive:
        return _run(url, ask_person, patience_s=_PIPE_PATIENCE_S, screen=Pipe(sys.stdout, sys.stderr))
    with patch_stdout(raw=True):
        return _run(url, ask_person, patience_s=None, screen=Terminal(Console()))


def watch_task(url: str, task: str, *, as_json: bool = False) -> int:
    """Shows a task until it is done; 0 if it is completed, else as `ENDED` says."""

    async def act(api: TaskApi, screen: Screen) -> int:
        view: View
        if as_json:
            view = JsonView(_put)
        elif sys.stdout.isatty():
            view = LiveView(Console())
        else:
            view = LineView(_put)
        return ENDED[await watch(api, view, task)]

    return _run(url, act, patience_s=None if sys.stdout.isatty() else _PIPE_PATIENCE_S)


def list_all(url: str, *, limit: int, status: str | None, label: str | None) -> int:
    async def act(api: TaskApi, screen: Screen) -> int:
        await list_tasks(api, sys.stdout, limit=limit, status=status, label=label)
        return 0

    return _run(url, act)


def show_one(url: str, task: str, subtask: str | None) -> int:
    async def act(api: TaskApi, screen: Screen) -> int:
        await show(api, sys.stdout, task, subtask)
        return 0

    return _run(url, act)


def print_results(url: str, task: str, status: str | None) -> int:
    async def act(api: TaskApi, screen: Screen) -> int:
        count = await results(api, sys.stdout, task, status=status)
        screen.notice(f"{count:,} subtasks.")
        return 0

    return _run(url, act, patience_s=_PIPE_PATIENCE_S)


def change(url: str, what: str, task: str, statuses: list[str] | None = None) -> int:
    """`cancel`, `pause`, `resume` or `requeue`: what it has become is said."""

    async def act(api: TaskApi, screen: Screen) -> int:
        if what == "requeue":
            asked = statuses or ["dead"]
            requeued = await api.requeue(task, asked)
            now = await api.task(task)
            screen.notice(f"{requeued:,} requeued{'' if requeued else _others(now.counts, asked)}")
        else:
            await {"cancel": api.cancel_task, "pause": api.pause, "resume": api.resume}[what](task)
            now = await api.task(task)
        screen.notice(f"{now.id} is {now.status}: {now.counts.told() or 'no subtasks'}.")
        return 0

    return _run(url, act)


def _others(counts: CountsView, asked: list[str]) -> str:
    """What could be requeued, but was not asked for."""
    left = {status: getattr(counts, status) for status in _REQUEUED if status not in asked}
    return "".join(f"; {count:,} are {status}: --status {status}" for status, count in left.items() if count)


# -- how they run


def _put(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _run(url: str, act: Action, *, patience_s: float | None = 0.0, screen: Screen | None = None) -> int:
    """The exit code. What goes wrong is told in a line.

    `patience_s`: how long an outage is waited out once the API has answered; None: until Ctrl-C.
    """
    url = url.rstrip("/") if "://" in url else f"http://{url.rstrip('/')}"
    if screen is None:
        tty = sys.stderr.isatty()
        screen = Terminal(Console(stderr=True)) if tty else Pipe(sys.stdout, sys.stderr)
    try:
        return asyncio.run(_reached(url, act, screen, patience_s))
    except KeyboardInterrupt:
        return INTERRUPTED


async def _reached(url: str, act: Action, screen: Screen, patience_s: float | None) -> int:
    async with _client(url) as http:
        api = TaskApi(http, notice=screen.notice, patience_s=0.0)
        try:
            if patience_s != 0.0:
                await api.tasks(limit=1, status=None, label=None)  # Is somebody there at all?
                api.patience_s = patience_s
            return await act(api, screen)
        except Unreachable as error:
            screen.problem(f"Nothing answers at {url} ({error}). {_ELSEWHERE}")
        except Refused as refusal:
            screen.problem(str(refusal) if refusal.code else f"{refusal} {_ELSEWHERE}")
        return _UNREACHABLE


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    # A proxy from the environment is not asked for what runs on this machine.
    limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
    async with httpx.AsyncClient(
        base_url=url, timeout=_TIMEOUT_S, limits=limits, trust_env=not _is_loopback(url)
    ) as http:
        yield http


class _Interrupts:
    """Ctrl-C and SIGTERM, unless they are somebody else's."""

    def __init__(self) -> None:
        self._deaf = False
        self.count = 0

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        self._deaf = True
        try:
            yield
        finally:
            self._deaf = False

    @contextmanager
    def handled(self, first: Callable[[], None], again: Callable[[], object]) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def interrupted() -> None:
            if not self._deaf:
                self.count += 1
                first() if self.count == 1 else again()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupted)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


async def _worked(work: Work, concurrency: int, interrupts: _Interrupts | None = None) -> int:
    """The first Ctrl-C gives back what is held; another does not wait for that."""
    interrupts = interrupts or _Interrupts()
    me = asyncio.current_task()
    assert me is not None
    with interrupts.handled(work.stop, me.cancel):
        try:
            await work.run(concurrency)
        except asyncio.CancelledError:
            if not interrupts.count:
                raise
    return INTERRUPTED if interrupts.count else 0


class _Ask:
    """A prompt for answers. Enter sends, Alt-Enter begins a new line, Ctrl-C and Ctrl-D leave."""

    def __init__(self, screen: Screen) -> None:
        self._session: PromptSession[str] = PromptSession(
            FormattedText([("bold ansicyan", "answer › ")]),
            multiline=True,
            prompt_continuation=FormattedText([("ansicyan", "       … ")]),
            key_bindings=_keys(),
            completer=WordCompleter(COMMANDS, sentence=True),
            complete_while_typing=False,
        )

    async def __call__(self) -> str | None:
        try:
            return await self._session.prompt_async()
        except (EOFError, KeyboardInterrupt):
            return None


def default_worker() -> str:
    """Somebody on this machine."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"
    name = f"{user}@{socket.gethostname()}"
    return "".join(letter if "!" <= letter <= "~" else "-" for letter in name)[:128]


def title_of(path: str) -> str:
    """A task's title, for a file."""
    return "Task" if path == "-" else Path(path).stem[:500] or "Task"
