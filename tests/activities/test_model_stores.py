"""What every `ModelCatalog` and `PieceFeed` does, on MongoDB and in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from activities.backends.memory_models import MemoryModelCatalog, MemoryPieceFeed
from activities.backends.mongo_models import MongoModelCatalog, MongoPieceFeed
from activities.backends.projection import Document
from activities.model_ports import ModelCatalog, PieceFeed
from goatherd.contracts.inference import ModelSpec, Token
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.inference_work import ModelEntry, Piece


@pytest.fixture(params=["memory", "mongo"])
def catalog(request: pytest.FixtureRequest) -> ModelCatalog:
    if request.param == "memory":
        return MemoryModelCatalog()
    return MongoModelCatalog(request.getfixturevalue("database"))


@pytest.fixture
async def mongo_pieces(database: AsyncDatabase[Document]) -> MongoPieceFeed:
    feed = MongoPieceFeed(database)
    await feed.prepare()
    return feed


@pytest.fixture(params=["memory", "mongo"])
def pieces(request: pytest.FixtureRequest) -> PieceFeed:
    feed: PieceFeed = MemoryPieceFeed()
    return feed if request.param == "memory" else request.getfixturevalue("mongo_pieces")


def entry(name: str, **more: object) -> ModelEntry:
    spec = ModelSpec(source="org/name", task=Task.FILL_MASK, options={"a.b": {"$c": [1, None]}})
    return ModelEntry(name=name, spec=spec.model_copy(update=more), owner="local")


async def test_a_catalog_gives_by_name_what_was_added(catalog: ModelCatalog) -> None:
    assert await catalog.all() == []
    for name in ("b", "a/with.dots", "c"):
        assert await catalog.add(entry(name))
    assert await catalog.all() == [entry("a/with.dots"), entry("b"), entry("c")]


async def test_a_name_that_is_taken_keeps_its_model(catalog: ModelCatalog) -> None:
    await catalog.add(entry("a"))
    assert not await catalog.add(entry("a", task=Task.TRANSLATION))
    assert await catalog.all() == [entry("a")]


async def test_what_is_removed_is_gone_and_its_name_is_free(catalog: ModelCatalog) -> None:
    await catalog.add(entry("a"))
    assert await catalog.remove("a")
    assert not await catalog.remove("a")
    assert await catalog.add(entry("a"))


async def test_of_many_that_add_a_name_one_succeeds(catalog: ModelCatalog) -> None:
    added = await asyncio.gather(*(catalog.add(entry("a", source=str(n))) for n in range(10)))
    assert sorted(added) == [False] * 9 + [True]


async def test_who_watches_sees_all_pieces_in_order(pieces: PieceFeed) -> None:
    token = Token(id=3, text=" x", logprob=-0.5)
    made = [Piece(stream="s", n=n, offset=n, text="x", tokens=[token]) for n in range(20)]
    async with pieces.watch() as watched:
        await pieces.publish(made[:5])
        for piece in made[5:]:
            await pieces.publish([piece])
        assert [await anext(aiter_of(watched)) for _ in made] == made


async def test_two_who_watch_both_see_them(pieces: PieceFeed) -> None:
    piece = Piece(stream="s", n=0, offset=0, text="x")
    async with pieces.watch() as one, pieces.watch() as other:
        await pieces.publish([piece])
        assert await anext(aiter_of(one)) == await anext(aiter_of(other)) == piece


def aiter_of(watched: AsyncIterator[object]) -> AsyncIterator[object]:
    return watched.__aiter__()
