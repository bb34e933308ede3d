"""The files of models, fetched before anybody asks for them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from activities.backends.model_sources import Progress, silent
from activities.backends.providers import not_installed, provider
from activities.inference_ports import LoadContext
from goatherd.settings import Settings


def prepare_all(settings: Settings, progress: Progress = silent) -> None:
    """Downloads or converts the files of all models, so that workers find them. Blocks; needs no network for
    packaged models and folders.

    Raises:
        Unavailable: a model's source can't be had; the models before it are prepared.
    """
    with ThreadPoolExecutor(1) as executor:
        context = LoadContext(settings.cache, executor, settings.torch_threads, progress)
        for name, spec in settings.models.items():
            try:
                provider(spec.provider).prepare(name, spec, context)
            except ImportError as error:
                raise not_installed(spec.provider, error) from error
            progress(f"{name} is ready")
