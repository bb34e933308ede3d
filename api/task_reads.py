"""What is read of tasks: always from the store, and what this process has done is always there."""

from __future__ import annotations

import asyncio

from activities.ports import Page
from activities.task_ports import TaskStats
from api.task_actors import TaskActors
from api.task_documents import Listed, by_subtask, render_task, subtask_document
from api.task_inputs import PATIENCE_S
from api.task_json import dumps
from goatherd.contracts.model import Json
from goatherd.contracts.task import Task
from goatherd.errors import NotFound, Unavailable
from goatherd.security.access import Principal, require


class TaskReads:
    """One a process."""

    def __init__(self, actors: TaskActors) -> None:
        self._actors = actors
        self._store = actors.store

    async def task(self, principal: Principal, task: str) -> Task:
        await self._actors.writer.settled(task)
        return require(principal, await self._store.task(task), f"task {task!r}")

    async def tasks(
        self, principal: Principal, page: Page, *, status: str | None, label: str | None
    ) -> list[Listed]:
        found = await self._store.tasks(principal.id, page, status=status, label=label)
        return [Listed(task.id, render_task(task)) for task in found]

    async def subtask(self, principal: Principal, task: str, subtask: str) -> Json:
        facts = await self._actors.authorize(principal, task)
        await self._actors.writer.settled(task)
        found = await self._store.subtask(task, subtask)
        if found is None:
            raise NotFound(f"There is no subtask {subtask!r} in task {task!r}.")
        answers = await self._store.answers(task, [subtask]) if found.state.answers else []
        return subtask_document(found, answers, overlap=facts.overlap)

    async def changed(self, principal: Principal, task: str, subtask: str, *, since: int) -> Json:
        """A subtask as it is once what is said of it is newer than `since`: a large change is written by the
        task's actor, a moment after it has answered."""
        loop = asyncio.get_running_loop()
        deadline, delay = loop.time() + PATIENCE_S, 0.01
        while (document := await self.subtask(principal, task, subtask))["info_version"] <= since:
            if loop.time() >= deadline:
                raise Unavailable("The subtask was changed. What it is now is not in the store yet.")
            await asyncio.sleep(delay)
            delay = min(delay * 2, 0.5)
        return document

    async def subtasks(
        self, principal: Principal, task: str, page: Page, *, status: str | None, assignee: str | None
    ) -> list[Listed]:
        facts = await self._actors.authorize(principal, task)
        await self._actors.writer.settled(task)
        found = await self._store.subtasks(task, page, status=status, assignee=assignee)
        answered = [one.info.id for one in found if one.state.answers]
        answers = by_subtask(await self._store.answers(task, answered)) if answered else {}
        return [
            Listed(
                one.info.id,
                dumps(subtask_document(one, answers.get(one.info.id, []), overlap=facts.overlap)),
            )
            for one in found
        ]

    async def stats(self, principal: Principal, task: str) -> tuple[Task, TaskStats]:
        document = await self.task(principal, task)
        return document, await self._store.stats(task)
