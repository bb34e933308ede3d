"""Indexes hosted as models are (`model_host.py`): loaded when they are searched, within a memory budget, put
out for others. The "model" is one version of an index, and its only task is `search`.

A search sees all that the store had when its batch began: the engine catches up first. Between searches it
follows by itself, so that there is little to catch up with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from threading import Event
from typing import Any, TypeVar

from activities.backends.machine import Machine, main_memory
from activities.backends.model_host import ModelHost
from activities.backends.model_memory import Room
from activities.backends.retrieval.engines import AllEngines, Engines
from activities.inference_ports import Item, LoadContext, Made, Result, Runner
from activities.ports import ChatModel
from activities.retrieval_ports import Engine, IndexStore
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.retrieval import Index, Version, version_number
from goatherd.errors import GoatherdError, NotFound, Unavailable, WrongTask
from goatherd.settings import Settings
from goatherd.telemetry import metrics
from goatherd.waiting import put_down

FOLLOW_S = 1.0
SAVE_AFTER = 20_000
"""Entries: then what was taken in since the last snapshot is saved, at rest or not."""
SAVE_AT_REST_S = 15.0
"""What was taken in is saved when nothing has come for so long."""
_ROUNDS = 20
"""Of reading what came while the store was read: under steady writes there is no end to it."""
_ROOM = 1.2
"""What an index takes, of the bytes of its vectors; guessed before it is loaded."""

_log = logging.getLogger(__name__)

_SHARE = 0.2
"""Of the machine's memory, if nobody says otherwise: models and servers live there, too."""

T = TypeVar("T")


def host_indexes(settings: Settings, store: IndexStore, engines: Engines | None = None) -> ModelHost:
    """A host of indexes in this process. To be made in the loop in which it is used. `engines`: default,
    those that the settings have."""
    given = settings.index_memory_mb
    room = Room(
        given << 20 if given is not None else int(main_memory() * _SHARE),
        wait_s=5.0,
        kind=("index", "indexes"),
        setting="GOATHERD_INDEX_MEMORY_MB",
    )
    provider = IndexProvider(store, engines or AllEngines(settings), asyncio.get_running_loop())
    alone = settings.model_copy(update={"models": {}})
    host = ModelHost(alone, providers=lambda _: provider, machine=Machine("cpu", room.budget), room=room)
    provider.let_go = host.unload
    return host


