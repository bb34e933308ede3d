"""Lists of tasks and subtasks: which part is asked for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.pages import ListQuery, cursor_like
from goatherd.contracts.ids import SUBTASK_ID, TASK_ID, is_task_id, subtask_number
from goatherd.contracts.task import Label, SubtaskStatus, TaskStatus, Worker
from goatherd.errors import MalformedCursor

_AFTER = "Those after the one with this id."
_BEFORE = "Those right before the one with this id. Not together with `after`."


class TaskQuery(ListQuery):
    after: str | None = Field(None, description=_AFTER, json_schema_extra=cursor_like(TASK_ID))
    before: str | None = Field(None, description=_BEFORE, json_schema_extra=cursor_like(TASK_ID))
    order: Literal["asc", "desc"] = Field("desc", description="By when they were made; newest first.")
    status: TaskStatus | None = Field(None, description="Only those with this status.")
    label: Label | None = Field(None, description="Only those that have this label.")


class SubtaskQuery(ListQuery):
    after: str | None = Field(None, description=_AFTER, json_schema_extra=cursor_like(SUBTASK_ID))
    before: str | None = Field(None, description=_BEFORE, json_schema_extra=cursor_like(SUBTASK_ID))
    order: Literal["asc", "desc"] = Field("asc", description="By number; oldest first.")
    status: SubtaskStatus | None = Field(None, description="Only those with this status.")
    assignee: Worker | None = Field(None, description="Only those that this worker has now.")


def task_cursor(text: str | None) -> str | None:
    if text is not None and not is_task_id(text):
        raise MalformedCursor("A cursor here is a task's id, such as `last_id` of the page before.")
    return text


def subtask_cursor(task: str, text: str | None) -> int | None:
    """The number that it stands for."""
    if text is None:
        return None
    number = subtask_number(task, text)
    if number is None:
        raise MalformedCursor(
            "A cursor here is the id of a subtask of this task, such as `last_id` of the page before."
        )
    return number
