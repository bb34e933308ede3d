"""The activity by which workflows search."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.retrieval import RetrievalActivities
from goatherd.contracts.retrieval import FoundText, SearchQuery, SearchStep, StepFound
from goatherd.errors import GoatherdError, Invalid, NotFound, Unavailable

ORDER = SearchStep(owner="ada", index="docs", query=SearchQuery(text="goats"), mode="lexical")
FOUND = StepFound(hits=[FoundText(doc="a", chunk=0, score=0.5, text="Goats climb.", start=0, end=12)], seq=7)


class Searcher:
    def __init__(self, fault: GoatherdError | None = None) -> None:
        self._fault = fault

    async def step(self, order: SearchStep) -> StepFound:
        assert order == ORDER
        if self._fault is not None:
            raise self._fault
        return FOUND


async def test_a_step_gives_what_was_found() -> None:
    assert await ActivityEnvironment().run(RetrievalActivities(Searcher()).search, ORDER) == FOUND


@pytest.mark.parametrize(
    ("fault", "again"),
    [(Unavailable("No worker."), True), (NotFound("No index."), False), (Invalid("No text."), False)],
)
async def test_errors_keep_their_kind_and_say_whether_to_try_again(fault: GoatherdError, again: bool) -> None:
    with pytest.raises(ApplicationError) as raised:
        await ActivityEnvironment().run(RetrievalActivities(Searcher(fault)).search, ORDER)
    assert (raised.value.type, raised.value.non_retryable) == (fault.code, not again)
