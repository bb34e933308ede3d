"""Tasks' actors in this process: their real behavior, asked as `ActorSystem` is, on a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import httpx

from activities.backends.memory_tasks import MemoryTaskStore
from activities.task import TaskActivities
from api.task_parts import Tasks
from goatherd.actors import ActorStopped
from goatherd.actors._activity import Activity
from goatherd.actors._local import LocalSystem
from goatherd.actors._message import answer_type
from goatherd.actors._wire import read_error, write_error
from goatherd.contracts.task_messages import StartTask
from goatherd.errors import GoatherdError
from workflows.task_behavior import TaskBehavior
from workflows.task_flush import TaskFlushing
from workflows.task_items import Items
from workflows.task_log import TaskLog


class LocalActors:
    """`ActorSystem` without Temporal: what goes in and out is written and read, as on a wire."""

    def __init__(self, store: MemoryTaskStore) -> None:
        self.asked: list[Any] = []
        self.fault: Exception | None = None
        self.system: LocalSystem | None = None
        self.refs: dict[str, Any] = {}
        self.store = store
        self._activities = TaskActivities(store)

    def entity(self, kind: Any, entity_id: str) -> LocalEntity:
        return LocalEntity(self, entity_id)

    def start(self, entity_id: str, start: StartTask) -> bool:
        if self.system is None:
            self.system = LocalSystem("tasks")
            environment = cast(Any, self.system)._environment
            run: Callable[..., Any] = environment.run
            environment.run = lambda work, done: run(self._bound(work), done)
        if entity_id in self.refs:
            if self.system.runtime.cell(self.refs[entity_id]) is None:
                raise ActorStopped(f"{entity_id!r} has stopped.")
            return False
        behavior = TaskBehavior(
            start=StartTask.model_validate_json(start.model_dump_json()),
            log=TaskLog(entity_id),
            items=Items(),
            flushing=TaskFlushing(stored=start.stored),
        )
        self.refs[entity_id] = self.system.spawn(behavior, entity_id)
        return True

    def _bound(self, work: Awaitable[Any]) -> Awaitable[Any]:
        if isinstance(work, Activity):
            called: Awaitable[Any] = getattr(self._activities, work.function.__name__)(work.argument)
            return called
        return work

    def kill(self, entity_id: str) -> None:
        """As an operator who terminates it."""
        assert self.system is not None
        cell = self.system.runtime.cell(self.refs[entity_id])
        assert cell is not None
        cell.order_stop()

    async def close(self) -> None:
        if self.system is not None:
            await self.system.close()


@dataclass(frozen=True)
class LocalEntity:
    actors: LocalActors
    id: str

    async def start(self, start: StartTask, **about: Any) -> bool:
        if self.actors.fault is not None:
            raise self.actors.fault
        return self.actors.start(self.id, start)

    async def ask(self, request: Any, *, id: str | None = None, timeout_s: float = 10.0) -> Any:
        if self.actors.fault is not None:
            raise self.actors.fault
        self.actors.asked.append(request)
        system, ref = self.actors.system, self.actors.refs.get(self.id)
        if system is None or ref is None or system.runtime.cell(ref) is None:
            raise ActorStopped(f"{self.id!r} has stopped, or does not exist.")
        kind = type(request)
        try:
            answer = await system.ask(ref, kind.model_validate_json(request.model_dump_json()))
        except ActorStopped:
            raise
        except GoatherdError as error:
            raise read_error(write_error(error)) from error
        return answer_type(kind).model_validate_json(cast(Any, answer).model_dump_json())


@dataclass
class TaskHouse:
    """Short words for what tests do with tasks over HTTP."""

    http: httpx.AsyncClient
    store: MemoryTaskStore
    actors: LocalActors
    parts: Tasks

    async def create(self, *subtasks: dict[str, Any], **body: Any) -> str:
        answer = await self.http.post("/task", json={**body, "subtasks": list(subtasks)})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def get(self, path: str) -> dict[str, Any]:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return cast("dict[str, Any]", answer.json())

    async def add(self, task: str, body: Any) -> dict[str, Any]:
        answer = await self.http.post(f"/task/{task}/subtask", json=body)
        assert answer.status_code == 201, answer.text
        return cast("dict[str, Any]", answer.json())

    async def take(self, task: str, worker: str = "w", **body: Any) -> list[dict[str, Any]]:
        answer = await self.http.post(f"/task/{task}/subtask/__take", json={"worker": worker, **body})
        assert answer.status_code == 200, answer.text
        return cast("list[dict[str, Any]]", answer.json()["assignments"])

    async def put(self, task: str, held: dict[str, Any], **body: Any) -> httpx.Response:
        path = f"/task/{task}/subtask/{held['subtask']}/status"
        return await self.http.put(path, json={"lease_token": held["lease_token"], **body})

    async def done(self, task: str, held: dict[str, Any], result: Any = None) -> dict[str, Any]:
        answer = await self.put(task, held, status="completed", result=result)
        assert answer.status_code == 200, answer.text
        return cast("dict[str, Any]", answer.json())

    async def until_waiting(self, task: str, count: int) -> None:
        """Until so many have been told that there is nothing, and wait."""
        async with asyncio.timeout(5):
            while True:
                line = self.parts.feed._lines._lines.get(task)
                if line is not None and len(line._waiting) == count:
                    return
                await asyncio.sleep(0)
