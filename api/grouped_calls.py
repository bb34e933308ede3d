"""Calls of what workers host, put together with those of other callers, and sent where it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import orjson
from pydantic import ValidationError
from temporalio.client import Client

from activities.blobs import Blobs
from api.inference_flight import Flights
from api.inference_groups import Group
from api.placement import Placement
from goatherd.contracts.ids import new_id
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import SHAPES, Media, Task, tasks_of
from goatherd.contracts.inference_work import InferAnswer, InferOrder, ModelEntry, Outcome, WorkItem
from goatherd.errors import DeadlineExceeded, GoatherdError, Invalid, WrongTask
from goatherd.payloads import PayloadStore
from goatherd.telemetry import get_logger
from goatherd.waiting import put_down

_FLIGHTS = 2
_FLIGHTS_ALONE = 64
"""Orders of one model and task that are under way at the same time: of several inputs, and of one each."""
_MOST_GROUPS = 1_000
_WINDOW = 512
"""Inputs of one request that wait at the same time."""

log = get_logger(__name__)


class GroupedCalls:
    """Belongs to one event loop; `close` ends what is under way."""

    def __init__(self, client: Client, placement: Placement, payloads: PayloadStore | None) -> None:
        self._blobs = Blobs(payloads, client.namespace if payloads is not None else "")
        self.flights = Flights(client, placement, self._blobs)
        self._groups: dict[tuple[str, Task], tuple[ModelSpec, Group]] = {}
        self._chores: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        await put_down(*self._chores)
        for _, group in self._groups.values():
            await group.close()

    async def run(
        self,
        entry: ModelEntry,
        task: Task,
        items: Sequence[WorkItem],
        *,
        caller: str,
        timeout_s: float | None = None,
    ) -> list[Outcome]:
        """See `Inference.run`. Files in outcomes come with their bytes."""
        check_task(entry, task)
        deadline = deadline_of(entry, timeout_s)
        group = self._group(entry, task)
        group.admit()
        owner = new_id("call")
        window = asyncio.Semaphore(_WINDOW)

        async def one(place: int) -> Outcome:
            async with window:
                ready, files = await self._ready(task, items[place], caller, owner)
                if files and isinstance(items, list):
                    items[place] = ready  # Its bytes are in the store now, and not needed here any more.
                return await group.submit(ready, _size(ready), deadline, files=files)

        try:
            async with asyncio.timeout(max(deadline - time.time(), 0.001)):
                if len(items) == 1:
                    return [await one(0)]
                async with asyncio.TaskGroup() as together:
                    outcomes = [together.create_task(one(place)) for place in range(len(items))]
            return [outcome.result() for outcome in outcomes]
        except TimeoutError:
            raise DeadlineExceeded("The model gave no answer in time.") from None
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            if SHAPES[task].media:
                self._later(self._blobs.drop(owner))

    def _group(self, entry: ModelEntry, task: Task) -> Group:
        key = (entry.name, task)
        spec, group = self._groups.get(key, (None, None))
        if group is not None and (spec is entry.spec or spec == entry.spec):
            return group
        limits = entry.spec.limits
        grouped = SHAPES[task].grouped

        async def send(items: Sequence[WorkItem], deadline: float) -> InferAnswer:
            return await self._send(order_of(entry, task, items, deadline))

        group = Group(
            send,
            most=limits.batch if grouped else 1,
            flights=_FLIGHTS if grouped else _FLIGHTS_ALONE,
            queue=limits.queue,
        )
        if len(self._groups) >= _MOST_GROUPS:
            # Of models, and versions of indexes, that nobody asks at the moment, or ever again.
            self._groups = {key: known for key, known in self._groups.items() if not known[1].idle}
        # An older one of another spec ends what it has; its calls hold it.
        self._groups[key] = (entry.spec, group)
        return group

    async def _send(self, order: InferOrder) -> InferAnswer:
        answer = await self.flights.fly(order)
        if SHAPES[order.task].output is not Media:
            return answer
        try:
            outcomes = [await self._with_bytes(outcome) for outcome in answer.outcomes]
            return answer.model_copy(update={"outcomes": outcomes})
        finally:
            self._later(self._blobs.drop(order.owner))

    async def _ready(self, task: Task, item: WorkItem, caller: str, owner: str) -> tuple[WorkItem, int]:
        """The item as it is sent: whose it is, and a large file by its claim. And how many bytes that has."""
        inputs, files = item.inputs, 0
        if SHAPES[task].media:
            given = _own(inputs)
            media = await self._blobs.stow(given, owner)
            files = len(given.data) if media.claim is not None else 0
            inputs = media.model_dump(mode="json", exclude_none=True)
        return item.model_copy(update={"caller": caller, "inputs": inputs}), files

    async def _with_bytes(self, outcome: Outcome) -> Outcome:
        if outcome.output is None:
            return outcome
        media = await self._blobs.fetch(Media.model_validate(outcome.output))
        return outcome.model_copy(update={"output": media.model_dump(mode="json", exclude_none=True)})

    def _later(self, chore: Coroutine[Any, Any, None]) -> None:
        """Nobody waits for it; what fails is swept some time."""

        async def do() -> None:
            try:
                await chore
            except GoatherdError as error:
                log.debug("could not drop large files", error=error.message)

        task = asyncio.create_task(do())
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


def check_task(entry: ModelEntry, task: Task) -> None:
    """Raises `WrongTask` unless the model is for that task."""
    able = tasks_of(entry.spec.task)
    if task not in able:
        raise WrongTask(f"{entry.name!r} is a model for {', '.join(able)}, not for {task}.")


def _own(inputs: Any) -> Media:
    """A caller's file. What it may say of a claim does not count: claims are other people's files, too."""
    if isinstance(inputs, Media):
        return inputs.model_copy(update={"claim": None})
    try:
        return Media.model_validate({**inputs, "claim": None})
    except (ValidationError, TypeError):
        raise Invalid("The input is to be an image or a sound: its bytes.", pointer="/inputs") from None


def deadline_of(entry: ModelEntry, timeout_s: float | None) -> float:
    most = entry.spec.limits.timeout_s
    return time.time() + min(most if timeout_s is None else timeout_s, most)


def order_of(entry: ModelEntry, task: Task, items: Sequence[WorkItem], deadline: float) -> InferOrder:
    return InferOrder(
        model=entry.name,
        task=task,
        items=list(items),
        spec=entry.spec,
        owner=new_id("call"),
        deadline=deadline,
    )


def _size(item: WorkItem) -> int:
    """Bytes, roughly."""
    inputs = item.inputs
    return len(inputs) if isinstance(inputs, str) else len(orjson.dumps(inputs))
