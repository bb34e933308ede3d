"""`Provider` by SageMaker endpoints. Light until a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from activities.backends.model_sources import broken
from activities.backends.remote_model import RemoteModel, each
from activities.inference_ports import Item, LoadContext, LoadedModel, Made, Result
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task, tasks_of
from goatherd.contracts.providers import SageMakerOptions, read_options
from goatherd.errors import Invalid, WrongTask

if TYPE_CHECKING:
    from activities.backends.sagemaker_endpoint import Endpoint

_TALKS = (Task.CONVERSATIONAL, Task.TEXT_GENERATION)
_CHARS_A_TOKEN = 4


class SageMakerProvider:
    """`source` is the endpoint's name. It serves its one task: what else its container does nobody knows."""

    def check(self, name: str, spec: ModelSpec) -> None:
        if spec.task is Task.TENSORS:
            raise WrongTask(f"model {name!r}: the provider sagemaker has no {spec.task}")
        if not spec.source:
            raise Invalid(f"model {name!r} has no source: the endpoint's name", pointer="/source")
        options = read_options(SageMakerOptions, spec)
        if options.format == "openai" and spec.task not in _TALKS:
            raise Invalid(f"model {name!r}: the format openai is for talking", pointer="/options/format")
        if options.format != "openai" and spec.task is Task.CONVERSATIONAL:
            raise Invalid(
                f"model {name!r}: a conversation needs a container that speaks OpenAI's chat completions, "
                "and the format openai",
                pointer="/options/format",
            )
        if options.asynchronous and (
            options.inference_component or options.target_variant or options.target_model
        ):
            raise Invalid(
                f"model {name!r}: an asynchronous endpoint takes no variant, component or target model",
                pointer="/options/async",
            )

    def prepare(self, name: str, spec: ModelSpec, context: LoadContext) -> None:
        """Nothing: the files are elsewhere."""

    def estimate(self, name: str, spec: ModelSpec, context: LoadContext) -> int:
        return 0

    def load(self, name: str, spec: ModelSpec, context: LoadContext) -> LoadedModel:
        """Connects to nothing: whether there is such an endpoint shows when it is asked."""
        self.check(name, spec)
        options = read_options(SageMakerOptions, spec)
        try:
            from botocore.exceptions import BotoCoreError

            from activities.backends.sagemaker_chat import SageMakerChatModel
            from activities.backends.sagemaker_endpoint import Endpoint
        except ModuleNotFoundError as error:
            raise broken(name, f"{error.name} is not installed", "install goatherd[sagemaker]") from error
        try:
            endpoint = Endpoint.open(name, spec.source, options)
        except BotoCoreError as error:
            raise broken(name, str(error), "correct its options") from error
        if spec.task in _TALKS:
            tasks = tasks_of(spec.task) if options.format == "openai" else (spec.task,)
            chat = SageMakerChatModel(endpoint, name, options)
            return RemoteModel(tasks, {}, chat=chat, close=endpoint.close)
        runner = EndpointRunner(endpoint, spec.task, options)
        return RemoteModel((spec.task,), {spec.task: runner}, close=endpoint.close)


class EndpointRunner:
    """A call for each item: the endpoint batches, if its container does."""

    def __init__(self, endpoint: Endpoint, task: Task, options: SageMakerOptions) -> None:
        self._endpoint = endpoint
        self._task = task
        self._options = options

    def weigh(self, item: Item) -> int:
        return len(item.inputs) // _CHARS_A_TOKEN + 1 if isinstance(item.inputs, str) else 1

    async def run(self, items: Sequence[Item]) -> list[Result]:
        return await each(items, self._one, most=self._options.concurrency)

    async def _one(self, item: Item) -> Made:
        from activities.backends.sagemaker_toolkit import made_of, request_of

        body, accept = request_of(self._task, item, content_type=self._options.content_type)
        return made_of(self._task, item, await self._endpoint.invoke(body, accept=accept))
