"""`Provider` by OpenAI's API, or any that speaks as it does. Light until a model is loaded."""

from __future__ import annotations

from collections.abc import Callable

from activities.backends.model_sources import broken
from activities.backends.remote_model import RemoteModel
from activities.inference_ports import LoadContext, LoadedModel, Runner
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task, tasks_of
from goatherd.contracts.providers import OpenAIOptions, read_options
from goatherd.errors import Invalid, WrongTask
from goatherd.security.secret_refs import read_secret

_TALKS = (Task.CONVERSATIONAL, Task.TEXT_GENERATION)
_TASKS = (
    *_TALKS,
    Task.FEATURE_EXTRACTION,
    Task.SENTENCE_SIMILARITY,
    Task.AUTOMATIC_SPEECH_RECOGNITION,
    Task.TEXT_TO_SPEECH,
    Task.TEXT_TO_IMAGE,
)


class OpenAIProvider:
    """`source` is the name that the server knows the model by."""

    def check(self, name: str, spec: ModelSpec) -> None:
        if spec.task not in _TASKS:
            raise WrongTask(f"model {name!r}: the provider openai has no {spec.task}")
        if not spec.source:
            raise Invalid(f"model {name!r} has no source: the server's name of it", pointer="/source")
        read_options(OpenAIOptions, spec)

    def prepare(self, name: str, spec: ModelSpec, context: LoadContext) -> None:
        """Nothing: the files are elsewhere."""

    def estimate(self, name: str, spec: ModelSpec, context: LoadContext) -> int:
        return 0

    def load(self, name: str, spec: ModelSpec, context: LoadContext) -> LoadedModel:
        """Reads the key. Whether the server takes it shows when it is asked.

        Raises:
            ModelBroken: the client is not installed.
            Unavailable: there is no key (`model-unavailable`).
        """
        self.check(name, spec)
        options = read_options(OpenAIOptions, spec)
        key = read_secret(options.api_key).get_secret_value() if options.api_key else "none"
        try:
            from openai import DEFAULT_CONNECTION_LIMITS, AsyncOpenAI, DefaultAsyncHttpxClient

            from activities.backends import openai_tasks as tasks
            from activities.backends.openai_chat import OpenAIChatModel
            from activities.backends.public_http import PublicTransport
        except ModuleNotFoundError as error:
            raise broken(name, f"{error.name} is not installed", "install goatherd[openai]") from error
        guarded = spec.bounds is not None and not spec.bounds.private
        transport = PublicTransport(name, DEFAULT_CONNECTION_LIMITS) if guarded else None
        client = AsyncOpenAI(
            api_key=key,
            base_url=options.base_url,
            timeout=options.timeout_s,
            max_retries=options.max_retries,
            # A server is where its address says, and is not to send us elsewhere.
            http_client=DefaultAsyncHttpxClient(follow_redirects=False, transport=transport),
        )
        # The client fills them from the environment, which may be about another account.
        client.organization, client.project = options.organization, options.project
        by = tasks.Caller(client, name, spec.source, options)
        makers: dict[Task, Callable[[tasks.Caller], Runner]] = {
            Task.FEATURE_EXTRACTION: tasks.Features,
            Task.SENTENCE_SIMILARITY: tasks.Similarities,
            Task.AUTOMATIC_SPEECH_RECOGNITION: tasks.Transcriptions,
            Task.TEXT_TO_SPEECH: tasks.Speech,
            Task.TEXT_TO_IMAGE: tasks.Images,
        }
        served = tasks_of(spec.task)
        return RemoteModel(
            served,
            {task: makers[task](by) for task in served if task in makers},
            chat=OpenAIChatModel(client, name, spec.source, options) if spec.task in _TALKS else None,
            close=client.close,
        )
