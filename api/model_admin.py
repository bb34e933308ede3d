"""Models as they are seen and steered from outside: registered, listed with where they are loaded, put in and
out of memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from pydantic import BaseModel, Field
from temporalio.client import ActivityFailureError, ActivityHandle, Client
from temporalio.common import RetryPolicy
from temporalio.service import RPCError

from activities.ports import WorkerStatus
from api.inference_flight import HEARTBEAT_S, meaning
from api.model_registry import ModelRegistry
from api.placement import Place, Placement
from api.posted_models import check_posted
from goatherd.contracts.ids import new_id
from goatherd.contracts.inference import ModelWish
from goatherd.contracts.inference_tasks import Task, tasks_of
from goatherd.contracts.inference_work import (
    LOAD_MODEL,
    UNLOAD_MODEL,
    LoadModel,
    ModelEntry,
    Standing,
    UnloadModel,
)
from goatherd.contracts.model import Contract, Timestamp
from goatherd.errors import DeadlineExceeded, GoatherdError, Unavailable
from goatherd.settings import Settings
from goatherd.temporal import translate

_LOAD_WITHIN = timedelta(minutes=30)
"""A download of many gigabytes included."""
_TAKEN_WITHIN = timedelta(seconds=5)
_UNLOAD_WITHIN_S = 30.0
_ONCE = RetryPolicy(maximum_attempts=1)


class Whereabouts(Contract):
    """A model in one worker."""

    worker: str
    state: str = Field(description="`loading`, `ready` or `failed`.")
    detail: str = ""
    device: str = ""


class ModelDocument(Contract):
    """A model, what it is for, and where it is loaded now, as far as the workers have told."""

    name: str
    task: Task
    tasks: list[Task] = Field(description="All that it can be asked for.")
    spec: ModelWish
    origin: str = Field(description="`settings`, `file` (of settings), or `posted`: registered by a request.")
    created_at: Timestamp | None = None
    state: str = Field(description="`unloaded`, `loading`, `ready`, or `failed`: the best of all workers.")
    workers: list[Whereabouts]
    note: str | None = Field(None, description="What there is to say of what was just done.")


class ModelList(BaseModel):
    """All models, by name."""

    object: str = "list"
    data: list[ModelDocument]
    has_more: bool = False
    first_id: str | None
    last_id: str | None


class ModelAdmin:
    """What can be done with models besides asking them."""

    def __init__(
        self, client: Client, registry: ModelRegistry, placement: Placement, settings: Settings
    ) -> None:
        self._client = client
        self._registry = registry
        self._placement = placement
        self._settings = settings

    async def all(self) -> ModelList:
        workers = await self._workers()
        data = [_document(entry, workers) for entry in self._registry.entries()]
        return ModelList(
            data=data,
            first_id=data[0].name if data else None,
            last_id=data[-1].name if data else None,
        )

    async def one(self, name: str) -> ModelDocument:
        """Raises `ModelNotFound`."""
        return _document(self._registry.entry(name), await self._workers())

    async def register(self, name: str, spec: ModelWish, *, owner: str) -> ModelDocument:
        """Registers it for all processes. Raises `Invalid` if the spec can't be right, `NameTaken`."""
        check_posted(spec, self._settings)
        return _document(await self._registry.add(name, spec, owner=owner), await self._workers())

    async def remove(self, name: str) -> None:
        """Takes the name away, then the model out of the workers' memory. See `ModelRegistry.remove`."""
        await self._registry.remove(name)
        await self._unload(name)

    async def load(self, name: str, *, wait_s: float) -> ModelDocument:
        """Has a worker load it, if none has it. Waits for that, at most so long; it goes on by itself.

        Raises `Unavailable` if it can't be loaded, as the worker said.
        """
        entry = self._registry.entry(name)
        document = _document(entry, await self._workers())
        if document.state == "ready":
            return document
        place = await self._placement.choose(name, some_worker=True)
        order = LoadModel(model=name, spec=entry.spec)
        loading = await self._start(LOAD_MODEL, order, place, _LOAD_WITHIN)
        self._placement.forget()
        try:
            async with asyncio.timeout(wait_s):
                await _result(loading)
        except TimeoutError:
            return _with(document, "loading", place)
        finally:
            self._placement.forget()
        return _with(document, "ready", place)

    async def unload(self, name: str) -> ModelDocument:
        """Takes it out of all workers' memory, as soon as nobody uses it there. It is loaded again when it is
        asked for."""
        entry = self._registry.entry(name)
        await self._unload(name)
        document = _document(entry, [])
        if name != self._settings.model:
            return document
        note = "It is the default model: the next that is asked of it waits until it is loaded again."
        return document.model_copy(update={"note": note})

    async def check_health(self, entry: ModelEntry) -> None:
        """Raises `Unavailable` if the last try to load it failed, and no worker has it."""
        document = _document(entry, await self._workers())
        if document.state == "failed":
            why = next(one.detail for one in document.workers if one.state == "failed")
            raise Unavailable(why, code="model-unavailable", retry_after_s=5)

    async def _unload(self, name: str) -> None:
        having = [one for one in await self._workers() if one.queue and name in one.models]
        order = UnloadModel(model=name)
        try:
            async with asyncio.timeout(_UNLOAD_WITHIN_S), asyncio.TaskGroup() as group:
                for worker in having:
                    group.create_task(self._unload_from(order, worker))
        except TimeoutError:
            raise DeadlineExceeded(f"{name!r} is still in use; it goes when it is not any more.") from None
        finally:
            self._placement.forget()

    async def _unload_from(self, order: UnloadModel, worker: WorkerStatus) -> None:
        place = Place(worker.queue, worker.identity)
        within = timedelta(seconds=_UNLOAD_WITHIN_S)
        try:
            await _result(await self._start(UNLOAD_MODEL, order, place, within))
        except GoatherdError as error:
            # A worker that is gone has nothing in memory.
            if error.code == "worker-lost":
                self._placement.shun(place)

    async def _start(
        self, name: str, order: LoadModel | UnloadModel, place: Place, within: timedelta
    ) -> ActivityHandle[Standing]:
        try:
            started: ActivityHandle[Standing] = await self._client.start_activity(
                name,
                order,
                id=new_id("call"),
                task_queue=place.queue,
                result_type=Standing,
                schedule_to_close_timeout=within,
                schedule_to_start_timeout=_TAKEN_WITHIN,
                heartbeat_timeout=timedelta(seconds=HEARTBEAT_S),
                retry_policy=_ONCE,
                rpc_timeout=timedelta(seconds=self._settings.ask_timeout_s),
            )
        except RPCError as error:
            raise translate(error) from error
        return started

    async def _workers(self) -> list[WorkerStatus]:
        return await self._placement.workers()


