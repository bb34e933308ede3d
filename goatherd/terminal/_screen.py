"""What a chat shows, on a terminal and in a pipe."""

from __future__ import annotations

import re
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

# What a model or another client wrote must not steer the terminal: no escape sequences, and nothing that has
# text shown in another order than it is written in.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Screen(Protocol):
    """Replies, and what is said about them."""

    def notice(self, text: str) -> None:
        """Something to know, in passing."""

    def problem(self, text: str) -> None:
        """Something that went wrong, in one line."""

    def message(self, role: str, content: str, note: str = "") -> None:
        """A message of the past."""

    def begin_reply(self) -> None:
        """A reply is coming."""

    def text(self, text: str) -> None:
        """The next piece of the reply."""

    def end_reply(self) -> None:
        """There is no more of it."""


class Pipe:
    """Replies to `out`, each with a newline after it, and nothing else; the rest to `err`.

    Either may be a terminal all the same: then it is sent no control characters.
    """

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._wrote = False

    def notice(self, text: str) -> None:
        print(_fit(text, self._err), file=self._err, flush=True)

    def problem(self, text: str) -> None:
        self.notice(text)

    def message(self, role: str, content: str, note: str = "") -> None:
        print(_fit(f"{role}{note}: {content}", self._out), file=self._out, flush=True)

    def begin_reply(self) -> None:
        self._wrote = False

    def text(self, text: str) -> None:
        self._wrote = True
        self._out.write(_fit(text, self._out))
        self._out.flush()

    def end_reply(self) -> None:
        if self._wrote:
            self.text("\n")


class Terminal:
    """A little colour, and `thinking…` until the first piece of a reply comes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._thinking: Live | None = None
        self._mid_line = False

    def notice(self, text: str) -> None:
        self._line(text, "dim")

    def problem(self, text: str) -> None:
        self._line(text, "red")

    def message(self, role: str, content: str, note: str = "") -> None:
        self._line(f"{'you' if role == 'user' else role}{note} ›", "cyan" if role == "user" else "green")
        self._line(content, "")

    def begin_reply(self) -> None:
        self._stop_thinking()
        # Not `Console.status`: while that stands, what is written to stdout waits for the end of its line.
        self._thinking = Live(
            Spinner("dots", "thinking…", style="green"),
            console=self._console,
            refresh_per_second=12.5,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._thinking.start()

    def text(self, text: str) -> None:
        if not text:
            return
        self._stop_thinking()
        # Not by rich, which would wrap each piece as if it were a line of its own.
        self._console.file.write(_clean(text))
        self._console.file.flush()
        self._mid_line = not text.endswith("\n")

    def end_reply(self) -> None:
        self._stop_thinking()
        self._end_line()

    def _line(self, text: str, style: str) -> None:
        self._end_line()
        self._console.print(_clean(text), style=style, markup=False, highlight=False, soft_wrap=True)

    def _end_line(self) -> None:
        if self._mid_line:
            self._mid_line = False
            self._console.file.write("\n")

    def _stop_thinking(self) -> None:
        if self._thinking is not None:
            self._thinking.stop()
            self._thinking = None


def _fit(text: str, stream: TextIO) -> str:
    return _clean(text) if stream.isatty() else text


def _clean(text: str) -> str:
    return _CONTROL.sub("", text)
