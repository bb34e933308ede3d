"""Which engine a version of an index is searched by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from activities.retrieval_ports import Engine
from goatherd.contracts.retrieval import Index, Version
from goatherd.errors import ModelBroken
from goatherd.settings import Settings

OpenEngine = Callable[[Index, Version], Coroutine[Any, Any, Engine]]


def opener(settings: Settings) -> OpenEngine:
    """Opens engines of every backend. Their libraries are imported when the first one needs them.

    What it gives raises `Unavailable`: the engine's server is away; `ModelBroken`: a library, or the address
    of the server, is missing.
    """

    async def open_one(index: Index, version: Version) -> Engine:
        spec = version.spec
        try:
            if spec.backend == "elasticsearch":
                from activities.backends.retrieval.elastic_engine import open_elastic

                return await open_elastic(
                    settings.elasticsearch, settings.elasticsearch_api_key, index, version
                )
            return await asyncio.to_thread(_open_local, settings, index, version)
        except ImportError as error:
            raise ModelBroken(
                f"this index needs {error.name or error} in its worker: pip install 'goatherd[retrieval]'"
            ) from error

    return open_one


def _open_local(settings: Settings, index: Index, version: Version) -> Engine:
    from activities.backends.retrieval.local_engine import open_engine

    texts = None
    if version.spec.lexical == "elasticsearch":
        from activities.backends.retrieval.elastic_texts import elastic_texts

        texts = elastic_texts(
            settings.elasticsearch, settings.elasticsearch_api_key, index.id, version.number
        )
    return open_engine(settings.data / "indexes", index, version, elastic_texts=texts)
