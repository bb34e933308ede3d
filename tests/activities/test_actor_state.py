"""`StateStore`: the contract on every backend."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.mongo_actor_state import MongoStateStore
from activities.backends.projection import Document
from goatherd.actors.durable import MemoryStateStore, StateStore, Stored
from goatherd.errors import Fenced, Invalid
from tests.activities.conftest import BACKENDS

STATE: dict[str, Any] = {"cells": [{"a.b": "$c", "$d": [1.5, None, True], "long": 2**70, "text": "é\u2028"}]}


@pytest.fixture
async def mongo_states(database: AsyncDatabase[Document]) -> MongoStateStore:
    store = MongoStateStore(database)
    await store.prepare()
    return store


@pytest.fixture(params=BACKENDS)
def states(request: pytest.FixtureRequest) -> StateStore:
    return MemoryStateStore() if request.param == "memory" else request.getfixturevalue("mongo_states")


async def test_what_was_never_saved_is_not_there(states: StateStore) -> None:
    assert await states.load("Cart", "1") is None


async def test_a_state_is_read_as_it_was_saved(states: StateStore) -> None:
    await states.save("Cart", "1", 1, STATE)
    assert await states.load("Cart", "1") == Stored(1, STATE)


async def test_states_of_other_entities_and_kinds_are_others(states: StateStore) -> None:
    await states.save("Cart", "1", 1, STATE)
    assert await states.load("Cart", "2") is None
    assert await states.load("Chat", "1") is None


async def test_a_newer_version_takes_the_place_of_an_older(states: StateStore) -> None:
    await states.save("Cart", "1", 1, STATE)
    await states.save("Cart", "1", 2, {"total": 2})
    assert await states.load("Cart", "1") == Stored(2, {"total": 2})


async def test_a_stale_save_is_fenced(states: StateStore) -> None:
    await states.save("Cart", "1", 2, STATE)
    with pytest.raises(Fenced):
        await states.save("Cart", "1", 1, {"total": 1})
    assert await states.load("Cart", "1") == Stored(2, STATE)


async def test_a_repeated_save_does_nothing_more(states: StateStore) -> None:
    await states.save("Cart", "1", 2, STATE)
    await states.save("Cart", "1", 2, STATE)
    assert await states.load("Cart", "1") == Stored(2, STATE)


async def test_a_deleted_state_is_gone_and_its_version_stays(states: StateStore) -> None:
    await states.save("Cart", "1", 1, STATE)
    await states.delete("Cart", "1", 2)
    assert await states.load("Cart", "1") == Stored(2, None)
    with pytest.raises(Fenced):
        await states.save("Cart", "1", 1, STATE)


async def test_a_state_can_be_saved_after_a_deletion(states: StateStore) -> None:
    await states.delete("Cart", "1", 2)
    await states.save("Cart", "1", 3, STATE)
    assert await states.load("Cart", "1") == Stored(3, STATE)


async def test_a_stale_deletion_is_fenced(states: StateStore) -> None:
    await states.save("Cart", "1", 3, STATE)
    with pytest.raises(Fenced):
        await states.delete("Cart", "1", 2)
    assert await states.load("Cart", "1") == Stored(3, STATE)


async def test_what_is_no_json_is_refused(states: StateStore) -> None:
    with pytest.raises(Invalid):
        await states.save("Cart", "1", 1, {"bytes": b"x"})


async def test_of_saves_at_once_the_newest_stays(states: StateStore) -> None:
    saves = [states.save("Cart", "1", version, {"version": version}) for version in range(1, 21)]
    outcomes = await asyncio.gather(*saves, return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, Fenced) for outcome in outcomes)
    assert await states.load("Cart", "1") == Stored(20, {"version": 20})


async def test_what_is_saved_again_after_a_deletion_does_not_expire(
    mongo_states: MongoStateStore, database: AsyncDatabase[Document]
) -> None:
    await mongo_states.delete("Cart", "1", 1)
    assert await database["actor_states"].count_documents({"deleted_at": {"$exists": True}}) == 1
    await mongo_states.save("Cart", "1", 2, STATE)
    assert await database["actor_states"].count_documents({"deleted_at": {"$exists": True}}) == 0
