"""A program that answers subtasks: the input as JSON on its stdin, the result from its stdout."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from goatherd.terminal._task_api import AssignmentView
from goatherd.terminal._task_work import Completed, Failed, Outcome

_MOST_OUTPUT = 1_000_000
_MOST_ERROR = 8_000
_GRACE_S = 5.0


class Program:
    """Runs it once for each subtask, in a process group of its own.

    Exit code 0: the result is its stdout, as JSON if it is JSON, else as text. Any other: it has failed, and
    the end of stderr says why. It is told which subtask it works on by GOATHERD_TASK, GOATHERD_SUBTASK,
    GOATHERD_ASSIGNMENT and GOATHERD_ATTEMPT. Called off, it gets SIGTERM, and 5 s later SIGKILL.
    """

    def __init__(self, command: Sequence[str], task: str) -> None:
        self._command = command
        self._task = task

    async def __call__(self, assignment: AssignmentView) -> Outcome:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                **os.environ,
                "GOATHERD_TASK": self._task,
                "GOATHERD_SUBTASK": assignment.subtask,
                "GOATHERD_ASSIGNMENT": assignment.id,
                "GOATHERD_ATTEMPT": str(assignment.attempt),
            },
            # Ctrl-C on the terminal is for us: we end it, and give its work back.
            start_new_session=True,
        )
        try:
            out, err = await process.communicate(json.dumps(assignment.input, ensure_ascii=False).encode())
        finally:
            if process.returncode is None:
                await _end(process)
        if process.returncode:
            number = process.returncode
            code = f"exit-{number}" if number > 0 else f"signal-{-number}"
            return Failed(code, err.decode(errors="replace").strip()[-_MOST_ERROR:])
        if len(out) > _MOST_OUTPUT:
            text = f"The result has {len(out):,} bytes; it may have {_MOST_OUTPUT:,}."
            return Failed("result-too-large", text, retryable=False)
        try:
            return Completed(as_result(out.decode()))
        except UnicodeDecodeError as error:
            return Failed("result-not-utf-8", f"The result is not UTF-8 (at byte {error.start}).")


def as_result(text: str) -> Any:
    """JSON as what it says, anything else as text; nothing as null."""
    text = text.strip()
    if not text:
        return None
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


async def _end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE_S)
            return
