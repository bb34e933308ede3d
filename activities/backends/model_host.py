"""The models of a process: loaded when they are used, kept while there is room, put out for others.

Belongs to one event loop; models are loaded in threads.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

from activities.backends.batching import Batches
from activities.backends.machine import Machine, survey
from activities.backends.model_memory import Resident, Room
from activities.backends.providers import not_installed, provider
from activities.backends.resting import Rest
from activities.inference_ports import Computed, Item, LoadContext, LoadedModel, Provider
from activities.model_ports import ModelCatalog
from activities.ports import ChatModel, ChatRequest
from goatherd.contracts.inference import Chunk, Finish, ModelSpec
from goatherd.contracts.inference import Provider as ProviderName
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.inference_work import Standing
from goatherd.errors import GoatherdError, ModelNotFound, Unavailable, WrongTask
from goatherd.settings import Settings
from goatherd.telemetry import metrics
from goatherd.waiting import put_down

FOLLOW_S = 2.0
"""How soon a model that was registered or changed elsewhere is known here, if nobody asks for it sooner."""
_LOADS_AT_ONCE = 4
_MOST_FAILED = 200
_TALKS = (Task.CONVERSATIONAL, Task.TEXT_GENERATION)

_log = logging.getLogger(__name__)

Progress = Callable[[str], None]


@dataclass(eq=False)
class Hosted(Resident):
    """One model by its spec, from the wish to load it to its end. See `HostedModel`."""

    spec: ModelSpec = field(kw_only=True)
    load: asyncio.Task[LoadedModel] | None = None
    step: str = ""
    """How far the load is, for people."""
    watchers: list[Progress] = field(default_factory=list)
    batches: Batches | None = None
    leaving: bool = False
    """To be closed as soon as nobody uses it."""
    closing: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> LoadedModel:
        assert self.load is not None
        return self.load.result()

    async def compute(
        self, task: Task, items: Sequence[Item], *, callers: Sequence[str], deadline: float | None = None
    ) -> list[Computed]:
        """See `HostedModel.compute`."""
        assert self.batches is not None
        if task not in self.loaded.tasks:
            served = ", ".join(self.loaded.tasks)
            raise WrongTask(f"the model {self.name!r} is for {served}, not for {task}")
        return await self.batches.compute(task, items, callers=callers, deadline=deadline)


class ModelHost:
    """`ModelHost` and `ModelHub` over the models of the settings and of a catalog.

    A model is known by its name, and loaded as a spec says: with another spec under the same name, the new
    one is loaded, and the old one goes when those that use it are done.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: ModelCatalog | None = None,
        providers: Callable[[ProviderName], Provider] = provider,
        machine: Machine | None = None,
        wait_s: float = 5.0,
        room: Room | None = None,
    ) -> None:
        """`wait_s`: how long a load waits for models in use to make room. `room`: default, what the settings
        give models."""
        self._settings = settings
        self._catalog = catalog
        self._providers = providers
        self.machine = machine or survey()
        given = settings.model_memory_mb
        budget = given << 20 if given is not None else self.machine.for_models
        self._room = room or Room(budget, wait_s=wait_s)
        self._generating = ThreadPoolExecutor(settings.inference_slots, thread_name_prefix="inference")
        self._loading = ThreadPoolExecutor(_LOADS_AT_ONCE, thread_name_prefix="load")
        self._current: dict[str, Hosted] = {}
        self._leaving: list[Hosted] = []
        self._failed: dict[str, tuple[ModelSpec, str]] = {}
        self._unloaded: set[str] = set()
        """What was ready, and is so again when it is asked for."""
        self._registered: dict[str, ModelSpec] = {}
        self._chats: dict[str, _Chat] = {}
        self._closings: set[asyncio.Task[None]] = set()
        self._rest = Rest()

    # -- what is known

    @property
    def specs(self) -> dict[str, ModelSpec]:
        """By name; the settings win over the catalog."""
        return {**self._registered, **self._settings.models}

    @property
    def used_bytes(self) -> int:
        return self._room.used

    @property
    def memory_bytes(self) -> int:
        """What the models may take together."""
        return self._room.budget

    def states(self) -> dict[str, str]:
        """See `ModelHub.states`."""
        found = dict.fromkeys(sorted(self._unloaded), "unloaded")
        found |= {name: f"failed: {why}" for name, (_, why) in self._failed.items()}
        for name, hosted in self._current.items():
            if hosted.load is not None and not hosted.load.done():
                found[name] = f"loading: {hosted.step}" if hosted.step else "loading"
            elif hosted.batches is not None:
                found[name] = "ready"
        return found

    async def spec(self, name: str) -> ModelSpec:
        """Raises `ModelNotFound`; an unknown name is looked up in the catalog first."""
        found = self.specs.get(name)
        if found is None and self._catalog is not None:
            await self.look()
            found = self.specs.get(name)
        if found is None:
            known = ", ".join(repr(known) for known in self.specs)
            raise ModelNotFound(f"no model is called {name!r}; there are {known}")
        return found

    async def run(self) -> None:
        """Follows the catalog, and gives memory back in times of rest; until cancelled."""
        while True:
            try:
                await self.look()
            except GoatherdError as error:
                _log.warning("the registered models can't be read: %s", error.message)
            await self.measure_again()
            if not any(hosted.users for hosted in self._current.values()):
                await self._rest.look()
            await asyncio.sleep(FOLLOW_S)

    async def measure_again(self) -> None:
        """What grows while it is loaded, as indexes do."""
        for hosted in list(self._current.values()):
            if hosted.batches is None or hosted.closing is not None or hosted.spec.memory_mb is not None:
                continue
            if (size := hosted.loaded.memory_bytes) == hosted.bytes:
                continue
            try:
                await self._room.correct(hosted, size, self._put_out)
            except Unavailable as error:
                # It is there already. Whoever comes next finds less room.
                _log.warning("%s", error.message)
            metrics.MODEL_MEMORY.labels(hosted.name).set(hosted.bytes)

    async def look(self) -> None:
        """Once at the catalog: what is not in it any more goes, what changed and is here is loaded anew."""
        if self._catalog is None:
            return
        registered = {entry.name: entry.spec for entry in await self._catalog.all()}
        before, self._registered = self._registered, registered
        for name in before.keys() | registered.keys():
            if name in self._settings.models or before.get(name) == (spec := registered.get(name)):
                continue
            if name in self._failed and self._failed[name][0] != spec:
                del self._failed[name]
            here = self._current.get(name)
            if spec is None:
                self._unloaded.discard(name)
                if here is not None:
                    self._let_go(here)
            elif spec.pinned or (here is not None and not _loads_alike(here.spec, spec)):
                self._begin(name, spec)

    # -- using models

    async def get(self, name: str, *, progress: Progress | None = None) -> ChatModel:
        """See `ModelHub.get`. `progress` is called on the event loop. A failed load is tried again when asked
        for again; one that its askers gave up waiting for goes on. What is given stays good when the model is
        put out: it is loaded again for the next reply."""
        spec = await self.spec(name)
        async with self._using(name, spec, progress) as hosted:
            if hosted.loaded.chat is None:
                raise WrongTask(f"the model {name!r} is for {spec.task}: it does not talk")
        return self._chats.setdefault(name, _Chat(self, name))

    def use(self, name: str, spec: ModelSpec) -> AbstractAsyncContextManager[Hosted]:
        """See the port."""
        return self._using(name, spec, None)

    @asynccontextmanager
    async def _using(self, name: str, spec: ModelSpec, progress: Progress | None) -> AsyncIterator[Hosted]:
        hosted = self._begin(name, spec)
        hosted.users += 1
        try:
            assert hosted.load is not None
            if not hosted.load.done():
                if progress is not None:
                    hosted.watchers.append(progress)
                await asyncio.shield(hosted.load)
            hosted.load.result()
            yield hosted
        finally:
            hosted.users -= 1
            self._rest.worked()
            self._room.touch(hosted)
            if hosted.leaving and not hosted.users:
                self._close_soon(hosted)

    async def load(self, name: str, spec: ModelSpec) -> Standing:
        """See the port."""
        async with self.use(name, spec) as hosted:
            return Standing(state="ready", detail=f"{hosted.bytes >> 20} MB")

    async def unload(self, name: str) -> Standing:
        """See the port. Pinned ones, too."""
        self._failed.pop(name, None)
        hosted = self._current.get(name)
        if hosted is not None:
            self._let_go(hosted)
        await self._closed()
        return Standing(state="unloaded")

    async def preload(self, name: str, progress: Progress) -> None:
        """Loads a model before anybody asks for it. Raises what `get` and `load` do."""
        async with self._using(name, await self.spec(name), progress):
            pass

    async def close(self) -> None:
        """Takes no more. Replies that wait for their turn end with `Unavailable`; those under way go on."""
        self._generating.shutdown(wait=False, cancel_futures=True)
        self._loading.shutdown(wait=False, cancel_futures=True)
        everyone = [*self._current.values(), *self._leaving]
        self._current.clear()
        self._leaving.clear()
        for hosted in everyone:
            if hosted.load is not None:
                await put_down(hosted.load)
            if hosted.batches is not None:
                await hosted.batches.close()
        await self._closed()

    # -- from the wish to the end

    def _begin(self, name: str, spec: ModelSpec) -> Hosted:
        """The model as `spec` says: here, on its way, or to be loaded from now on."""
        here = self._current.get(name)
        for hosted in ([here] if here else []) + self._leaving:
            if hosted.name == name and not hosted.closed and _loads_alike(hosted.spec, spec):
                hosted.spec = spec
                hosted.pinned = spec.pinned
                if hosted.batches is not None:
                    hosted.batches.limits = spec.limits
                return hosted
        if here is not None:
            self._let_go(here)
        hosted = self._current[name] = Hosted(name, spec=spec, pinned=spec.pinned)
        self._failed.pop(name, None)
        self._unloaded.discard(name)
        hosted.load = asyncio.create_task(self._load(hosted), name=f"load {name}")
        hosted.load.add_done_callback(lambda done: self._loaded(hosted, done))
        return hosted

    async def _load(self, hosted: Hosted) -> LoadedModel:
        name, spec = hosted.name, hosted.spec
        loop = asyncio.get_running_loop()

        def tell(text: str) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(_tell, hosted, text)

        context = LoadContext(
            cache=self._settings.cache,
            executor=self._generating,
            threads=self._settings.torch_threads,
            progress=tell,
        )
        began = loop.time()
        maker = self._providers(spec.provider)
        need = await self._in_thread(_estimate, maker, name, spec, context)
        await self._room.take(hosted, need, self._put_out)
        try:
            loaded: LoadedModel = await self._in_thread(_load, maker, name, spec, context)
        except BaseException:
            self._room.give_back(hosted)
            raise
        measured = spec.memory_mb << 20 if spec.memory_mb is not None else loaded.memory_bytes
        try:
            await self._room.correct(hosted, measured, self._put_out)
        except BaseException:
            self._room.give_back(hosted)
            await loaded.close()
            raise
        hosted.batches = Batches(name, loaded, spec.limits)
        metrics.MODEL_LOAD_SECONDS.labels(name).observe(loop.time() - began)
        metrics.MODEL_MEMORY.labels(name).set(hosted.bytes)
        return loaded

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._loading, work, *arguments)

    def _loaded(self, hosted: Hosted, load: asyncio.Task[LoadedModel]) -> None:
        hosted.watchers.clear()
        self._room.touch(hosted)
        error = None if load.cancelled() else load.exception()
        if not load.cancelled() and error is None:
            metrics.MODEL_LOADS.labels(hosted.name, "ok").inc()
            if hosted.leaving and not hosted.users:
                self._close_soon(hosted)
            return
        metrics.MODEL_LOADS.labels(hosted.name, "failed").inc()
        hosted.closed = True
        if hosted in self._leaving:
            self._leaving.remove(hosted)
        if self._current.get(hosted.name) is hosted:
            del self._current[hosted.name]
            if error is not None and not (isinstance(error, GoatherdError) and error.code == "no-room"):
                why = error.message if isinstance(error, GoatherdError) else repr(error)
                self._failed[hosted.name] = hosted.spec, why
                while len(self._failed) > _MOST_FAILED:
                    del self._failed[next(iter(self._failed))]

    def _let_go(self, hosted: Hosted) -> None:
        """Nobody new gets it; it is closed when the last one is done with it."""
        if self._current.get(hosted.name) is hosted:
            del self._current[hosted.name]
        hosted.leaving = True
        self._leaving.append(hosted)
        if not hosted.users and hosted.load is not None and hosted.load.done():
            self._close_soon(hosted)

    def _close_soon(self, hosted: Hosted) -> None:
        if hosted.closed or hosted.batches is None:  # one that still loads is closed when it has
            return
        self._begin_close(hosted)

    def _begin_close(self, hosted: Hosted) -> asyncio.Task[None]:
        """In a task of its own: whoever waits for it may leave, and it goes on. Memory that is still taken
        must not count as free."""
        hosted.closed = True
        closing = hosted.closing = asyncio.create_task(self._close(hosted), name=f"close {hosted.name}")
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)
        return closing

    async def _closed(self) -> None:
        """Until all that is being closed is. Cancelled, it cancels none of that."""
        if self._closings:
            await asyncio.wait(self._closings)

    async def _put_out(self, resident: Resident) -> None:
        """For another, of the room's choice."""
        hosted = cast(Hosted, resident)
        if hosted.closing is not None:  # on its way out already
            await asyncio.shield(hosted.closing)
            return
        closing = self._begin_close(hosted)
        if self._current.get(hosted.name) is hosted:
            del self._current[hosted.name]
        _log.info("putting out the model %s for another", hosted.name)
        metrics.MODEL_EVICTIONS.labels(hosted.name).inc()
        await asyncio.shield(closing)

    async def _close(self, hosted: Hosted) -> None:
        try:
            assert hosted.batches is not None
            await hosted.batches.close()
            await hosted.loaded.close()
        except Exception as error:
            # Whatever a provider does at its end: its memory counts as free, as nothing uses it any more.
            _log.error("the model %s did not close well", hosted.name, exc_info=error)
        finally:
            hosted.load = hosted.batches = None
            if hosted in self._leaving:
                self._leaving.remove(hosted)
            if hosted.bytes:
                # Models are full of cycles: what nobody refers to is still in memory until then.
                await asyncio.to_thread(gc.collect)
            self._room.give_back(hosted)
            if hosted.name not in self._current:
                metrics.MODEL_MEMORY.labels(hosted.name).set(0)
                if hosted.name in self.specs:
                    self._unloaded.add(hosted.name)


