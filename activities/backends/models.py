"""The files of models, fetched before anybody asks for them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from activities.backends.model_sources import Progress, silent
from activities.backends.providers import not_installed, provider
from activities.inference_ports import LoadContext
from goatherd.errors import GoatherdError
from goatherd.settings import Settings


def prepare_all(settings: Settings, progress: Progress = silent) -> list[GoatherdError]:
    """Downloads or converts the files of all models, so that workers find them. Blocks; needs no network for
    packaged models and folders.

    Returns what kept models from being prepared: the others are.
    """
    failed: list[GoatherdError] = []
    with ThreadPoolExecutor(1) as executor:
        context = LoadContext(settings.cache, executor, settings.torch_threads, progress)
        for name, spec in settings.models.items():
            try:
                provider(spec.provider).prepare(name, spec, context)
            except ImportError as error:
                failed.append(not_installed(spec.provider, error))
            except GoatherdError as error:
                failed.append(error)
            else:
                progress(f"{name} is ready")
    return failed
