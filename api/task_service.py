"""What owners do to tasks: make them, add to them, pause, requeue, change and cancel them."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import AnyHttpUrl

from activities.task_ports import TaskStore
from api.errors import InvalidInput
from api.idempotency import Ids
from api.task_actors import TaskActors
from api.task_adding import New, read_new
from api.task_inputs import Inputs
from api.task_schemas import CreateTask, SubtaskBody
from goatherd.actors import ActorStopped
from goatherd.contracts.ids import made_at, subtask_id
from goatherd.contracts.model import Json
from goatherd.contracts.task import (
    Counts,
    SubtaskInfo,
    SubtaskStatus,
    Task,
    TaskEvent,
    TaskEventType,
    TaskSettings,
    TaskSummary,
)
from goatherd.contracts.task_messages import (
    Added,
    CancelTask,
    Changed,
    PauseTask,
    RequeueSubtasks,
    ResumeTask,
    StartTask,
    UpdateSubtask,
)
from goatherd.errors import Conflict, GoatherdError, Invalid, NotFound, TaskClosed
from goatherd.security.access import Principal
from goatherd.security.addresses import may_be_public
from goatherd.settings import Settings
from workflows.task_behavior import MOST_REQUEUED

_SETTINGS = [name for name in TaskSettings.model_fields if name != "callback"]


@dataclass(frozen=True, slots=True)
class Created:
    """A new task, and what its callback is signed with, if it has one."""

    task: Task
    secret: str | None


@dataclass(frozen=True, slots=True)
class NewSubtask:
    """One of those that were added."""

    id: str
    number: int
    key: str | None
    status: SubtaskStatus


class TaskService:
    """One a process."""

    def __init__(self, actors: TaskActors, inputs: Inputs, settings: Settings) -> None:
        self._actors = actors
        self._inputs = inputs
        self._settings = settings

    @property
    def _store(self) -> TaskStore:
        return self._actors.store

    # -- making

    async def create(self, principal: Principal, ids: Ids, body: CreateTask, size: int) -> Created:
        """Starts a task. The same ids again give the same task."""
        task_id = ids.make("task", "task")
        at = made_at(task_id)
        if body.deadline is not None and body.deadline <= datetime.now(UTC) and not ids.repeated:
            raise InvalidInput([{"pointer": "/deadline", "detail": "Has to be in the future."}])
        new = None
        if body.subtasks:
            # Of a task that is not there yet, no id can be known: it depends on keys only.
            new = read_new(
                body.subtasks, task="", size=size, ids=ids, priority=body.priority, pointer="/subtasks"
            )
        secret = None
        if body.callback is not None:
            self._check_callback(body.callback.url)
            secret = body.callback.secret or _new_secret()
            await self._store.put_secret(task_id, secret)
            secret = await self._store.secret(task_id)
        if new is not None and new.batch is not None:
            await self._store.put_batch(new.batch, task_id, new.specs)
        start = StartTask(
            **{name: getattr(body, name) for name in _SETTINGS},
            callback=None if body.callback is None else {"url": str(body.callback.url)},
            owner=principal.id,
            created_at=at,
            first=None if new is None else new.order(None),
            stored=True,
            task_queue_prefix=self._settings.task_queue_prefix,
        )
        document = start.document(task_id, now=at)
        events, counts = self._first_events(document, new)
        document = document.model_copy(update={"counts": counts, "version": len(events)})
        try:
            fresh = await self._actors.start(task_id, start)
        except ActorStopped:
            fresh = False
        await self._store.put_task(document)
        self._actors.remember(document)
        self._actors.writer.add(
            task_id, events, TaskSummary(version=len(events), status=document.status, counts=counts)
        )
        if not fresh:
            await self._actors.writer.settled(task_id)
            document = await self._store.task(task_id) or document
        return Created(document, secret)

    def _check_callback(self, url: AnyHttpUrl) -> None:
        """What is known to be refused later is refused now; of a name, only who sends there can tell."""
        if not self._settings.webhook_allow_private and not may_be_public(url.host or ""):
            detail = (
                "Is not on the public Internet: nothing would be sent there."
                " GOATHERD_WEBHOOK_ALLOW_PRIVATE=true allows it."
            )
            raise InvalidInput([{"pointer": "/callback/url", "detail": detail}])

    def _first_events(self, task: Task, new: New | None) -> tuple[list[TaskEvent], Counts]:
        """What its actor does first, number by number: so that nobody has to wait until it has."""
        at = task.created_at
        events = [
            TaskEvent(seq=1, type=TaskEventType.TASK_CREATED, task=task.id, ts=at, data={"title": task.title})
        ]
        if new is None:
            return events, Counts()
        count = len(new.specs)
        infos = new.infos([subtask_id(task.id, number) for number in range(1, count + 1)], task.id, 1, 2, at)
        data: Json = {"first": 1, "count": count}
        if new.batch is not None:
            data["batch"] = new.batch
        else:
            data["subtasks"] = [
                info.model_dump(mode="json")
                | {
                    "status": "blocked" if info.depends_on else "pending",
                    "priority": place.priority or task.priority,
                }
                for info, place in zip(infos, new.places, strict=True)
            ]
        self._keep(infos)
        events.append(TaskEvent(seq=2, type=TaskEventType.SUBTASKS_CREATED, task=task.id, ts=at, data=data))
        blocked = sum(bool(info.depends_on) for info in infos)
        return events, Counts(blocked=blocked, pending=count - blocked)

    def _keep(self, infos: Sequence[SubtaskInfo]) -> None:
        for info in infos:
            self._inputs.put(
                info.id, info.info_version, title=info.title, input=info.input, labels=info.labels
            )

    # -- adding

    async def add(
        self,
        principal: Principal,
        task: str,
        ids: Ids,
        bodies: Sequence[SubtaskBody],
        *,
        size: int,
        one: bool,
    ) -> tuple[Added, list[NewSubtask]]:
        """Adds all or none."""
        facts = await self._actors.authorize(principal, task)
        new = read_new(
            bodies, task=task, size=size, ids=ids, priority=facts.priority, pointer="", several=not one
        )
        if new.batch is not None:
            await self._store.put_batch(new.batch, task, new.specs)
        try:
            added = await self._actors.ask(task, new.order(ids.make("req", "add") if ids.keyed else None))
        except (Invalid, Conflict, NotFound) as error:
            if new.batch is not None:
                await self._delete_batch(new.batch)
            if one and error.pointer is not None:
                error.pointer = error.pointer.removeprefix("/0")
            raise
        blocked, cancelled = set(added.blocked), set(added.cancelled)
        made = []
        for place, spec in enumerate(new.specs):
            number = added.first + place
            subtask = subtask_id(task, number)
            self._inputs.put(subtask, added.seq, title=spec.title, input=spec.input, labels=spec.labels)
            status = SubtaskStatus.PENDING
            if number in cancelled:
                status = SubtaskStatus.CANCELLED
            elif number in blocked:
                status = SubtaskStatus.BLOCKED
            made.append(NewSubtask(subtask, number, spec.key, status))
        return added, made

    async def _delete_batch(self, batch: str) -> None:
        with suppress(GoatherdError):  # It goes by itself, later.
            await self._store.delete_batch(batch)

    # -- changing

    async def update(self, principal: Principal, task: str, order: UpdateSubtask) -> Changed:
        await self._actors.authorize(principal, task)
        return await self._actors.ask(task, order)

    async def pause(self, principal: Principal, task: str) -> Changed:
        await self._actors.authorize(principal, task)
        return await self._actors.ask(task, PauseTask())

    async def resume(self, principal: Principal, task: str) -> Changed:
        await self._actors.authorize(principal, task)
        return await self._actors.ask(task, ResumeTask())

    async def requeue(
        self, principal: Principal, task: str, statuses: list[Any], subtasks: list[str] | None
    ) -> tuple[int, TaskSummary]:
        await self._actors.authorize(principal, task)
        total = 0
        while True:
            answer = await self._actors.ask(task, RequeueSubtasks(statuses=statuses, subtasks=subtasks))
            total += answer.requeued
            if answer.requeued < MOST_REQUEUED:
                return total, answer.task
            # The actor takes no more than it knows to be written.
            await self._actors.writer.settled(task)

    async def cancel(self, principal: Principal, task: str) -> bool:
        """Whether the task is closed. If not, some of it is still held; it closes when that ends."""
        await self._actors.authorize(principal, task)
        try:
            answer = await self._actors.ask(task, CancelTask())
        except TaskClosed:
            return True
        return answer.task.closed_at is not None


def _new_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
