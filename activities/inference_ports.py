"""What the inference pool needs of those who can load models and run them, as protocols.

A provider (`activities/backends/providers.py` names them) loads a model by its spec; what it gives has a
runner for each of its tasks. Runners know nothing of queues, callers, or Temporal:
`activities/backends/batching.py` forms the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from activities.ports import ChatModel
from goatherd.contracts.inference import Finish, ModelSpec, Token
from goatherd.contracts.inference_tasks import Parameters, Task
from goatherd.contracts.inference_work import Standing, TextUsage
from goatherd.contracts.model import Json
from goatherd.errors import GoatherdError


@dataclass(frozen=True, slots=True)
class Item:
    """One input of the task's input type (`SHAPES`), with parameters of its parameters' type."""

    inputs: Any
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class Made:
    """What became of an item: `output` of the task's output type."""

    output: Any
    usage: TextUsage | None = None
    finish: Finish | None = None
    tokens: list[Token] | None = None
    passed_on: Json | None = None


Result = Made | GoatherdError
"""An item that fails has its error here, and no other item of its batch fails for it."""


class BlockingRunner(Protocol):
    """One task of a model in this process. Called in a thread, one batch at a time."""

    def weigh(self, item: Item) -> int:
        """How large it is, as the model will see it: in tokens, or whatever a batch is padded in. 1 where
        inputs are all alike. Cheap: batches are put together by it, inputs of like size in one.

        Called in a thread too, but maybe while another batch runs. Raises `Invalid` if it can't be computed.
        """

    def run(self, items: Sequence[Item], cancelled: Event) -> list[Result]:
        """Computes them together, each result in its item's place.

        Parameters may differ from item to item. If `cancelled` is set while it computes, it may stop, with
        whatever it has for those that are not done: nobody waits for them.
        Raises only what concerns all of them: `Unavailable` (`out-of-memory`), or what can't be foreseen.
        """


class AsyncRunner(Protocol):
    """One task of a model elsewhere. Several batches may be under way at once."""

    def weigh(self, item: Item) -> int: ...

    async def run(self, items: Sequence[Item]) -> list[Result]:
        """See `BlockingRunner.run`. Cancelled, it has the other side stop if that can be had."""


Runner = BlockingRunner | AsyncRunner


class LoadedModel(Protocol):
    """A model that is ready."""

    @property
    def memory_bytes(self) -> int:
        """What it takes of this process's memory (or its device's); 0 if it is elsewhere."""

    @property
    def tasks(self) -> Sequence[Task]:
        """Those that it can be asked for. Its spec's task comes first."""

    def runner(self, task: Task) -> Runner:
        """Raises `Invalid` (`wrong-task`) unless it is one of `tasks`, or if it is one of generated text."""

    @property
    def chat(self) -> ChatModel | None:
        """For `conversational` and `text-generation`, if these are among `tasks`."""

    async def close(self) -> None:
        """Frees what it holds. Nothing of it runs, and nothing is asked of it any more."""


@dataclass(frozen=True, slots=True)
class LoadContext:
    """What a provider may use to load, and then to run."""

    cache: Path
    """Where prepared files are kept."""
    executor: Executor
    """Threads in which requests for generated text are prepared: their prompts are made tokens of."""
    threads: int | None = None
    """Those of one computation in torch, for the whole process. None: one for each core."""
    progress: Callable[[str], None] = lambda _: None


class Provider(Protocol):
    """Loads models of one kind."""

    def check(self, name: str, spec: ModelSpec) -> None:
        """Raises `Invalid` if the spec can't be right: an option that it does not know, a task that it has
        not. Light: called where models are registered, without any heavy import."""

    def prepare(self, name: str, spec: ModelSpec, context: LoadContext) -> None:
        """Fetches and converts files, if there are any. Blocks, for up to minutes. Raises `Unavailable`."""

    def estimate(self, name: str, spec: ModelSpec, context: LoadContext) -> int:
        """Bytes that it will take when loaded, by its files; 0 if nobody can tell before."""

    def load(self, name: str, spec: ModelSpec, context: LoadContext) -> LoadedModel:
        """Blocks: seconds, or minutes the first time. Raises `Unavailable` (`model-unavailable`) whatever
        keeps it from being loaded; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Computed:
    """A result, and how many inputs were computed together with it (itself too); 0 if it was not computed."""

    result: Result
    batch: int = 0


class HostedModel(Protocol):
    """A model while it is used: it stays in memory as long."""

    @property
    def loaded(self) -> LoadedModel: ...

    async def compute(
        self, task: Task, items: Sequence[Item], *, callers: Sequence[str], deadline: float | None = None
    ) -> list[Computed]:
        """Each item's result in its place, computed in batches with those of other callers.

        What has not begun at `deadline` (seconds since 1970) is `DeadlineExceeded`. Cancelled, it takes back
        what waits, and stops what runs if nobody else is in it. Raises `WrongTask`.
        """


class ModelHost(Protocol):
    """The models of this process, loaded when they are used, within the memory that they may take."""

    async def spec(self, name: str) -> ModelSpec:
        """The model of this name, as this process knows it. Raises `ModelNotFound`."""

    def use(self, name: str, spec: ModelSpec) -> AbstractAsyncContextManager[HostedModel]:
        """Loads it, if it is not there as `spec` says. Raises `Unavailable`."""

    async def load(self, name: str, spec: ModelSpec) -> Standing:
        """Loads it, and leaves it there. Raises `Unavailable`."""

    async def unload(self, name: str) -> Standing:
        """Puts it out, as soon as nobody uses it."""
