"""What every `Engine` finds by words, by both, and by document."""

from __future__ import annotations

import numpy as np
import pytest

from goatherd.contracts.model import Json
from goatherd.contracts.retrieval import SearchQuery
from tests.activities.retrieval.engine_cases import (
    DIMENSIONS,
    key_of,
    some_vector,
)
from tests.activities.retrieval.engine_checks import EngineChecks, Make
from tests.activities.retrieval.reference_engine import words


class WordsContract(EngineChecks):
    # -- by words

    @pytest.mark.parametrize("form", ["connecting", "JUMPS", "cat", "Runs", "Zebras,", "¿violet?"])
    async def test_words_are_found_in_all_their_forms(self, make: Make, form: str) -> None:
        async with self.filled(make) as (engine, reference):
            query = SearchQuery(mode="lexical", text=form, k=1_000)
            answer = await self.ask(engine, query)
            self.check_lexical(answer, reference, query)
            assert answer.hits

    @pytest.mark.parametrize(
        ("text", "same"),
        [
            ("+zebra -quartz", "zebra quartz"),
            ("NOT zebra", "zebra"),
            ("zebra AND quartz", "zebra quartz"),
            ('"zebra quartz"', "zebra quartz"),
            ("zeb*", ""),
            ("zebro~", ""),
            ("zebr?", ""),
            ("/zeb.*/", ""),
            ("*", ""),
            ("* OR *:*", ""),
            ("[a TO z]", ""),
            ("zebra^0 cats^99", "zebra cats"),
            ("((zebra", "zebra"),
            ('zebra "', "zebra"),
            ("zebra \\", "zebra"),
            ("zebra && || !", "zebra"),
            ("", ""),
            (" \t\n", ""),
            ("?!…", ""),
            ("💡", ""),
        ],
    )
    async def test_no_character_is_an_operator(self, make: Make, text: str, same: str) -> None:
        async with self.filled(make) as (engine, reference):
            query = SearchQuery(mode="lexical", text=same, k=1_000)
            asked = SearchQuery(mode="lexical", text=text, k=1_000)
            self.check_lexical(await self.ask(engine, asked), reference, query)

    async def test_chunk_with_more_of_the_words_is_better(self, make: Make) -> None:
        async with self.filled(make) as (engine, reference):
            vector = [1.0] * DIMENSIONS
            entry = reference.put("both", ["The zebra sees quartz and lanterns"], [vector])
            await engine.apply([entry], entry.seq)
            answer = await self.ask(engine, SearchQuery(mode="lexical", text="zebra quartz lantern", k=3))
            assert answer.hits[0].doc == "both"

    async def test_text_of_very_many_words_is_searched_for(self, make: Make) -> None:
        async with self.filled(make) as (engine, reference):
            # An engine may have enough of them after a thousand.
            text = " ".join(f"w{n}x" for n in range(900)) + " zebra " + "and so on " * 5_000
            query = SearchQuery(mode="lexical", text=text, k=1_000)
            self.check_lexical(await self.ask(engine, query), reference, query)

    async def test_found_words_are_marked(self, make: Make) -> None:
        async with self.opened(make) as (engine, reference):
            text = "A <b>zebra</b> jumped & jumps: " + "meadow " * 300 + "over the connections."
            reference.put("d", [text], [[1.0] * DIMENSIONS])
            await engine.apply(reference.written, reference.seq)
            for mode in ("lexical", "hybrid"):
                query = SearchQuery(
                    mode=mode, text="jumping zebras connect", vector=some_vector(), highlight=True
                )
                (hit,) = (await self.ask(engine, query)).hits
                assert hit.highlights
                for piece in hit.highlights:
                    plain = piece.replace("\2", "").replace("\3", "")
                    assert plain in text
                    assert 0 < len(plain) < len(text)
                    marked = [part.partition("\3")[0] for part in piece.split("\2")[1:]]
                    assert marked
                    assert piece.count("\2") == piece.count("\3")
                    assert all(words(one) and words(one)[0] in ("jump", "zebra", "connect") for one in marked)
            for query in (
                SearchQuery(mode="lexical", text="zebra"),
                SearchQuery(vector=some_vector(), highlight=True),
            ):
                (hit,) = (await self.ask(engine, query)).hits
                assert hit.highlights == []

    # -- by both

    @pytest.mark.parametrize("weights", [{}, {"dense": 2.0}, {"dense": 0.25, "lexical": 3.0}])
    async def test_lists_are_joined_by_their_ranks(self, make: Make, weights: dict[str, float]) -> None:
        async with self.filled(make) as (engine, reference):
            for seed, text in enumerate(("cats", "zebras running", "quartz meadow")):
                for constant in (1, 60):
                    query = SearchQuery.model_validate(
                        {
                            "mode": "hybrid",
                            "text": text,
                            "vector": some_vector(seed),
                            "k": 20,
                            "weights": weights,
                            "rank_constant": constant,
                            "explain": True,
                        }
                    )
                    answer = await self.ask(engine, query)
                    self.check_hybrid(answer, reference, query)
                    assert len(answer.hits) == 20
                    # What nobody explains is the same.
                    plain = await self.ask(engine, query.model_copy(update={"explain": False}))
                    assert [(hit.doc, hit.chunk, hit.score) for hit in plain.hits] == [
                        (hit.doc, hit.chunk, hit.score) for hit in answer.hits
                    ]

    async def test_all_that_either_list_has_is_joined(self, make: Make) -> None:
        async with self.filled(make) as (engine, reference):
            query = SearchQuery(
                mode="hybrid", text="cats", vector=some_vector(), k=1_000, explain=True, filter={"lang": "en"}
            )
            answer = await self.ask(engine, query)
            self.check_hybrid(answer, reference, query)
            assert {key_of(hit) for hit in answer.hits} == set(reference.chunks(query.filter))
            assert {key_of(hit) for hit in answer.hits if hit.lexical} == reference.having(query)

    async def test_candidates_bound_each_list(self, make: Make) -> None:
        async with self.filled(make) as (engine, reference):
            query = SearchQuery(
                mode="hybrid", text="cats", vector=some_vector(), k=30, candidates=4, explain=True
            )
            answer = await self.ask(engine, query)
            self.check_hybrid(answer, reference, query)
            assert sorted(hit.dense.rank for hit in answer.hits if hit.dense) == [1, 2, 3, 4]
            assert sorted(hit.lexical.rank for hit in answer.hits if hit.lexical) == [1, 2, 3, 4]

    async def test_list_without_weight_is_left_out(self, make: Make) -> None:
        async with self.filled(make) as (engine, reference):
            alone = await self.ask(engine, SearchQuery(vector=some_vector(), k=12))
            query = SearchQuery(
                mode="hybrid", text="cats", vector=some_vector(), k=12, weights={"lexical": 0.0}, explain=True
            )
            answer = await self.ask(engine, query)
            self.check_hybrid(answer, reference, query)
            assert [key_of(hit) for hit in answer.hits] == [key_of(hit) for hit in alone.hits]
            assert all(hit.lexical is None for hit in answer.hits)

    # -- by document

    @pytest.mark.parametrize("given", [None, {"lang": "en"}])
    async def test_only_the_best_chunk_of_each_document(self, make: Make, given: Json | None) -> None:
        async with self.filled(make) as (engine, reference):
            for k in (1, 7, 1_000):
                dense = SearchQuery(vector=some_vector(), k=k, per_document=True, filter=given)
                self.check_dense(await self.ask(engine, dense), reference, dense)
                lexical = SearchQuery(mode="lexical", text="cats zebra", k=k, per_document=True, filter=given)
                self.check_lexical(await self.ask(engine, lexical), reference, lexical)
                hybrid = SearchQuery(
                    mode="hybrid",
                    text="cats",
                    vector=some_vector(),
                    k=k,
                    per_document=True,
                    explain=True,
                    filter=given,
                )
                answer = await self.ask(engine, hybrid)
                self.check_hybrid(answer, reference, hybrid)
                docs = {chunk.doc for chunk in reference.chunks(given).values()}
                assert len(answer.hits) == min(k, len(docs))

    async def test_documents_are_found_behind_one_with_very_many_near_chunks(self, make: Make) -> None:
        async with self.opened(make) as (engine, reference):
            near = np.frombuffer(some_vector(), "<f4").astype(float)
            crowd = near + np.random.default_rng(1).standard_normal((600, DIMENSIONS)) * 1e-3
            reference.put("crowd", ["cats"] * 600, crowd)
            for n in range(9):
                reference.put(f"other {n}", ["cats " + "meadow " * 40], [(n + 1) * np.eye(DIMENSIONS)[n % 8]])
            await engine.apply(reference.written, reference.seq)
            query = SearchQuery(vector=some_vector(), k=5, per_document=True)
            self.check_dense(await self.ask(engine, query), reference, query)
            query = SearchQuery(mode="lexical", text="cats", k=5, per_document=True)
            self.check_lexical(await self.ask(engine, query), reference, query)
            query = SearchQuery(
                mode="hybrid", text="cats", vector=some_vector(), k=5, per_document=True, explain=True
            )
            answer = await self.ask(engine, query)
            self.check_hits(answer, reference, query)
            assert len(answer.hits) == 5
            assert answer.hits[0].doc == "crowd"
