"""An engine's answers beside those of the model."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from activities.retrieval_ports import Engine
from goatherd.contracts.model import Json
from goatherd.contracts.retrieval import Index, SearchAnswer, SearchQuery, Version
from goatherd.errors import GoatherdError
from tests.activities.retrieval.engine_cases import fill, index_of, key_of, some_vector
from tests.activities.retrieval.reference_engine import STEMS, Reference

Make = Callable[[Index, Version], Awaitable[Engine]]
"""Opens an engine, with what was last saved of this version. In any event loop."""


class EngineChecks:
    tolerance = 1e-5
    """How far a dense score may be from the exact one."""
    wish: ClassVar[Json] = {}
    """Of all indexes of these tests."""

    @asynccontextmanager
    async def opened(self, make: Make, **wish: Any) -> AsyncIterator[tuple[Engine, Reference]]:
        """An engine that has nothing, and the model beside it."""
        index, version = index_of(**(self.wish | wish))
        engine = await make(index, version)
        try:
            yield engine, Reference(version.spec)
        finally:
            await engine.close()

    @asynccontextmanager
    async def filled(self, make: Make, **wish: Any) -> AsyncIterator[tuple[Engine, Reference]]:
        async with self.opened(make, **wish) as (engine, reference):
            fill(reference)
            await engine.apply(reference.written, reference.seq)
            yield engine, reference

    async def ask(self, engine: Engine, query: SearchQuery) -> SearchAnswer:
        (answer,) = await engine.search([query])
        if isinstance(answer, GoatherdError):
            raise answer
        return answer

    # -- comparing with the model

    def check_hits(self, answer: SearchAnswer, reference: Reference, query: SearchQuery) -> None:
        """They are chunks that are there and meet the filter, each once, best first."""
        there = reference.chunks(query.filter)
        keys = [key_of(hit) for hit in answer.hits]
        assert len(set(keys)) == len(keys) <= query.k
        for hit in answer.hits:
            assert key_of(hit) in there
            assert there[key_of(hit)].doc == hit.doc
        scores = [hit.score for hit in answer.hits]
        assert scores == sorted(scores, reverse=True)
        if query.per_document:
            assert len({hit.doc for hit in answer.hits}) == len(answer.hits)
        if not query.explain:
            assert all(hit.dense is None and hit.lexical is None for hit in answer.hits)

    def check_dense(self, answer: SearchAnswer, reference: Reference, query: SearchQuery) -> None:
        """The best ones, with their exact scores."""
        self.check_hits(answer, reference, query)
        scores = reference.dense(query)
        for hit in answer.hits:
            assert hit.score == pytest.approx(scores[key_of(hit)], abs=self.tolerance)
        best: dict[Any, float] = {}
        there = reference.chunks(query.filter)
        for key, score in scores.items():
            best.setdefault(there[key].doc if query.per_document else key, score)
        assert [hit.score for hit in answer.hits] == pytest.approx(
            list(best.values())[: query.k], abs=self.tolerance
        )

    def check_lexical(self, answer: SearchAnswer, reference: Reference, query: SearchQuery) -> None:
        """Chunks that have one of the words; all of them, if so many are asked for."""
        self.check_hits(answer, reference, query)
        having = reference.having(query)
        assert {key_of(hit) for hit in answer.hits} <= having
        there = reference.chunks()
        most = len({there[key].doc for key in having}) if query.per_document else len(having)
        assert len(answer.hits) == min(query.k, most)
        assert all(math.isfinite(hit.score) for hit in answer.hits)

    def check_hybrid(self, answer: SearchAnswer, reference: Reference, query: SearchQuery) -> None:
        """Σ w / (c + rank) of the lists, which are what each of the two gives alone. The query explains."""
        self.check_hits(answer, reference, query)
        dense, having = list(reference.dense(query).values()), reference.having(query)
        candidates = query.candidates or max(100, 4 * query.k)
        for hit in answer.hits:
            score = 0.0
            if hit.dense is not None:
                assert hit.dense.rank <= candidates
                assert hit.dense.score == pytest.approx(dense[hit.dense.rank - 1], abs=self.tolerance)
                score += query.weights.get("dense", 1.0) / (query.rank_constant + hit.dense.rank)
            if hit.lexical is not None:
                assert key_of(hit) in having
                assert hit.lexical.rank <= min(candidates, len(having))
                score += query.weights.get("lexical", 1.0) / (query.rank_constant + hit.lexical.rank)
            assert hit.dense is not None or hit.lexical is not None
            assert hit.score == pytest.approx(score, rel=1e-9)
        for ranks in (
            [hit.dense.rank for hit in answer.hits if hit.dense],
            [hit.lexical.rank for hit in answer.hits if hit.lexical],
        ):
            assert len(set(ranks)) == len(ranks)

    async def check_all(self, engine: Engine, reference: Reference) -> None:
        """The engine has what the model has, and nothing else."""
        everything = max(1, min(1_000, len(reference.chunks())))
        text = " ".join(STEMS)
        dense, lexical = await engine.search(
            [
                SearchQuery(vector=some_vector(3), k=everything),
                SearchQuery(mode="lexical", text=text, k=everything),
            ]
        )
        assert isinstance(dense, SearchAnswer)
        assert isinstance(lexical, SearchAnswer)
        self.check_dense(dense, reference, SearchQuery(vector=some_vector(3), k=everything))
        self.check_lexical(lexical, reference, SearchQuery(mode="lexical", text=text, k=everything))
        assert dense.seq == lexical.seq == engine.applied
