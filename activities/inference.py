"""The activities of inference: thin shells around the models that a worker hosts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

from temporalio import activity

from activities.attending import attended, beating, handed_over
from activities.blobs import Blobs
from activities.generating import PieceWriter, generate, request_of
from activities.inference_items import ItemReader, problem
from activities.inference_ports import Computed, HostedModel, Item, Made, ModelHost, Result
from activities.model_ports import PieceFeed
from goatherd.contracts.inference_tasks import SHAPES, Media, Task
from goatherd.contracts.inference_work import (
    INFER,
    LOAD_MODEL,
    UNLOAD_MODEL,
    InferAnswer,
    InferOrder,
    LoadModel,
    Outcome,
    Standing,
    UnloadModel,
    WorkItem,
)
from goatherd.errors import DeadlineExceeded, GoatherdError, TooManyRequests, WrongTask
from goatherd.telemetry import metrics
from goatherd.temporal import failure

TEXTS_AT_ONCE = 400
"""Orders for generated text that one worker has in hand. Fewer than it takes orders at all
(`workers/pools.py`): texts last, and other calls need not wait for them."""
FILES_AT_ONCE = 16
"""Orders whose large files one worker has in memory. One has at most 32 MB (`api/inference_groups.py`)."""

_log = logging.getLogger(__name__)
_TALKS = (Task.CONVERSATIONAL, Task.TEXT_GENERATION)


class InferenceActivities:
    """What is asked of models."""

    def __init__(
        self,
        models: ModelHost,
        *,
        pieces: PieceFeed | None = None,
        blobs: Blobs | None = None,
        worker: str = "",
        texts_at_once: int = TEXTS_AT_ONCE,
    ) -> None:
        """`pieces`: where text is shown while it is made; `blobs`: where large files are; `worker`: us."""
        self._models = models
        self._texts_at_once = texts_at_once
        self._texts = 0
        self._files = asyncio.Semaphore(FILES_AT_ONCE)
        self._pieces = pieces
        self._blobs = blobs
        self._worker = worker

    @activity.defn(name=INFER)
    async def infer(self, order: InferOrder) -> InferAnswer:
        """Has a model compute the order's items, each with an outcome of its own.

        What concerns all of them fails the activity: the model can't be had, or is not for this task.
        Cancelled, it frees the model at once.
        """
        try:
            async with beating():
                if order.task in _TALKS:
                    with self._text_in_hand():
                        return await self.answer(order)
                return await self.answer(order)
        except GoatherdError as error:
            self._count(order, [error.code] * len(order.items))
            raise failure(error) from error
        except asyncio.CancelledError:
            self._count(order, ["cancelled"] * len(order.items))
            if (over := handed_over("the call")) is not None:
                raise over from None
            raise

    @activity.defn(name=LOAD_MODEL)
    async def load_model(self, order: LoadModel) -> Standing:
        """Loads a model on this worker."""
        async with attended("the load"):
            return await self._models.load(order.model, order.spec)

    @activity.defn(name=UNLOAD_MODEL)
    async def unload_model(self, order: UnloadModel) -> Standing:
        """Puts a model out, as soon as nobody uses it here. Cancelled, that goes on by itself."""
        async with attended("the unload"):
            return await self._models.unload(order.model)

    @contextmanager
    def _text_in_hand(self) -> Iterator[None]:
        if self._texts >= self._texts_at_once:
            raise TooManyRequests("This worker makes as many texts as it may. Try again in a moment.")
        self._texts += 1
        try:
            yield
        finally:
            self._texts -= 1

    async def answer(self, order: InferOrder) -> InferAnswer:
        """What `infer` answers. Raises what concerns the whole order, as an error of ours."""
        if self._blobs is None or not any(_has_claim(item) for item in order.items):
            return await self._answer(order)
        async with self._files:
            return await self._answer(order)

    async def _answer(self, order: InferOrder) -> InferAnswer:
        results: list[Result | None] = [None] * len(order.items)
        items: list[tuple[int, Item]] = []
        reader = ItemReader(order.task, order.spec)
        for place, item in enumerate(order.items):
            try:
                items.append((place, await self._fetched(reader.read(item))))
            except GoatherdError as error:
                results[place] = error
        batch = 0
        if items:
            computed = await self._compute(order, [item for _, item in items], [place for place, _ in items])
            for (place, _), one in zip(items, computed, strict=True):
                results[place] = one.result
                batch = max(batch, one.batch)
        outcomes = [await self._outcome(order, result) for result in results if result is not None]
        self._count(order, [one.problem.code if one.problem else "ok" for one in outcomes])
        return InferAnswer(outcomes=outcomes, worker=self._worker, batch=batch)

    async def _fetched(self, item: Item) -> Item:
        """The same, with the bytes of a file that came by claim."""
        if not isinstance(item.inputs, Media) or item.inputs.claim is None or self._blobs is None:
            return item
        return Item(await self._blobs.fetch(item.inputs), item.parameters)

    async def _compute(
        self, order: InferOrder, items: Sequence[Item], places: Sequence[int]
    ) -> Sequence[Computed]:
        async with AsyncExitStack() as stack:
            left = None if order.deadline is None else order.deadline - time.time()
            try:
                async with asyncio.timeout(None if left is None else max(0.0, left)):
                    hosted = await stack.enter_async_context(self._models.use(order.model, order.spec))
            except TimeoutError:
                late = DeadlineExceeded(f"The model {order.model!r} was not loaded in time. Try again.")
                return [Computed(late)] * len(items)
            if order.task not in hosted.loaded.tasks:
                served = ", ".join(hosted.loaded.tasks)
                raise WrongTask(f"the model {order.model!r} is for {served}, not for {order.task}")
            if order.task in _TALKS:
                return await self._generate(order, hosted, items)
            callers = [order.items[place].caller for place in places]
            return await hosted.compute(order.task, items, callers=callers, deadline=order.deadline)

    async def _generate(
        self, order: InferOrder, hosted: HostedModel, items: Sequence[Item]
    ) -> Sequence[Computed]:
        if order.deadline is not None and order.deadline <= time.time():
            late = DeadlineExceeded("The deadline passed before the text was begun.")
            return [Computed(late)] * len(items)
        stream = order.stream if len(order.items) == 1 else None
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._text(order, hosted, item, stream)) for item in items]
        return [Computed(task.result(), 1) for task in tasks]

    async def _text(self, order: InferOrder, hosted: HostedModel, item: Item, stream: str | None) -> Result:
        model = hosted.loaded.chat
        if model is None:
            return WrongTask(f"the model {order.model!r} does not talk")
        began = time.monotonic()
        try:
            async with PieceWriter(self._pieces, stream) as pieces:
                return await generate(model, request_of(item, order.spec), pieces)
        except GoatherdError as error:
            return error
        except Exception as error:
            _log.error("text generation of %s failed", order.model, exc_info=error)
            return GoatherdError(f"the model {order.model!r} failed: {type(error).__name__}")
        finally:
            took = time.monotonic() - began
            metrics.INFER_COMPUTE_SECONDS.labels(order.model, order.task).observe(took)

    async def _outcome(self, order: InferOrder, result: Result) -> Outcome:
        if isinstance(result, GoatherdError):
            return Outcome(problem=problem(result))
        try:
            output = await self._output(order, result)
        except GoatherdError as error:
            return Outcome(problem=problem(error))
        if result.usage is not None:
            count = metrics.INFER_TOKENS.labels
            count(order.model, order.task, "in").inc(result.usage.input_tokens)
            count(order.model, order.task, "out").inc(result.usage.output_tokens)
        return Outcome(
            output=output,
            usage=result.usage,
            finish=result.finish,
            tokens=result.tokens,
            passed_on=result.passed_on,
        )

    async def _output(self, order: InferOrder, made: Made) -> object:
        if self._blobs is not None:
            return await self._blobs.stow_output(order.task, made.output, order.owner)
        return SHAPES[order.task].read_output.dump_python(made.output, mode="json", exclude_none=True)

    def _count(self, order: InferOrder, outcomes: Sequence[str]) -> None:
        for outcome in outcomes:
            metrics.INFER_ITEMS.labels(order.model, order.task, outcome).inc()


def _has_claim(item: WorkItem) -> bool:
    return isinstance(item.inputs, dict) and bool(item.inputs.get("claim"))
