"""A version of an index, brought into a worker's memory before it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from temporalio import activity

from activities.attending import attended
from activities.inference_ports import ModelHost
from goatherd.contracts.retrieval import TIDY_INDEX, WARM_INDEX, VersionOf, hosted_name, hosted_spec

if TYPE_CHECKING:
    from activities.retrieval_ports import IndexStore


class Tidying(Protocol):
    """Who keeps what engines save."""

    async def tidy_index(self, store: IndexStore, id: str) -> None:
        """Removes all that is kept of one index, but of the versions that it has now. Raises
        `Unavailable`."""


class IndexLoading:
    """What is asked of a worker of the pool `retrieval` besides searches."""

    def __init__(self, indexes: ModelHost, store: IndexStore, engines: Tidying) -> None:
        self._indexes = indexes
        self._store = store
        self._engines = engines

    @activity.defn(name=TIDY_INDEX)
    async def tidy(self, index: str) -> None:
        """Removes what engines keep of versions that are no more."""
        async with attended("this"):
            await self._engines.tidy_index(self._store, index)

    @activity.defn(name=WARM_INDEX)
    async def warm(self, version: VersionOf) -> None:
        """Has it ready here, with all that it has now."""
        spec = hosted_spec(version.index, version.version)
        async with attended("the load"):
            await self._indexes.load(hosted_name(version.index, version.version), spec)
