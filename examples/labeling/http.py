"""The routes that a worker needs, and a worker: take, heartbeat, report."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from secrets import token_hex
from typing import Any

import httpx

TIMEOUT = httpx.Timeout(60.0)
WAIT_S = 3
_PASSING = (429, 503, 504)
_TRIES = 20
ENDED = ("completed", "failed", "cancelled", "expired")

Answer = Callable[[Any], Awaitable[Any]]
"""From a subtask's input to its result."""


async def work(http: httpx.AsyncClient, task: str, worker: str, answer: Answer) -> int:
    """Answers what this worker is given until the task is done; gives how many."""
    answered = 0
    while True:
        taken = await _post(http, f"/task/{task}/subtask/__take", {"worker": worker, "wait_s": WAIT_S})
        for assignment in taken["assignments"]:
            answered += await _do(http, task, assignment, answer)
        if not taken["assignments"] and taken["task"]["status"] in ENDED:
            return answered


async def _do(http: httpx.AsyncClient, task: str, assignment: dict[str, Any], answer: Answer) -> bool:
    """Whether the answer counts. It does not if the lease was lost meanwhile: somebody else has it then."""
    path = f"/task/{task}/subtask/{assignment['subtask']}"
    token = {"lease_token": assignment["lease_token"]}
    beating = asyncio.create_task(_beat(http, f"{path}/heartbeat", token))
    report: dict[str, Any]
    try:
        report = {"status": "completed", "result": await answer(assignment["input"])}
    except httpx.HTTPError as error:
        report = {"status": "failed", "error": {"code": "no-answer", "message": str(error)}}
    finally:
        beating.cancel()
    reported = await http.put(f"{path}/status", json=token | report)
    if reported.status_code == 409:
        return False
    reported.raise_for_status()
    return True


async def _beat(http: httpx.AsyncClient, path: str, token: dict[str, str]) -> None:
    """Keeps a lease for as long as somebody thinks. Whether it was lost, the report is told."""
    while True:
        await asyncio.sleep(5.0)
        await http.post(path, json=token)


async def _post(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    # With a key, a request that has to be sent again counts once.
    headers = {"idempotency-key": token_hex(16)}
    for _ in range(_TRIES):
        answer = await http.post(path, json=body, headers=headers)
        if answer.status_code not in _PASSING:
            break
        await asyncio.sleep(1.0)
    answer.raise_for_status()
    return dict(answer.json())


async def create(http: httpx.AsyncClient, settings: dict[str, Any]) -> str:
    """The id of a new task."""
    return str((await _post(http, "/task", settings))["id"])


async def all_subtasks(http: httpx.AsyncClient, task: str) -> list[dict[str, Any]]:
    """By number, however many pages they fill."""
    found: list[dict[str, Any]] = []
    params: dict[str, Any] = {"limit": 100}
    while True:
        answer = await http.get(f"/task/{task}/subtask", params=params)
        page = answer.raise_for_status().json()
        found += page["data"]
        if not page["has_more"]:
            return found
        params["after"] = page["last_id"]