async def _result(handle: ActivityHandle[Standing]) -> Standing:
    try:
        return await handle.result()
    except ActivityFailureError as error:
        found = meaning(error)
        if isinstance(found, GoatherdError):
            raise found from error
        raise Unavailable("The worker was lost. Try again.", code="worker-lost") from error
    except RPCError as error:
        raise translate(error) from error


def _document(entry: ModelEntry, workers: Sequence[WorkerStatus]) -> ModelDocument:
    found = []
    for worker in workers:
        if entry.name in worker.models:
            state, detail = worker.standing(entry.name)
            if state == "unloaded":
                continue
            found.append(
                Whereabouts(worker=worker.identity, state=state, detail=detail, device=worker.device)
            )
    states = {one.state for one in found}
    state = next((one for one in ("ready", "loading", "failed") if one in states), "unloaded")
    return ModelDocument(
        name=entry.name,
        task=entry.spec.task,
        tasks=list(tasks_of(entry.spec.task)),
        spec=entry.spec,
        origin=entry.origin,
        created_at=entry.created_at,
        state=state,
        workers=found,
    )


def _with(document: ModelDocument, state: str, place: Place) -> ModelDocument:
    """What the workers will soon say of themselves."""
    there = Whereabouts(worker=place.worker or "", state=state)
    others = [one for one in document.workers if one.worker != there.worker]
    return document.model_copy(update={"state": state, "workers": [*others, there]})
