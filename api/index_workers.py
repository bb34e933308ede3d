"""Searches, sent to the workers that have the indexes by the way that calls of models go."""

from __future__ import annotations

from temporalio.client import Client

from activities.ports import WorkerRegistry
from api.grouped_calls import GroupedCalls
from api.outcomes import error_of
from api.placement import Placement
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.inference_work import ModelEntry, WorkItem
from goatherd.contracts.queues import Pool
from goatherd.contracts.retrieval import Index, Version, hosted_name, hosted_spec
from goatherd.contracts.search import SearchAnswer, SearchQuery
from goatherd.payloads import PayloadStore
from goatherd.settings import Settings


class IndexWorkers:
    """`Searching`, by workers of the pool `retrieval`. Belongs to one event loop."""

    def __init__(
        self, client: Client, workers: WorkerRegistry, payloads: PayloadStore | None, settings: Settings
    ) -> None:
        placement = Placement(
            workers, settings.task_queue(Pool.RETRIEVAL), pool=Pool.RETRIEVAL, serves="indexes"
        )
        self._calls = GroupedCalls(client, placement, payloads)

    async def close(self) -> None:
        """Ends what is under way."""
        await self._calls.close()

    async def search(
        self,
        index: Index,
        version: Version,
        query: SearchQuery,
        *,
        caller: str,
        timeout_s: float | None = None,
    ) -> SearchAnswer:
        """What the worker that has this version finds.

        Raises:
            Invalid: the query can't be answered.
            Unavailable: there is no worker for it, or it was lost.
            DeadlineExceeded: there was no answer in time.
        """
        entry = ModelEntry(
            name=hosted_name(index.id, version.number),
            origin="settings",  # nothing that a request has made up: it needs no bounds
            spec=hosted_spec(index.id, version.number),
        )
        item = WorkItem(inputs=query.model_dump(mode="json", exclude_none=True, exclude_defaults=True))
        (outcome,) = await self._calls.run(entry, Task.SEARCH, [item], caller=caller, timeout_s=timeout_s)
        if outcome.problem is not None:
            raise error_of(outcome.problem)
        return SearchAnswer.model_validate(outcome.output)
