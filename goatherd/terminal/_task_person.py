"""A person who answers subtasks, line by line or in an editor."""

from __future__ import annotations

import asyncio
import json
import shlex
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from goatherd.terminal._screen import Screen
from goatherd.terminal._task_api import AssignmentView
from goatherd.terminal._task_command import as_result
from goatherd.terminal._task_work import Completed, Failed, Left, Outcome, Skipped

HELP = """\
A line is the answer: as JSON if it is JSON, else as text. Alt-Enter begins a new line.
e, /edit       write the answer in $VISUAL or $EDITOR (the letter itself: "e")
/fail REASON   it can't be done; it is tried again, perhaps by somebody else
/skip          somebody else may have it
/show          shows it again
/quit          gives it back and leaves; so do Ctrl-C and Ctrl-D
//…            an answer that begins with /"""
COMMANDS = ["/edit", "/fail", "/skip", "/show", "/help", "/quit"]
_SCISSORS = "# ----- the answer stands above this line; what is below is only for you -----"


class Person:
    """Shows a subtask and reads until there is an answer. The end of the input is leaving."""

    def __init__(
        self,
        screen: Screen,
        read: Callable[[], Awaitable[str | None]],
        *,
        editor: str | None = None,
        undisturbed: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`undisturbed`: while it lasts, Ctrl-C is somebody else's."""
        self._screen = screen
        self._read = read
        self._editor = editor
        self._undisturbed = undisturbed

    async def __call__(self, assignment: AssignmentView) -> Outcome:
        self._show(assignment)
        draft = "" if assignment.checkpoint is None else pretty(assignment.checkpoint)
        while (line := await self._read()) is not None:
            text = line.strip()
            command, _, argument = text.partition(" ")
            if not text:
                continue
            if text.startswith("//"):
                return Completed(text[1:])
            if text in ("e", "/e", "/edit"):
                draft = await self._edit(assignment, draft)
                if draft:
                    return Completed(as_result(draft))
                self._screen.notice("There is no answer yet.")
            elif command == "/fail":
                if argument.strip():
                    return Failed("given-up", argument.strip())
                self._screen.problem("Say why: /fail REASON.")
            elif text == "/skip":
                return Skipped()
            elif text == "/show":
                self._show(assignment)
            elif text == "/help":
                self._screen.notice(HELP)
            elif text == "/quit":
                break
            elif text.startswith("/"):
                self._screen.problem(
                    f"There is no {command}; //{command[1:]} says it. /help shows what there is."
                )
            else:
                return Completed(as_result(text))
        return Left()

    def _show(self, assignment: AssignmentView) -> None:
        notes = [*assignment.labels, *([f"attempt {assignment.attempt}"] if assignment.attempt > 1 else [])]
        note = f" ({', '.join(notes)})" if notes else ""
        self._screen.message(assignment.title or assignment.subtask, pretty(assignment.input), note)

    async def _edit(self, assignment: AssignmentView, draft: str) -> str:
        """What was written; empty for nothing."""
        if not self._editor:
            self._screen.problem("Neither VISUAL nor EDITOR is set.")
            return ""
        with tempfile.TemporaryDirectory(prefix="goatherd-") as folder:
            path = Path(folder) / "answer.txt"
            path.write_text(f"{draft}\n{_SCISSORS}\n{pretty(assignment.input)}\n", encoding="utf-8")
            try:
                with self._undisturbed():
                    code = await _edit(shlex.split(self._editor), path)
            except OSError as error:
                self._screen.problem(f"{self._editor}: {error.strerror}.")
                return ""
            if code:
                self._screen.problem(f"{self._editor} ended with {code}: what was written does not count.")
                return ""
            return path.read_text(encoding="utf-8").partition(_SCISSORS)[0].strip()


async def _edit(editor: list[str], path: Path) -> int:
    process = await asyncio.create_subprocess_exec(*editor, str(path))
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def pretty(value: Any) -> str:
    """Text as it is, all else as indented JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
