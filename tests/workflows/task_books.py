"""Books of tasks, and short words for what is done with them, at a time that stands still."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from goatherd.contracts.ids import new_id, subtask_id
from goatherd.contracts.task import Backoff, TaskEvent, TaskEventType
from goatherd.contracts.task_messages import Heartbeat, Leased, Place, ReportStatus, TakeSubtasks
from workflows.task_book import TaskBook
from workflows.task_items import Items
from workflows.task_log import TaskLog
from workflows.task_subtasks import Rules

TASK = new_id("task")
EVENTS = TypeAdapter(list[TaskEvent])
WORKERS = ("ada", "bob", "cyd", "dan")
START = 1_800_000_000.0


def make(**rules: Any) -> TaskBook:
    made = Rules(**{"salt": "salt", "backoff": Backoff(initial_s=0), **rules})
    book = TaskBook(made, Items(), TaskLog(TASK))
    book.advance(START)
    return book


def add(book: TaskBook, *places: Place, count: int | None = None) -> None:
    book._log.emit(TaskEventType.SUBTASKS_CREATED, START)
    book.cancel_hopeless(book.add(places, len(places) if count is None else count))


def take(book: TaskBook, worker: str = "ada", **more: Any) -> list[Leased]:
    return book.take(TakeSubtasks(worker=worker, **more))


def report(book: TaskBook, lease: Leased, status: str = "completed", **more: Any) -> Any:
    return book.report(
        ReportStatus.model_validate(
            {"subtask": lease.subtask, "status": status, "lease_token": lease.lease_token, **more}
        )
    )


def sub(number: int) -> str:
    return subtask_id(TASK, number)


def again(book: TaskBook) -> TaskBook:
    """The same after a run of the workflow ended and another went on."""
    items = TypeAdapter(Items).validate_python(TypeAdapter(Items).dump_python(book.items))
    log = TypeAdapter(TaskLog).validate_python(TypeAdapter(TaskLog).dump_python(book._log, mode="json"))
    other = TaskBook(book.rules, items, log, book.fence)
    other.closing = book.closing
    return other


def beat(book: TaskBook, lease: Leased, **more: Any) -> Any:
    return book.beat(Heartbeat(subtask=lease.subtask, lease_token=lease.lease_token, **more))


def seen_leases(book: TaskBook, number: int) -> list[Leased]:
    return [book._leased(book.items[number], lease) for lease in (book.items[number].leases or {}).values()]


def seen(book: TaskBook) -> list[TaskEvent]:
    events, complete = book._log.since(0)
    assert complete
    return EVENTS.validate_python(events)
