"""What every `Engine` does. The fixture `make` says which ones are asked.

`make(index, version)` opens one, with what was last saved of this version; whoever wants it anew closes it
and makes it again. It may be called in any event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from activities.retrieval_ports import Engine
from goatherd.contracts.retrieval import SearchAnswer, SearchQuery, Version
from tests.activities.retrieval.contract_engine_dense import DenseContract
from tests.activities.retrieval.contract_engine_words import WordsContract
from tests.activities.retrieval.engine_cases import (
    DIMENSIONS,
    METRICS,
    fill,
    index_of,
    some_vector,
)
from tests.activities.retrieval.engine_checks import Make
from tests.activities.retrieval.engine_machine import machine
from tests.activities.retrieval.reference_engine import Reference, floats


class EngineContract(DenseContract, WordsContract):
    # -- what is taken in

    async def test_rewritten_document_is_found_as_it_is_now(self, make: Make) -> None:
        async with self.filled(make) as (engine, reference):
            query = SearchQuery(vector=some_vector(), k=1)
            (old,) = (await self.ask(engine, query)).hits
            opposite = (-np.frombuffer(some_vector(), "<f4")).tolist()
            entry = reference.put(old.doc, ["lanterns"], [opposite], {"lang": "sv"})
            await engine.apply([entry], entry.seq)
            await self.check_all(engine, reference)
            query = SearchQuery(vector=floats(opposite), k=1, filter={"lang": "sv"})
            (new,) = (await self.ask(engine, query)).hits
            assert (new.doc, new.chunk, new.seq) == (old.doc, 0, entry.seq)

    async def test_deleted_document_is_never_found_again(self, make: Make) -> None:
        async with self.filled(make) as (engine, reference):
            early = list(reference.written)
            for doc in reference.docs[::2]:
                reference.delete(doc)
            await engine.apply(reference.written[len(early) :], reference.seq)
            await self.check_all(engine, reference)
            await engine.apply(early, early[-1].seq)
            assert engine.applied == reference.seq
            await self.check_all(engine, reference)

    async def test_document_that_comes_back_is_there_once(self, make: Make) -> None:
        async with self.filled(make) as (engine, reference):
            since = len(reference.written)
            vectors = np.random.default_rng(5).standard_normal((2, DIMENSIONS))
            reference.delete("doc 5")
            reference.put("doc 5", ["quartz", "zebra"], vectors, {"lang": "pt"})
            reference.delete("doc 6")
            reference.put("doc 6", ["quartz", "zebra"], vectors, {"lang": "pt"})
            reference.delete("doc 6")
            await engine.apply(reference.written[since:], reference.seq)
            await self.check_all(engine, reference)
            query = SearchQuery(vector=floats(vectors[0]), k=10, filter={"lang": "pt"})
            assert {hit.doc for hit in (await self.ask(engine, query)).hits} == {"doc 5"}

    async def test_entries_that_it_had_change_nothing(self, make: Make) -> None:
        async with self.opened(make) as (engine, reference):
            fill(reference, 20)
            for doc in reference.docs[::3]:
                reference.delete(doc)
            fill(reference, 9, seed=8)
            for end in (7, 25, 12, len(reference.written), 30, len(reference.written)):
                await engine.apply(reference.written[:end], reference.written[end - 1].seq)
            assert engine.applied == reference.seq
            await self.check_all(engine, reference)
            await engine.apply(reference.written[3:6], reference.seq)
            await self.check_all(engine, reference)

    async def test_no_entries_may_lead_further(self, make: Make) -> None:
        async with self.filled(make) as (engine, reference):
            await engine.apply([], reference.seq + 10)
            assert engine.applied == reference.seq + 10
            await engine.apply([], reference.seq)
            assert engine.applied == reference.seq + 10
            await self.check_all(engine, reference)

    async def test_documents_with_odd_names_and_without_metadata_are_found(self, make: Make) -> None:
        async with self.opened(make) as (engine, reference):
            names = ["a/b?c#d", 'it\'s "odd" %_*?\\', "💡", "ß" * 512, " ", "Ada", "ada", "null", "0"]
            random = np.random.default_rng(2)
            for name in names:
                reference.put(name, ["cats"], random.standard_normal((1, DIMENSIONS)))
            await engine.apply(reference.written, reference.seq)
            await self.check_all(engine, reference)
            for name in names[::2]:
                reference.delete(name)
            await engine.apply(reference.written[len(names) :], reference.seq)
            await self.check_all(engine, reference)

    async def test_document_without_chunks_is_not_found(self, make: Make) -> None:
        async with self.filled(make) as (engine, reference):
            entry = reference.put("doc 3", [], [])
            await engine.apply([entry], entry.seq)
            await self.check_all(engine, reference)

    async def test_document_with_most_chunks_is_found_in_each(self, make: Make) -> None:
        async with self.opened(make) as (engine, reference):
            vectors = np.random.default_rng(3).standard_normal((4_096, DIMENSIONS))
            reference.put("long", ["cats" if n % 1_000 else "quartz" for n in range(4_096)], vectors)
            await engine.apply(reference.written, reference.seq)
            query = SearchQuery(vector=floats(vectors[4_095]), k=3)
            answer = await self.ask(engine, query)
            assert answer.hits[0].chunk == 4_095
            query = SearchQuery(mode="lexical", text="quartz", k=10)
            self.check_lexical(await self.ask(engine, query), reference, query)
            query = SearchQuery(vector=some_vector(), per_document=True)
            assert len((await self.ask(engine, query)).hits) == 1

    # -- kept

    async def test_what_was_saved_is_there_again(self, make: Make) -> None:
        index, version = index_of(**self.wish)
        reference = Reference(version.spec)
        engine = await make(index, version)
        try:
            fill(reference)
            for doc in reference.docs[::4]:
                reference.delete(doc)
            await engine.apply(reference.written, reference.seq + 3)
            await engine.save()
            before = await self._several(engine)
            await engine.close()
            engine = await make(index, version)
            assert engine.applied == reference.seq + 3
            assert await self._several(engine) == before
            await self.check_all(engine, reference)
            # And it goes on from there.
            reference.seq += 3
            since = len(reference.written)
            fill(reference, 11, seed=9)
            await engine.apply(reference.written[since:], reference.seq)
            await self.check_all(engine, reference)
            await engine.save()
            await engine.close()
            engine = await make(index, version)
            await self.check_all(engine, reference)
        finally:
            await engine.close()

    async def test_what_was_not_saved_is_taken_in_again(self, make: Make) -> None:
        index, version = index_of(**self.wish)
        reference = Reference(version.spec)
        engine = await make(index, version)
        try:
            fill(reference, 20)
            saved = reference.seq
            await engine.apply(reference.written, reference.seq)
            await engine.save()
            fill(reference, 15, seed=11)
            for doc in reference.docs[::3]:
                reference.delete(doc)
            await engine.apply(reference.written[20:], reference.seq)
            await engine.close()
            engine = await make(index, version)
            assert saved <= engine.applied <= reference.seq
            behind = [entry for entry in reference.written if entry.seq > engine.applied]
            await engine.apply(behind, reference.seq)
            await self.check_all(engine, reference)
        finally:
            await engine.close()

    async def test_versions_of_an_index_have_nothing_of_each_other(self, make: Make) -> None:
        index, first = index_of(**self.wish)
        second = Version(number=2, spec=first.spec, created_at=first.created_at)
        reference = Reference(first.spec)
        fill(reference, 10)
        engine, other = await make(index, first), await make(index, second)
        try:
            await engine.apply(reference.written, reference.seq)
            await self.check_all(engine, reference)
            await self.check_all(other, Reference(first.spec))
        finally:
            await engine.close()
            await other.close()

    async def _several(self, engine: Engine) -> Sequence[object]:
        """Answers of all kinds. Of words without the scores, which may know of more than what is there."""
        answers = await engine.search(
            [
                SearchQuery(vector=some_vector(), k=15),
                SearchQuery(vector=some_vector(2), k=15, filter={"lang": "en"}, per_document=True),
                SearchQuery(mode="lexical", text="cats zebra", k=1_000),
            ]
        )
        assert all(isinstance(answer, SearchAnswer) for answer in answers)
        return [
            [round(hit.score, 5) for hit in answer.hits]
            if place < 2
            else sorted((hit.doc, hit.chunk, hit.seq) for hit in answer.hits)
            for place, answer in enumerate(answers)
            if isinstance(answer, SearchAnswer)
        ]

    # -- anything at all

    machine_examples = 20
    machine_steps = 30
    machine_phases: ClassVar[tuple[Phase, ...]] = tuple(Phase)

    @pytest.mark.parametrize("metric", METRICS)
    async def test_it_has_the_answers_of_the_model_whatever_happens(self, make: Make, metric: str) -> None:
        # In a thread: the machine is no coroutine, and runs its engines in a loop of its own.
        await asyncio.to_thread(
            run_state_machine_as_test,
            machine(self, make, metric),
            settings=settings(
                max_examples=self.machine_examples,
                stateful_step_count=self.machine_steps,
                phases=self.machine_phases,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
