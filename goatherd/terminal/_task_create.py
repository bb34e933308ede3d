"""`goatherd task create`: a file of subtasks becomes a task; the same command again adds nothing twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO, cast

from goatherd.terminal._api import Refused, Unreachable
from goatherd.terminal._screen import Screen
from goatherd.terminal._task_api import TaskApi, TaskView
from goatherd.terminal._task_bar import Meter
from goatherd.terminal._task_lines import Batch, batches, check

_IN_MEMORY = 8_000_000


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made. `task`: add to that one instead; `anew`: another one, if there is one already."""

    settings: Mapping[str, Any]
    requires: list[str]
    task: str | None = None
    anew: bool = False


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """The file, or for `-` what comes from stdin: kept first, since it is read twice."""
    if path != "-":
        with Path(path).open("rb") as file:
            yield file
        return
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as kept:
        shutil.copyfileobj(sys.stdin.buffer, kept)
        kept.seek(0)
        yield cast(BinaryIO, kept)


async def create(api: TaskApi, screen: Screen, meter: Meter, file: BinaryIO, order: Order) -> TaskView:
    """The task with all of the file's subtasks.

    All keys are made of what the file says and where, so whatever was sent before counts once, for as long as
    the server remembers keys (24 hours).

    Raises:
        BadLine: before anything is sent.
    """
    checked = check(file)
    if checked.doubt is not None:
        screen.notice(checked.doubt)
    if order.task is not None:
        task = await api.task(order.task)
    else:
        about = json.dumps([checked.digest, order.settings, order.requires], sort_keys=True)
        key = token_hex(16) if order.anew else hashlib.sha256(about.encode()).hexdigest()[:40]
        task = await api.create_task(order.settings, key=f"create-{key}")
    screen.notice(f"Task {task.id}: {checked.lines:,} subtasks.")
    if task.callback is not None and task.callback.secret is not None:
        screen.notice(f"Its callback is signed with {task.callback.secret}: keep it, it is not shown again.")
    ids: dict[str, str] = {}
    file.seek(0)
    try:
        with meter.begun(checked.lines, unit="subtasks"):
            for batch in batches(file):
                await _add(api, task.id, batch, order.requires, ids)
                meter.advance(len(batch.subtasks))
    except (Refused, Unreachable, OSError, asyncio.CancelledError):
        screen.notice("It is not complete. The same command again goes on where it stopped.")
        raise
    return await api.task(task.id)


async def _add(api: TaskApi, task: str, batch: Batch, requires: list[str], ids: dict[str, str]) -> None:
    subtasks = [_completed(subtask, requires, ids) for subtask in batch.subtasks]
    about = f"{task}/{batch.digest}/{','.join(requires)}"
    key = f"add-{hashlib.sha256(about.encode()).hexdigest()[:40]}"
    try:
        created = await api.add(task, subtasks, key=key)
    except Refused as refusal:
        where = f"Lines {batch.first_line:,} to {batch.last_line:,}: {refusal}"
        raise Refused(where, status=refusal.status, code=refusal.code) from refusal
    for subtask, made in zip(subtasks, created, strict=True):
        if "key" in subtask:
            ids[subtask["key"]] = made.id


def _completed(subtask: dict[str, Any], requires: list[str], ids: Mapping[str, str]) -> dict[str, Any]:
    """With the capabilities that all require, and with ids for the keys of earlier batches."""
    more: dict[str, Any] = {}
    if requires:
        more["requires"] = list(dict.fromkeys([*subtask.get("requires", []), *requires]))
    if subtask.get("depends_on"):
        more["depends_on"] = [ids.get(name, name) for name in subtask["depends_on"]]
    return {**subtask, **more}
