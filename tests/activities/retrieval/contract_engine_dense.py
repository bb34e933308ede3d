"""What every `Engine` finds by vectors, how filters bound it, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from goatherd.contracts.filters import read_filter
from goatherd.contracts.retrieval import SearchAnswer, SearchQuery
from goatherd.errors import Invalid, Unavailable
from tests.activities.retrieval.engine_cases import (
    BAD_FILTERS,
    DIMENSIONS,
    FILTERS,
    METRICS,
    key_of,
    some_vector,
)
from tests.activities.retrieval.engine_checks import EngineChecks, Make
from tests.activities.retrieval.reference_engine import floats


class DenseContract(EngineChecks):
    # -- by meaning

    @pytest.mark.parametrize("metric", METRICS)
    async def test_nearest_vectors_are_found_with_exact_scores(self, make: Make, metric: str) -> None:
        async with self.filled(make, metric=metric) as (engine, reference):
            for seed in range(5):
                for k in (1, 10, 37):
                    query = SearchQuery(vector=some_vector(seed), k=k)
                    answer = await self.ask(engine, query)
                    self.check_dense(answer, reference, query)
                    assert answer.seq == engine.applied == reference.seq

    @pytest.mark.parametrize("metric", METRICS)
    async def test_length_of_a_query_counts_as_the_metric_says(self, make: Make, metric: str) -> None:
        async with self.filled(make, metric=metric) as (engine, reference):
            for scale in (1e-3, 50.0):
                vector = (np.frombuffer(some_vector(), "<f4") * scale).tolist()
                query = SearchQuery(vector=floats(vector), k=10)
                answer = await self.ask(engine, query)
                scores = reference.dense(query)
                assert [hit.score for hit in answer.hits] == pytest.approx(
                    [scores[key_of(hit)] for hit in answer.hits], rel=1e-4, abs=self.tolerance
                )

    async def test_queries_of_a_batch_are_answered_each_in_its_place(self, make: Make) -> None:
        async with self.filled(make) as (engine, reference):
            queries = [
                SearchQuery(
                    vector=some_vector(n),
                    k=1 + n * 7 % 40,
                    filter=(None, {"lang": "en"}, {"lang": "de"})[n % 3],
                    per_document=n % 4 == 0,
                )
                for n in range(24)
            ]
            answers = await engine.search(queries)
            assert len(answers) == len(queries)
            for answer, query in zip(answers, queries, strict=True):
                assert isinstance(answer, SearchAnswer)
                self.check_dense(answer, reference, query)

    async def test_no_queries_have_no_answers(self, make: Make) -> None:
        async with self.filled(make) as (engine, _):
            assert await engine.search([]) == []

    async def test_more_than_there_are_gives_all(self, make: Make) -> None:
        async with self.filled(make) as (engine, reference):
            for query in (
                SearchQuery(vector=some_vector(), k=1_000),
                SearchQuery(vector=some_vector(), k=1_000, filter={"lang": "en"}),
                SearchQuery(vector=some_vector(), k=1_000, per_document=True),
            ):
                self.check_dense(await self.ask(engine, query), reference, query)

    async def test_empty_index_finds_nothing(self, make: Make) -> None:
        async with self.opened(make) as (engine, _):
            assert engine.applied == 0
            for query in (
                SearchQuery(vector=some_vector()),
                SearchQuery(vector=some_vector(), filter={"lang": "en"}, per_document=True),
                SearchQuery(mode="lexical", text="cats"),
                SearchQuery(mode="hybrid", text="cats", vector=some_vector(), explain=True),
            ):
                assert await self.ask(engine, query) == SearchAnswer(
                    hits=[], seq=0, exact=(await self.ask(engine, query)).exact
                )

    async def test_explained_hit_has_its_rank(self, make: Make) -> None:
        async with self.filled(make) as (engine, _):
            answer = await self.ask(engine, SearchQuery(vector=some_vector(), k=5, explain=True))
            assert [hit.dense and hit.dense.rank for hit in answer.hits] == [1, 2, 3, 4, 5]
            assert all(hit.dense and hit.dense.score == hit.score for hit in answer.hits)
            assert all(hit.lexical is None for hit in answer.hits)
            answer = await self.ask(engine, SearchQuery(mode="lexical", text="cats", k=5, explain=True))
            assert [hit.lexical and hit.lexical.rank for hit in answer.hits] == [1, 2, 3, 4, 5]
            assert all(hit.dense is None for hit in answer.hits)

    # -- what can't be answered

    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize(
        "vector",
        [
            None,
            b"",
            b"\0" * 7,
            floats([1.0] * (DIMENSIONS - 1)),
            floats([1.0] * (DIMENSIONS + 1)),
            floats([1.0] * (DIMENSIONS - 1) + [math.nan]),
            floats([math.inf] + [1.0] * (DIMENSIONS - 1)),
        ],
        ids=["none", "empty", "torn", "short", "long", "nan", "infinite"],
    )
    async def test_vector_that_is_none_is_invalid_alone(
        self, make: Make, metric: str, vector: bytes | None
    ) -> None:
        async with self.filled(make, metric=metric) as (engine, reference):
            good = SearchQuery(vector=some_vector(), k=3)
            bad = SearchQuery(vector=vector, k=3)
            mixed = SearchQuery(mode="hybrid", text="cats", vector=vector)
            before, error, joined, after = await engine.search([good, bad, mixed, good])
            for refused in (error, joined):
                assert isinstance(refused, Invalid)
                assert refused.pointer == "/vector"
            for answer in (before, after):
                assert isinstance(answer, SearchAnswer)
                self.check_dense(answer, reference, good)

    async def test_zero_vector_has_no_cosine(self, make: Make) -> None:
        zero = SearchQuery(vector=floats([0.0] * DIMENSIONS), k=5)
        async with self.filled(make, metric="cosine") as (engine, _):
            (error,) = await engine.search([zero])
            assert isinstance(error, Invalid)
            assert error.pointer == "/vector"
        for metric in ("ip", "l2"):
            async with self.filled(make, metric=metric) as (engine, reference):
                self.check_dense(await self.ask(engine, zero), reference, zero)

    async def test_bad_filter_is_invalid_alone(self, make: Make) -> None:
        async with self.filled(make) as (engine, reference):
            good = SearchQuery(vector=some_vector(), k=3, filter={"lang": "en"})
            queries = [SearchQuery(vector=some_vector(), filter=bad) for bad in BAD_FILTERS]
            first, *errors, last = await engine.search([good, *queries, good])
            for error, bad in zip(errors, BAD_FILTERS, strict=True):
                with pytest.raises(Invalid) as reason:
                    read_filter(bad)
                assert isinstance(error, Invalid)
                assert error.pointer == f"/filter{reason.value.pointer}"
            for answer in (first, last):
                assert isinstance(answer, SearchAnswer)
                self.check_dense(answer, reference, good)

    async def test_words_without_a_text_are_invalid(self, make: Make) -> None:
        async with self.filled(make) as (engine, _):
            for query in (
                SearchQuery(mode="lexical", vector=some_vector()),
                SearchQuery(mode="hybrid", vector=some_vector()),
            ):
                (error,) = await engine.search([query])
                assert isinstance(error, Invalid)
                assert error.pointer == "/text"

    @pytest.mark.parametrize("weights", [{"dense": -1.0}, {"lexical": math.nan}, {"dense": math.inf}])
    async def test_weight_that_is_none_is_invalid(self, make: Make, weights: dict[str, float]) -> None:
        async with self.filled(make) as (engine, _):
            query = SearchQuery.model_construct(
                **(
                    SearchQuery(mode="hybrid", text="cats", vector=some_vector()).__dict__
                    | {"weights": weights}
                )
            )
            (error,) = await engine.search([query])
            assert isinstance(error, Invalid)
            assert error.pointer == f"/weights/{next(iter(weights))}"

    async def test_index_of_words_refuses_vectors_and_says_what_to_do(self, make: Make) -> None:
        async with self.filled(make, dimensions=0) as (engine, reference):
            for query in (
                SearchQuery(vector=some_vector()),
                SearchQuery(mode="hybrid", text="cats", vector=some_vector()),
            ):
                (error,) = await engine.search([query])
                assert isinstance(error, Invalid)
                assert error.pointer == "/mode"
                assert "lexical" in error.message
            words_only = SearchQuery(mode="lexical", text="cats", k=100, filter={"lang": "en"})
            self.check_lexical(await self.ask(engine, words_only), reference, words_only)

    async def test_index_without_words_refuses_them_and_says_what_to_do(self, make: Make) -> None:
        async with self.filled(make, lexical="off") as (engine, reference):
            for query in (
                SearchQuery(mode="lexical", text="cats"),
                SearchQuery(mode="hybrid", text="cats", vector=some_vector()),
            ):
                (error,) = await engine.search([query])
                assert isinstance(error, Invalid)
                assert error.pointer == "/mode"
                assert "dense" in error.message
            dense = SearchQuery(vector=some_vector(), k=10)
            self.check_dense(await self.ask(engine, dense), reference, dense)

    async def test_search_for_what_it_has_not_yet_is_told_to_come_again(self, make: Make) -> None:
        async with self.filled(make) as (engine, reference):
            here, ahead = await engine.search(
                [
                    SearchQuery(vector=some_vector(), min_seq=reference.seq),
                    SearchQuery(vector=some_vector(), min_seq=reference.seq + 1),
                ]
            )
            assert isinstance(here, SearchAnswer)
            assert isinstance(ahead, Unavailable)

    # -- filters

    @pytest.mark.parametrize("metric", METRICS)
    async def test_filters_mean_the_same_everywhere(self, make: Make, metric: str) -> None:
        async with self.filled(make, metric=metric) as (engine, reference):
            for k in (3, 1_000):
                queries = [SearchQuery(vector=some_vector(), k=k, filter=given) for given in FILTERS]
                for query, answer in zip(queries, await engine.search(queries), strict=True):
                    assert isinstance(answer, SearchAnswer), (query.filter, answer)
                    self.check_dense(answer, reference, query)

    async def test_filters_hold_for_words(self, make: Make) -> None:
        async with self.filled(make) as (engine, reference):
            for k in (3, 1_000):
                queries = [
                    SearchQuery(mode="lexical", text="cats zebra", k=k, filter=given) for given in FILTERS
                ]
                for query, answer in zip(queries, await engine.search(queries), strict=True):
                    assert isinstance(answer, SearchAnswer), (query.filter, answer)
                    self.check_lexical(answer, reference, query)

    async def test_no_hit_is_lost_to_a_filter_that_few_meet(self, make: Make) -> None:
        async with self.opened(make) as (engine, reference):
            near = np.frombuffer(some_vector(), "<f4")
            for n in range(400):
                reference.put(f"near {n}", ["cats"], [(near + n * 1e-4).tolist()], {"rare": False})
            for n in range(7):
                reference.put(f"far {n}", ["cats " + "meadow " * 30], [(-near).tolist()], {"rare": True})
            await engine.apply(reference.written, reference.seq)
            for mode in ("dense", "lexical", "hybrid"):
                query = SearchQuery(
                    mode=mode, vector=some_vector(), text="cats", k=5, filter={"rare": True}, explain=True
                )
                answer = await self.ask(engine, query)
                assert len(answer.hits) == 5
                self.check_hits(answer, reference, query)
