"""Where a chat's lines come from: a prompt with history, or a pipe."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent


class Prompt:
    """Asks on a terminal. Enter sends, Alt-Enter begins a new line, Ctrl-C twice or Ctrl-D leaves."""

    def __init__(self, commands: list[str], notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._session: PromptSession[str] = PromptSession(
            FormattedText([("bold ansicyan", "you › ")]),
            multiline=True,
            prompt_continuation=FormattedText([("ansicyan", "    … ")]),
            key_bindings=_keys(),
            history=_history(),
            completer=WordCompleter(commands, sentence=True),
            complete_while_typing=False,
        )

    async def __call__(self) -> str | None:
        interrupted = False
        while True:
            try:
                return await self._session.prompt_async()
            except EOFError:
                return None
            except KeyboardInterrupt:
                if interrupted:
                    return None
                interrupted = True
                self._notice("Ctrl-C again, Ctrl-D or /quit leaves. The session stays.")


class Lines:
    """Lines of a stream, without their ends; None at its end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._reader: threading.Thread | None = None

    async def __call__(self) -> str | None:
        if self._reader is None:
            loop = asyncio.get_running_loop()
            # Not an executor's thread: those are waited for at exit, and a read can't be called off.
            self._reader = threading.Thread(target=self._read, args=(loop,), daemon=True)
            self._reader.start()
        return await self._lines.get()

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        # The loop may be closed by then.
        with suppress(RuntimeError):
            for line in self._stream:
                loop.call_soon_threadsafe(self._lines.put_nowait, line.rstrip("\r\n"))
            loop.call_soon_threadsafe(self._lines.put_nowait, None)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _history() -> History:
    """In the user's data folder, for the user's eyes only; in memory where that can't be written."""
    base = os.environ.get("XDG_DATA_HOME")
    folder = (Path(base) if base else Path.home() / ".local" / "share") / "goatherd"
    path = folder / "chat_history"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))
