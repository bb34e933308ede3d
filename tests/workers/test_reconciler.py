"""What the reconciler asks for, with a Temporal that only lists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.reconcile import Ended
from workers.reconciler import Reconciler


@dataclass
class Side:
    """A store that has what it is told; `looked`: whom it was asked about."""

    workflow_type: str = "ChatSession"
    document: type[Any] = dict
    grace: timedelta = timedelta(0)
    there: list[str] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)

    async def open(self, ids: Sequence[str]) -> list[str]:
        self.looked += ids
        return [id for id in ids if id in self.there]

    async def has(self, id: str) -> bool:
        return id in self.there

    async def put(self, document: Any) -> None:
        self.there.append(document["id"])

    async def end(self, id: str, ended: Ended) -> None:
        raise AssertionError("nothing has ended")


@dataclass
class Temporal:
    """Lists for each look what is given it, and answers queries unless it is `deaf`."""

    begun: list[list[str]]
    deaf: bool = False
    queries: list[str] = field(default_factory=list)

    async def list_workflows(self, query: str) -> AsyncIterator[Any]:
        if "StartTime" in query:
            self.queries.append(query)
            for id in self.begun.pop(0):
                yield SimpleNamespace(id=id, close_time=None)

    def get_workflow_handle(self, id: str) -> Any:
        async def query(*_: object, **__: object) -> Any:
            if self.deaf:
                raise RPCError("no worker", RPCStatusCode.DEADLINE_EXCEEDED, b"")
            return {"id": id}

        return SimpleNamespace(query=query)


def reconciler(temporal: Temporal, side: Side) -> Reconciler:
    return Reconciler(cast(Client, temporal), [side], "queue")


async def test_spans_of_time_in_which_actors_began_follow_each_other() -> None:
    temporal = Temporal([[], [], []])
    looks = reconciler(temporal, Side())
    for _ in range(3):
        await looks.look()
        await asyncio.sleep(0)
    ends = [query.split('StartTime < "')[1].rstrip('"') for query in temporal.queries]
    starts = [query.split('StartTime >= "')[1].split('"')[0] for query in temporal.queries]
    assert starts[1:] == ends[:-1]


async def test_each_that_began_is_looked_at_once() -> None:
    temporal = Temporal([["a", "b"], [], []])
    side = Side(there=["a"])
    looks = reconciler(temporal, side)
    for _ in range(3):
        await looks.look()
    assert side.there == ["a", "b"]
    assert side.looked == ["a", "b"]


async def test_one_that_gives_no_answer_is_asked_again() -> None:
    temporal = Temporal([["a"], [], []], deaf=True)
    side = Side()
    looks = reconciler(temporal, side)
    await looks.look()
    await looks.look()
    assert side.there == []
    temporal.deaf = False
    await looks.look()
    assert side.there == ["a"]