class IndexProvider:
    """`Provider` of indexes. Its blocking methods are called in threads, and wait for `loop`, where store and
    engines live."""

    def __init__(self, store: IndexStore, engines: Engines, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._engines = engines
        self._loop = loop
        self.let_go: Callable[[str], Awaitable[object]] | None = None
        """What puts a version out by its name, when it is no more."""
        self._farewells: set[asyncio.Future[object]] = set()

    def check(self, name: str, spec: ModelSpec) -> None:
        """Whoever makes such a spec is one of us."""

    def prepare(self, name: str, spec: ModelSpec, context: LoadContext) -> None:
        """There is nothing to prepare."""

    def estimate(self, name: str, spec: ModelSpec, context: LoadContext) -> int:
        return self._wait(self._estimate(spec))

    def load(self, name: str, spec: ModelSpec, context: LoadContext) -> HostedIndex:
        return self._wait(self._load(name, spec, context))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _estimate(self, spec: ModelSpec) -> int:
        index, version = await self._find(spec)
        if version.spec.backend == "elasticsearch":
            return 0
        counts = await self._store.counts(index.id)
        return int(_ROOM * 4 * counts.chunks * version.spec.dimensions)

    async def _find(self, spec: ModelSpec) -> tuple[Index, Version]:
        index = await self._store.index(spec.source)
        version = None if index is None else index.version(version_number(spec))
        if index is None or version is None:
            raise NotFound("The index, or this version of it, is no more.")
        return index, version

    async def _load(self, name: str, spec: ModelSpec, context: LoadContext) -> HostedIndex:
        index, version = await self._find(spec)
        context.progress("opening the last snapshot")
        engine = await self._opened(index, version)
        hosted = HostedIndex(index.id, version, self._store, engine, self._engines)
        try:
            await hosted.catch_up(lambda left: context.progress(f"{left:,} entries to read"))
        except BaseException:
            await engine.close()
            raise
        hosted.follow(lambda: self._gone(name))
        return hosted

    async def _opened(self, index: Index, version: Version) -> Engine:
        engine = await self._engines.open(index, version)
        try:
            if engine.applied <= (await self._store.seq(index.id) or 0):
                return engine
        except BaseException:
            await engine.close()
            raise
        # The store was set back to what it had before: this is of a past that is none.
        await engine.close()
        return await self._engines.open(index, version, fresh=True)

    def _gone(self, name: str) -> None:
        """A version is no more: it is put out as soon as nobody searches it."""
        metrics.forget_model(name)
        if self.let_go is not None:
            task = asyncio.ensure_future(self.let_go(name))
            self._farewells.add(task)
            task.add_done_callback(self._farewells.discard)


class HostedIndex:
    """`LoadedModel`: one version of an index in this process. Belongs to one event loop."""

    tasks: Sequence[Task] = (Task.SEARCH,)
    chat: ChatModel | None = None

    def __init__(
        self, index: str, version: Version, store: IndexStore, engine: Engine, engines: Engines
    ) -> None:
        self._engines = engines
        self._index = index
        self._version = version
        self._store = store
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._unsaved = 0
        self._gone = False
        self._following: asyncio.Task[None] | None = None

    @property
    def memory_bytes(self) -> int:
        return self._engine.memory_bytes

    def runner(self, task: Task) -> Runner:
        """Raises `WrongTask`."""
        if task is not Task.SEARCH:
            raise WrongTask(f"an index is searched, not asked for {task}")
        return _Searcher(self, self._loop)

    def follow(self, gone: Callable[[], None] = lambda: None) -> None:
        """Takes in what comes, until it is closed. `gone` is called when the version is no more: closed then,
        it removes what it has saved."""
        self._following = asyncio.create_task(self._follow(gone), name=f"follow {self._index}")

    async def close(self) -> None:
        if self._following is not None:
            await put_down(self._following)
        async with self._turn:
            try:
                if self._unsaved and not self._gone:
                    await self._save()
            finally:
                await self._engine.close()
            if self._gone:
                try:
                    await self._engines.discard(self._index, self._version)
                except (GoatherdError, OSError) as error:
                    _log.warning("what was kept of the index %s is left: %s", self._index, error)

    async def search(self, items: Sequence[Item]) -> list[Result]:
        await self.catch_up()
        answers = await self._engine.search([item.inputs for item in items])
        return [one if isinstance(one, GoatherdError) else Made(one) for one in answers]

    async def catch_up(self, progress: Callable[[int], None] = lambda _: None) -> None:
        """Until it has all that the store has now.

        Raises:
            NotFound: the index is no more.
            Unavailable: the store, or the engine, is away.
        """
        seq = await self._store.seq(self._index)
        if seq is None:
            raise NotFound("The index is no more.")
        if self._engine.applied >= seq:
            return
        # One after the other: who waited may find that there is nothing left to do.
        async with self._turn:
            if self._engine.applied >= seq:
                return
            for _ in range(_ROUNDS):
                await self._read(seq, progress)
                newest = await self._store.seq(self._index)
                if newest is None or newest <= seq:
                    return
                # Of a document that was written anew meanwhile the older entry was not there any more, and
                # the newer one came behind the end.
                seq = newest

    async def _read(self, upto: int, progress: Callable[[int], None]) -> None:
        # With 0, `deleted` ones would be left out.
        after = self._engine.applied or (-1 if self._engine.shared else 0)
        async for entries in self._store.entries(self._index, self._version.number, after=after, upto=upto):
            await self._engine.apply(entries, entries[-1].seq)
            self._unsaved += len(entries)
            progress(upto - self._engine.applied)
            if self._unsaved >= SAVE_AFTER:
                await self._save()
        await self._engine.apply([], upto)

    async def _follow(self, gone: Callable[[], None]) -> None:
        rest_since, applied = self._loop.time(), self._engine.applied
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                index = await self._store.index(self._index)
                if index is None or index.version(self._version.number) is None:
                    self._gone = True
                    gone()
                    return
                if index.seq > self._engine.applied:
                    await self.catch_up()
            except (Unavailable, NotFound):
                continue
            except Exception as error:
                # A search meets it again, and tells its caller.
                _log.error("the index %s can't follow its store", self._index, exc_info=error)
                continue
            if self._engine.applied != applied:
                rest_since, applied = self._loop.time(), self._engine.applied
            elif self._unsaved and self._loop.time() - rest_since >= SAVE_AT_REST_S:
                async with self._turn:
                    await self._save()

    async def _save(self) -> None:
        try:
            await self._engine.save()
        except (GoatherdError, OSError) as error:
            # What is not saved is read from the store again by whoever comes next.
            _log.warning("the index %s can't be saved: %s", self._index, error)
        self._unsaved = 0


class _Searcher:
    """`BlockingRunner`: batches are formed for it, one at a time, of all searches that wait."""

    def __init__(self, index: HostedIndex, loop: asyncio.AbstractEventLoop) -> None:
        self._index = index
        self._loop = loop

    def weigh(self, item: Item) -> int:
        return 1

    def run(self, items: Sequence[Item], cancelled: Event) -> list[Result]:
        return asyncio.run_coroutine_threadsafe(self._index.search(items), self._loop).result()
