"""Workers of a task, seen from outside: they take, report, try again when something dies, and keep books."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from tests.temporal import eventually

Json = dict[str, Any]

_PASSING = (429, 500, 502, 503, 504)
_UNREACHABLE = (httpx.TransportError, OSError)
_RETRY_S = 0.1


async def send(client: httpx.AsyncClient, method: str, path: str, **more: Any) -> httpx.Response:
    """The answer, however often it takes: the same key each time, so that it counts once."""
    headers = {"Idempotency-Key": uuid4().hex} if method == "POST" else {}
    headers |= more.pop("headers", {})
    while True:
        try:
            answer = await client.request(method, path, headers=headers, **more)
        except _UNREACHABLE:
            await asyncio.sleep(_RETRY_S)
            continue
        running = answer.status_code == 409 and answer.json().get("code") == "idempotency-key-in-use"
        if answer.status_code not in _PASSING and not running:
            return answer
        assert answer.status_code != 500, answer.text
        await asyncio.sleep(_RETRY_S)


@dataclass
class Books:
    """What all workers together know. `accepted`: by subtask, the fences whose result was answered 200."""

    accepted: dict[str, list[int]] = field(default_factory=dict)
    given: dict[str, list[int]] = field(default_factory=dict)
    lost: int = 0

    def take(self, assignment: Json) -> None:
        self.given.setdefault(assignment["subtask"], []).append(assignment["fence"])

    def accept(self, assignment: Json) -> None:
        self.accepted.setdefault(assignment["subtask"], []).append(assignment["fence"])


async def work_through(client: httpx.AsyncClient, task: str, worker: str, books: Books) -> None:
    """Takes one after the other and completes it, until the task has no more to do."""
    while True:
        taken = (
            await send(client, "POST", f"/task/{task}/subtask/__take", json={"worker": worker, "wait_s": 2})
        ).json()
        for one in taken["assignments"]:
            books.take(one)
            body = {
                "status": "completed",
                "lease_token": one["lease_token"],
                "result": {"by": worker, "fence": one["fence"], "of": one["input"]},
            }
            report = await send(client, "PUT", f"/task/{task}/subtask/{one['subtask']}/status", json=body)
            if report.status_code == 200:
                books.accept(one)
            else:
                assert report.json()["code"] == "lease-lost", report.text
                books.lost += 1
        if not taken["assignments"] and taken["task"]["status"] == "completed":
            return


@dataclass
class Held:
    """A lease that its worker has not ended."""

    assignment: Json
    worker: str


@dataclass
class Driver:
    """Random work on a task without overlap, and what must be true of each answer.

    Every request is sent again until it is answered, so what it did is known; and each step waits for its
    answer, so a plain model can say what is allowed.
    """

    client: httpx.AsyncClient
    task: str
    luck: random.Random
    held: dict[str, Held] = field(default_factory=dict)
    """By subtask."""
    over: list[Json] = field(default_factory=list)
    """Assignments that have ended: their tokens must be refused."""
    done: dict[str, Any] = field(default_factory=dict)
    """The result of each subtask that was answered as completed."""
    cancelled: set[str] = field(default_factory=set)
    subtasks: list[str] = field(default_factory=list)
    expiring: bool = False

    async def step(self) -> str:
        """One random thing. Gives its name."""
        doing: list[Callable[[], Awaitable[None]]] = [
            self.add, self.take, self.take, self.take, self.complete, self.complete, self.fail, self.release,
            self.beat, self.stale, self.cancel_one, self.again,
        ]  # fmt: skip
        action = self.luck.choice(doing)
        await action()
        return action.__name__

    async def post(self, path: str, body: Json, **more: Any) -> httpx.Response:
        return await send(self.client, "POST", f"/task/{self.task}/{path}", json=body, **more)

    async def put_status(self, assignment: Json, status: str, **more: Any) -> httpx.Response:
        body = {"status": status, "lease_token": assignment["lease_token"], **more}
        path = f"/task/{self.task}/subtask/{assignment['subtask']}/status"
        return await send(self.client, "PUT", path, json=body)

    async def add(self) -> None:
        count = self.luck.randint(1, 3)
        added = await send(
            self.client, "POST", f"/task/{self.task}/subtask", json=[{"input": n} for n in range(count)]
        )
        assert added.status_code == 201, added.text
        self.subtasks += [one["id"] for one in added.json()["data"]]

    async def take(self) -> None:
        worker = self.luck.choice(("ada", "bob", "cyd"))
        key = {"Idempotency-Key": uuid4().hex}
        body = {"worker": worker, "max": self.luck.randint(1, 3)}
        taken = (await self.post("subtask/__take", body, headers=key)).json()["assignments"]
        for one in taken:
            subtask = one["subtask"]
            assert subtask in self.subtasks
            assert subtask not in self.done, "given out although it is done"
            assert subtask not in self.cancelled, "given out although it is cancelled"
            assert subtask not in self.held, "leased twice at once"
            self.held[subtask] = Held(one, worker)
        if self.luck.random() < 0.3:
            repeated = (await self.post("subtask/__take", body, headers=key)).json()["assignments"]
            assert [one["lease_token"] for one in repeated] == [one["lease_token"] for one in taken]

    def _any_held(self) -> Json | None:
        return self.luck.choice(list(self.held.values())).assignment if self.held else None

    def _end(self, assignment: Json) -> None:
        del self.held[assignment["subtask"]]
        self.over.append(assignment)

    async def complete(self) -> None:
        if (one := self._any_held()) is not None:
            result = {"fence": one["fence"]}
            answer = await self.put_status(one, "completed", result=result)
            assert answer.status_code == 200, answer.text
            assert answer.json()["status"] == "completed"
            same = await self.put_status(one, "completed", result=result)
            assert (same.status_code, same.content) == (200, answer.content)
            self.done[one["subtask"]] = result
            self._end(one)

    async def fail(self) -> None:
        if (one := self._any_held()) is not None:
            answer = await self.put_status(one, "failed", error={"message": "no"}, retry_after_s=0)
            assert answer.status_code == 200, answer.text
            self._end(one)

    async def release(self) -> None:
        if (one := self._any_held()) is not None:
            answer = await self.post(f"subtask/{one['subtask']}/release", {"lease_token": one["lease_token"]})
            assert answer.status_code == 200, answer.text
            self._end(one)

    async def beat(self) -> None:
        if (one := self._any_held()) is not None:
            answer = await self.post(
                f"subtask/{one['subtask']}/heartbeat", {"lease_token": one["lease_token"], "progress": 0.5}
            )
            assert answer.status_code == 200, answer.text
            assert not answer.json()["cancel_requested"]

    async def stale(self) -> None:
        """Whoever has lost his lease can't write."""
        if self.over:
            one = self.luck.choice(self.over)
            answer = await self.put_status(one, "completed", result={"stale": True})
            assert answer.status_code == 409, answer.text

    async def again(self) -> None:
        """A beat with a token that is over is refused, too."""
        if self.over:
            one = self.luck.choice(self.over)
            path = f"subtask/{one['subtask']}/heartbeat"
            assert (await self.post(path, {"lease_token": one["lease_token"]})).status_code == 409

    async def cancel_one(self) -> None:
        left = [one for one in self.subtasks if one not in self.done and one not in self.cancelled]
        if left and self.luck.random() < 0.3:
            subtask = self.luck.choice(left)
            path = f"/task/{self.task}/subtask/{subtask}/status"
            answer = await send(self.client, "PUT", path, json={"status": "cancelled"})
            assert answer.status_code == 200, answer.text
            self.cancelled.add(subtask)
            if subtask in self.held:
                self._end(self.held[subtask].assignment)

    async def finish(self) -> None:
        """Does all that is left."""
        while self.held:
            await self.complete()
        while True:
            await self.take()
            if not self.held:
                return
            while self.held:
                await self.complete()

    async def check(self) -> None:
        """The store says the same as was answered: at once, or when the task's actor has written what an API
        could not while the store was away."""
        with suppress(TimeoutError):
            await eventually(self._is_stored, within_s=60)
        stored = [one async for one in listed(self.client, f"/task/{self.task}/subtask")]
        assert [one["id"] for one in stored] == self.subtasks
        for one in stored:
            if one["id"] in self.done:
                assert (one["status"], one["result"]) == ("completed", self.done[one["id"]])
            else:
                assert one["id"] in self.cancelled
                assert one["status"] == "cancelled"

    async def _is_stored(self) -> bool:
        """Whether all has ended there, too."""
        ended = ("completed", "cancelled")
        return all(
            [one["status"] in ended async for one in listed(self.client, f"/task/{self.task}/subtask")]
        )


async def listed(client: httpx.AsyncClient, path: str, **query: Any) -> Any:
    """All items of a list, page by page."""
    after: str | None = None
    while True:
        page = (
            await send(
                client, "GET", path, params={"limit": 100, **query} | ({"after": after} if after else {})
            )
        ).json()
        for one in page["data"]:
            yield one
        if not page["has_more"]:
            return
        query["after"] = page["last_id"]
