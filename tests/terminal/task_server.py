"""A small stand-in for the API's task routes: one task in memory, which keeps to its leases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.terminal.server import problem

TASK = "task_01k9w2x6hj3v8m5r7t0q4n1b2c"


@dataclass
class Item:
    id: str
    number: int
    spec: dict[str, Any]
    status: str = "pending"
    token: str | None = None
    worker: str | None = None
    attempt: int = 1
    result: Any = None
    error: Any = None

    def document(self) -> dict[str, Any]:
        assignees = [self.worker] if self.token else []
        return {
            "object": "subtask",
            "id": self.id,
            "number": self.number,
            "key": self.spec.get("key"),
            "title": self.spec.get("title"),
            "input": self.spec.get("input"),
            "labels": [],
            "status": self.status,
            "assignees": assignees,
            "result": self.result,
            "error": self.error,
            "answers": None,
        }


@dataclass
class FakeTasks:
    """`failures` are the next answers to additions, `take_failures` those to takes (the first of which is
    done all the same, and its answer lost), `refusals` those to reports, heartbeats and releases; `lose` and
    `cancelling` are what heartbeats are told."""

    items: list[Item] = field(default_factory=list)
    settings: dict[str, Any] | None = None
    status: str = "pending"
    lease_s: float = 60.0
    lose: bool = False
    cancelling: bool = False
    failures: list[Response] = field(default_factory=list)
    take_failures: list[Response] = field(default_factory=list)
    refusals: list[Response] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    take_keys: list[str] = field(default_factory=list)
    takes: dict[str, dict[str, Any]] = field(default_factory=dict)
    known: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    beaten: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def app(self) -> Starlette:
        one, sub = "/task/{task}", "/task/{task}/subtask/{subtask}"
        return Starlette(
            routes=[
                Route("/task", self.create, methods=["POST"]),
                Route("/task", self.list_tasks),
                Route(one, self.get),
                Route(one, self.cancel, methods=["DELETE"]),
                Route(f"{one}/subtask", self.add, methods=["POST"]),
                Route(f"{one}/subtask", self.subtasks),
                Route(f"{one}/subtask/__take", self.take, methods=["POST"]),
                Route(f"{sub}/status", self.report, methods=["PUT"]),
                Route(f"{sub}/heartbeat", self.beat, methods=["POST"]),
                Route(f"{sub}/release", self.release, methods=["POST"]),
                Route(sub, self.subtask),
                Route(f"{one}/__pause", self.pause, methods=["POST"]),
                Route(f"{one}/__resume", self.resume, methods=["POST"]),
                Route(f"{one}/__requeue", self.requeue, methods=["POST"]),
                Route(f"{one}/events", self.stream),
            ]
        )

    def put(self, *inputs: Any) -> None:
        for value in inputs:
            self._put({"input": value})

    def _put(self, spec: dict[str, Any]) -> Item:
        number = len(self.items) + 1
        item = Item(f"sub_01k9w2x6hj3v8m5r7t{number:08}", number, spec)
        self.items.append(item)
        return item

    def document(self) -> dict[str, Any]:
        names = ("blocked", "pending", "leased", "completed", "failed", "cancelled", "dead")
        counts = {name: sum(item.status == name for item in self.items) for name in names}
        status = self.status
        if self.items and not counts["pending"] + counts["leased"] and status in ("pending", "in_progress"):
            status = "failed" if counts["failed"] else "completed"
        return {
            "object": "task",
            "id": TASK,
            "status": status,
            "counts": counts,
            "lease_s": self.lease_s,
            "version": len(self.events),
            "title": "A task",
            **(self.settings or {}),
        }

    def leased(self) -> list[str]:
        return [item.id for item in self.items if item.token]

    async def tell(self, kind: str, item: Item | None = None) -> None:
        async with self.changed:
            event: dict[str, Any] = {"v": 1, "seq": len(self.events) + 1, "type": kind, "task": TASK}
            if item is not None:
                event |= {"subtask": item.id, "state": item.document()}
            self.events.append(event)
            self.changed.notify_all()

    # -- routes

    async def create(self, request: Request) -> Response:
        self.settings = await request.json()
        self.keys.append(request.headers["idempotency-key"])
        return JSONResponse(self.document(), 201)

    async def list_tasks(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self.document()], "has_more": False})

    async def get(self, request: Request) -> Response:
        if request.path_params["task"] != TASK:
            return problem(404, "not-found", "There is no such task.")
        return JSONResponse(self.document())

    async def cancel(self, request: Request) -> Response:
        self.status = "cancelled"
        for item in self.items:
            item.status = "cancelled"
        return Response(status_code=204)

    async def add(self, request: Request) -> Response:
        key, body = request.headers["idempotency-key"], await request.body()
        self.keys.append(key)
        if self.failures:
            return self.failures.pop(0)
        if key in self.known:
            known, answer = self.known[key]
            assert known == body
            return Response(answer, 201, media_type="application/json")
        data = [
            {"object": "subtask", "id": item.id, "key": item.spec.get("key")}
            for item in [self._put(spec) for spec in json.loads(body)]
        ]
        answer = json.dumps({"object": "list", "data": data, "has_more": False}).encode()
        self.known[key] = (body, answer)
        return Response(answer, 201, media_type="application/json")

    async def subtasks(self, request: Request) -> Response:
        query = request.query_params
        after = query.get("after")
        begin = next((n for n, item in enumerate(self.items, 1) if item.id == after), 0)
        rest = [item for item in self.items[begin:] if query.get("status") in (None, item.status)]
        page = [item.document() for item in rest[: int(query["limit"])]]
        last = page[-1]["id"] if page else None
        return JSONResponse(
            {"object": "list", "data": page, "has_more": len(rest) > len(page), "last_id": last}
        )

    async def subtask(self, request: Request) -> Response:
        return JSONResponse(self._item(request).document())

    async def take(self, request: Request) -> Response:
        key = request.headers["idempotency-key"]
        self.take_keys.append(key)
        if key not in self.takes:
            self.takes[key] = await self._take(await request.json())
        if self.take_failures:
            return self.take_failures.pop(0)
        return JSONResponse(self.takes[key])

    async def _take(self, body: dict[str, Any]) -> dict[str, Any]:
        free = [item for item in self.items if item.status == "pending"][: body["max"]]
        if self.status in ("paused", "cancelled"):
            free = []
        assignments: list[dict[str, Any]] = []
        for item in free:
            item.status, item.token, item.worker = "leased", f"{item.number}-{item.attempt}", body["worker"]
            assignments.append(
                {
                    "id": f"asg_{item.number}",
                    "subtask": item.id,
                    "lease_token": item.token,
                    "fence": 1,
                    "attempt": item.attempt,
                    "input": item.spec.get("input"),
                    "title": item.spec.get("title"),
                    "labels": [],
                    "checkpoint": None,
                }
            )
            await self.tell("subtask.leased", item)
        if assignments:
            self.taken.set()
        document = self.document()
        task = {name: document[name] for name in ("id", "status", "counts")}
        return {"assignments": assignments, "task": task}

    async def report(self, request: Request) -> Response:
        item, body = self._item(request), await request.json()
        self.calls.append(f"{body['status']} {item.number}")
        if self.refusals:
            return self.refusals.pop(0)
        if item.token is None or body["lease_token"] != item.token:
            return problem(409, "lease-lost", "The lease is over.")
        item.token = None
        item.status, item.result, item.error = body["status"], body.get("result"), body.get("error")
        await self.tell(f"subtask.{item.status}", item)
        return JSONResponse({"object": "subtask.report", "subtask": item.id, "status": item.status})

    async def beat(self, request: Request) -> Response:
        item = self._item(request)
        self.calls.append(f"beat {item.number}")
        self.beaten.release()
        if self.refusals:
            return self.refusals.pop(0)
        if self.lose:
            item.status, item.token, self.lose = "pending", None, False
            item.attempt += 1
            return problem(409, "lease-lost", "The lease is over: expired.")
        if self.cancelling:
            item.status, item.token, self.status = "cancelled", None, "cancelled"
        return JSONResponse({"cancel_requested": self.cancelling, "paused": False})

    async def release(self, request: Request) -> Response:
        item = self._item(request)
        self.calls.append(f"release {item.number}")
        if self.refusals:
            return self.refusals.pop(0)
        item.status, item.token = "pending", None
        await self.tell("subtask.released", item)
        return JSONResponse({"object": "subtask.report", "subtask": item.id, "status": "pending"})

    async def pause(self, request: Request) -> Response:
        self.status = "paused"
        return JSONResponse(self.document())

    async def resume(self, request: Request) -> Response:
        self.status = "in_progress"
        return JSONResponse(self.document())

    async def requeue(self, request: Request) -> Response:
        statuses = (await request.json())["statuses"]
        found = [item for item in self.items if item.status in statuses]
        for item in found:
            item.status = "pending"
        return JSONResponse({"requeued": len(found), "task": self.document()})

    async def stream(self, request: Request) -> Response:
        after = int(request.headers["last-event-id"])
        return StreamingResponse(self._stream(after), media_type="text/event-stream")

    async def _stream(self, after: int) -> AsyncIterator[bytes]:
        yield b": hello\n\n"
        while True:
            async with self.changed:
                while len(self.events) <= after:
                    await self.changed.wait()
            for event in self.events[after:]:
                after = event["seq"]
                yield f"event: {event['type']}\nid: {after}\ndata: {json.dumps(event)}\n\n".encode()
            if self.document()["status"] in ("completed", "failed", "cancelled"):
                return

    def _item(self, request: Request) -> Item:
        return next(item for item in self.items if item.id == request.path_params["subtask"])
