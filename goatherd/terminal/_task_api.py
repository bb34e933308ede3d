"""The routes of the HTTP API that the commands for tasks need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

import httpx

from goatherd.terminal._api import _PASSING, _RETRY_MAX_S, Api, Refused, _View

ENDED = {"completed": 0, "failed": 1, "cancelled": 3, "expired": 4}
"""The statuses of a task that nobody works on any more, and the exit codes that tell them (2: usage)."""
PAGE = 100


class CountsView(_View):
    blocked: int = 0
    pending: int = 0
    leased: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    dead: int = 0

    @property
    def total(self) -> int:
        return self.blocked + self.pending + self.leased + self.done

    @property
    def done(self) -> int:
        return self.completed + self.failed + self.cancelled + self.dead

    def told(self) -> str:
        """Those that there are: `5 pending, 2 leased`."""
        return ", ".join(f"{count:,} {name}" for name, count in self.model_dump().items() if count)


class CallbackView(_View):
    url: str
    secret: str | None = None


class TaskView(_View):
    id: str
    status: str
    counts: CountsView = CountsView()
    title: str = ""
    lease_s: float = 60.0
    version: int = 0
    reason: str | None = None
    callback: CallbackView | None = None


class TaskProgress(_View):
    """A task in an answer that is about something else."""

    id: str
    status: str
    counts: CountsView = CountsView()


class AssignmentView(_View):
    id: str
    subtask: str
    lease_token: str
    attempt: int
    title: str | None = None
    input: Any = None
    labels: tuple[str, ...] = ()
    checkpoint: Any = None


class TakenView(_View):
    assignments: list[AssignmentView]
    task: TaskProgress


class BeatView(_View):
    cancel_requested: bool = False
    paused: bool = False


class ReportView(_View):
    subtask: str
    status: str


class CreatedView(_View):
    id: str
    key: str | None = None


class RequeuedView(_View):
    requeued: int = 0


class TaskEventView(_View):
    seq: int = 0
    type: str
    subtask: str | None = None
    state: dict[str, Any] | None = None


class _Tasks(_View):
    data: list[TaskView]


class _Page(_View):
    data: list[dict[str, Any]]
    has_more: bool = False
    last_id: str | None = None


class _Created(_View):
    data: list[CreatedView]


class TaskApi(Api):
    """As `Api`: one client of one API."""

    def patient(self, seconds: float | None, *, notice: Callable[[str], None] | None = None) -> TaskApi:
        """The same client, which gives up after so long."""
        return TaskApi(self._http, notice=notice or self.notice, patience_s=seconds, retry_s=self.retry_s)

    async def create_task(self, body: Mapping[str, Any], *, key: str | None = None) -> TaskView:
        """`key`: of a request that is to count once, whoever sends it how often."""
        return await self._call(TaskView, "POST", "/task", json=body, once=key or True)

    async def add(self, task: str, subtasks: list[dict[str, Any]], *, key: str) -> list[CreatedView]:
        path = _path(task, "subtask")
        return (await self._call(_Created, "POST", path, json=subtasks, once=key)).data

    async def task(self, task: str) -> TaskView:
        return await self._call(TaskView, "GET", _path(task))

    async def raw(self, task: str, subtask: str | None = None) -> dict[str, Any]:
        """The document of a task, or of a subtask, as the API gives it."""
        parts = () if subtask is None else ("subtask", subtask)
        response = await self._send("GET", _path(task, *parts))
        return dict(response.json())

    async def tasks(self, *, limit: int, status: str | None, label: str | None) -> list[TaskView]:
        """Newest first."""
        params = {"limit": limit, "status": status, "label": label}
        given = {name: value for name, value in params.items() if value is not None}
        return (await self._call(_Tasks, "GET", "/task", params=given)).data

    async def subtasks(self, task: str, *, status: str | None = None) -> AsyncGenerator[dict[str, Any]]:
        """All of them, by number; a page at a time."""
        params: dict[str, Any] = {"limit": PAGE} | ({} if status is None else {"status": status})
        while True:
            page = await self._call(_Page, "GET", _path(task, "subtask"), params=params)
            for subtask in page.data:
                yield subtask
            if not page.has_more or page.last_id is None:
                return
            params["after"] = page.last_id

    async def take(
        self,
        task: str,
        worker: str,
        *,
        capabilities: list[str],
        most: int = 1,
        lease_s: float | None = None,
        wait_s: float,
    ) -> TakenView:
        body: dict[str, Any] = {"worker": worker, "capabilities": capabilities, "max": most, "wait_s": wait_s}
        if lease_s is not None:
            body["lease_s"] = lease_s
        # With a key: an answer that is lost on its way leaves nothing leased that nobody knows of.
        return await self._call(TakenView, "POST", _path(task, "subtask", "__take"), json=body, once=True)

    async def beat(self, task: str, held: AssignmentView, *, extend_s: float | None) -> BeatView:
        body: dict[str, Any] = {"lease_token": held.lease_token}
        if extend_s is not None:
            body["extend_s"] = extend_s
        path = _path(task, "subtask", held.subtask, "heartbeat")
        return await self._call(BeatView, "POST", path, json=body)

    async def report(
        self,
        task: str,
        held: AssignmentView,
        status: str,
        *,
        result: Any = None,
        error: dict[str, Any] | None = None,
        retryable: bool | None = None,
    ) -> ReportView:
        """Says what became of an assignment. The same again is answered the same."""
        body: dict[str, Any] = {"status": status, "lease_token": held.lease_token}
        if status == "completed":
            body["result"] = result
        if error is not None:
            body["error"] = error
        if retryable is not None:
            body["retryable"] = retryable
        path = _path(task, "subtask", held.subtask, "status")
        return await self._call(ReportView, "PUT", path, json=body)

    async def release(self, task: str, held: AssignmentView) -> None:
        path = _path(task, "subtask", held.subtask, "release")
        await self._send("POST", path, json={"lease_token": held.lease_token})

    async def cancel_task(self, task: str) -> None:
        await self._send("DELETE", _path(task))

    async def pause(self, task: str) -> None:
        await self._send("POST", _path(task, "__pause"), json={}, once=True)

    async def resume(self, task: str) -> None:
        await self._send("POST", _path(task, "__resume"), json={}, once=True)

    async def requeue(self, task: str, statuses: list[str]) -> int:
        path = _path(task, "__requeue")
        answer = await self._call(RequeuedView, "POST", path, json={"statuses": statuses}, once=True)
        return answer.requeued

    async def task_events(self, task: str, after: int) -> AsyncGenerator[TaskEventView]:
        """Events after that number, until the line breaks: `httpx.TransportError`, or it just ends."""
        async with aclosing(self._stream(TaskEventView, _path(task, "events"), str(after))) as events:
            async for _, event in events:
                yield event

    async def follow(self, task: str, after: int) -> AsyncGenerator[TaskEventView | None]:
        """Events after that number, however often the line breaks; None when some may be missing.

        Raises `Refused` if coming back makes no sense.
        """
        delay = self.retry_s
        while True:
            try:
                async with aclosing(self.task_events(task, after)) as events:
                    async for event in events:
                        delay = self.retry_s
                        after = max(after, event.seq)
                        yield event
            except httpx.TransportError:
                pass
            except Refused as refusal:
                if refusal.status == 410:
                    after = (await self.task(task)).version
                    yield None
                elif refusal.status not in _PASSING:
                    raise
            if delay == self.retry_s:
                self.notice("connection lost, reconnecting…")
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RETRY_MAX_S)


def _path(task: str, *parts: str) -> str:
    return "/".join(["/task", *(quote(part, safe="") for part in (task, *parts))])
