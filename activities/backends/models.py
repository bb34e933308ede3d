"""The models of a process, by their public names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from activities.backends.huggingface import HuggingFaceChatModel
from activities.backends.model_sources import Progress, prepare, silent
from activities.backends.scripted import ScriptedChatModel
from activities.ports import ChatModel
from goatherd.contracts.inference import ModelSpec
from goatherd.errors import GoatherdError, ModelNotFound
from goatherd.settings import Settings


def prepare_all(settings: Settings, progress: Progress = silent) -> None:
    """Downloads or converts the files of all models, so that workers find them. Blocks; needs no network for
    packaged models and folders.

    Raises:
        Unavailable: a model's source can't be had; the models before it are prepared.
    """
    for name, spec in settings.models.items():
        if spec.provider == "huggingface":
            prepare(name, spec, settings.cache, progress)
        progress(f"{name} is ready")


class Models:
    """The `ModelHub` of the models in the settings. Belongs to one event loop.

    At most `inference_slots` replies are computed at once, over all models; more wait for their turn.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._executor = ThreadPoolExecutor(settings.inference_slots, thread_name_prefix="inference")
        self._loads: dict[str, asyncio.Task[ChatModel]] = {}
        self._watchers: dict[str, list[Callable[[str], None]]] = {}
        self._states: dict[str, str] = {}

    @property
    def specs(self) -> dict[str, ModelSpec]:
        return dict(self._settings.models)

    async def get(self, name: str, *, progress: Callable[[str], None] | None = None) -> ChatModel:
        """See `ModelHub.get`. `progress` is called on the event loop. A failed load is tried again when asked
        for again; one that its askers gave up waiting for goes on."""
        if name not in self._settings.models:
            known = ", ".join(repr(known) for known in self._settings.models)
            raise ModelNotFound(f"no model is called {name!r}; there are {known}")
        load = self._loads.get(name)
        if load is None:
            load = self._loads[name] = asyncio.create_task(self._load(name), name=f"load {name}")
            load.add_done_callback(lambda done: self._settle(name, done))
        if progress is not None and not load.done():
            self._watchers.setdefault(name, []).append(progress)
        return await asyncio.shield(load)

    def states(self) -> dict[str, str]:
        return dict(self._states)

    def close(self) -> None:
        """Takes no more replies. Those that wait for a slot end with `Unavailable`; the others go on."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _load(self, name: str) -> ChatModel:
        settings, spec = self._settings, self._settings.models[name]
        self._states[name] = "loading"
        if spec.provider == "scripted":
            return ScriptedChatModel()
        loop = asyncio.get_running_loop()

        def tell(text: str) -> None:
            loop.call_soon_threadsafe(self._tell, name, text)

        return await asyncio.to_thread(
            HuggingFaceChatModel.load,
            name,
            spec,
            cache=settings.cache,
            executor=self._executor,
            threads=settings.torch_threads,
            progress=tell,
        )

    def _tell(self, name: str, text: str) -> None:
        for watcher in self._watchers.get(name, []):
            watcher(text)

    def _settle(self, name: str, load: asyncio.Task[ChatModel]) -> None:
        self._watchers.pop(name, None)
        if load.cancelled():
            why = "the load was cancelled"
        elif (error := load.exception()) is not None:
            why = error.message if isinstance(error, GoatherdError) else repr(error)
        else:
            self._states[name] = "ready"
            return
        self._states[name] = f"failed: {why}"
        self._loads.pop(name, None)
