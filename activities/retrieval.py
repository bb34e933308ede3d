"""The activity by which workflows search: a step of an agent or a graph."""

from __future__ import annotations

from typing import Protocol

from temporalio import activity

from activities.attending import attended
from goatherd.contracts.retrieval import SEARCH_STEP, SearchStep, StepFound


class Searching(Protocol):
    """What finds texts for a workflow."""

    async def step(self, order: SearchStep) -> StepFound:
        """The texts that it finds, of an index of the order's owner.

        Raises:
            NotFound: the owner has no such index.
            Invalid: the query can't be answered by it.
            Unavailable, TooManyRequests, DeadlineExceeded: not now.
        """
        ...


class RetrievalActivities:
    """What workflows ask of indexes."""

    def __init__(self, searching: Searching) -> None:
        self._searching = searching

    @activity.defn(name=SEARCH_STEP)
    async def search(self, order: SearchStep) -> StepFound:
        """Searches once, all that was committed when it begins. Errors that may pass are raised as such, and
        Temporal retries."""
        async with attended("the search"):
            return await self._searching.step(order)
