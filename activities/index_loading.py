"""A version of an index, brought into a worker's memory before it serves."""

from __future__ import annotations

import asyncio

from temporalio import activity

from activities.attending import beating, handed_over
from activities.inference_ports import ModelHost
from goatherd.contracts.retrieval import WARM_INDEX, VersionOf, hosted_name, hosted_spec
from goatherd.errors import GoatherdError
from goatherd.temporal import failure


class IndexLoading:
    """What is asked of a worker of the pool `retrieval` besides searches."""

    def __init__(self, indexes: ModelHost) -> None:
        self._indexes = indexes

    @activity.defn(name=WARM_INDEX)
    async def warm(self, version: VersionOf) -> None:
        """Has it ready here, with all that it has now."""
        spec = hosted_spec(version.index, version.version)
        try:
            async with beating():
                await self._indexes.load(hosted_name(version.index, version.version), spec)
        except GoatherdError as error:
            raise failure(error) from error
        except asyncio.CancelledError:
            if (over := handed_over("the load")) is not None:
                raise over from None
            raise