class _Chat:
    """A chat model by its name: in use while it replies."""

    def __init__(self, host: ModelHost, name: str) -> None:
        self._host = host
        self._name = name

    async def stream(self, request: ChatRequest) -> AsyncIterator[Chunk | Finish]:
        """See `ChatModel.stream`."""
        async with self._host.use(self._name, await self._host.spec(self._name)) as hosted:
            chat = hosted.loaded.chat
            if chat is None:
                raise WrongTask(f"the model {self._name!r} does not talk any more")
            async with aclosing(cast(Any, chat.stream(request))) as pieces:
                async for piece in pieces:
                    yield piece


def _tell(hosted: Hosted, text: str) -> None:
    hosted.step = text.removeprefix(f"loading {hosted.name}: ")
    for watcher in hosted.watchers:
        watcher(text)


def _estimate(maker: Provider, name: str, spec: ModelSpec, context: LoadContext) -> int:
    if spec.memory_mb is not None:
        return spec.memory_mb << 20
    try:
        return maker.estimate(name, spec, context)
    except ImportError as error:
        raise not_installed(spec.provider, error) from error


def _load(maker: Provider, name: str, spec: ModelSpec, context: LoadContext) -> LoadedModel:
    try:
        maker.check(name, spec)
        return maker.load(name, spec, context)
    except ImportError as error:
        raise not_installed(spec.provider, error) from error


def _loads_alike(one: ModelSpec, other: ModelSpec) -> bool:
    """Whether a model loaded as one serves as the other: what is looked at with each call does not count."""
    return one is other or _loaded_by(one) == _loaded_by(other)


def _loaded_by(spec: ModelSpec) -> ModelSpec:
    later: dict[str, object] = {"parameters": None, "pinned": None}
    if spec.task not in _TALKS:  # a model that talks makes its own batches
        later["limits"] = None
    return spec.model_copy(update=later)
