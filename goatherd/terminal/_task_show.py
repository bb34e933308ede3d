"""What `goatherd task list`, `show` and `results` put out: text for people, JSON for programs."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from goatherd.terminal._screen import _clean, _fit
from goatherd.terminal._task_api import TaskApi, TaskView


async def list_tasks(api: TaskApi, out: TextIO, *, limit: int, status: str | None, label: str | None) -> None:
    """Newest first. On a terminal a table; elsewhere a line each, with tabs between id, status, done, total
    and title."""
    tasks = await api.tasks(limit=limit, status=status, label=label)
    if out.isatty():
        Console(file=out).print(_table(tasks))
        return
    for task in tasks:
        fields = (task.id, task.status, str(task.counts.done), str(task.counts.total), task.title)
        print("\t".join(" ".join(field.split()) for field in fields), file=out)


def _table(tasks: list[TaskView]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("task", "status", "done", "title"):
        table.add_column(name, no_wrap=name != "title")
    for task in tasks:
        done = f"{task.counts.done:,}/{task.counts.total:,}"
        table.add_row(task.id, task.status, done, Text(_clean(task.title)))
    return table


async def show(api: TaskApi, out: TextIO, task: str, subtask: str | None) -> None:
    """The document of a task or a subtask, as the API gives it."""
    document = await api.raw(task, subtask)
    print(_fit(json.dumps(document, ensure_ascii=False, indent=2), out), file=out)


async def results(api: TaskApi, out: TextIO, task: str, *, status: str | None) -> int:
    """A JSON object a line for each subtask, by number; gives how many.

    With overlap, `answers` has what each worker said, and `result` what counts by the task's consensus.
    """
    count = 0
    async with aclosing(api.subtasks(task, status=status)) as subtasks:
        async for subtask in subtasks:
            print(_fit(json.dumps(result_line(subtask), ensure_ascii=False), out), file=out)
            count += 1
    out.flush()
    return count


_ALWAYS = ("id", "number", "status", "input", "result")
_IF_SAID = ("title", "key", "labels", "error", "reason", "verdict", "answers")


def result_line(subtask: dict[str, Any]) -> dict[str, Any]:
    """Of a subtask, what its result is about."""
    line = {name: subtask.get(name) for name in _ALWAYS}
    return line | {name: subtask[name] for name in _IF_SAID if subtask.get(name)}
