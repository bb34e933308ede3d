"""Anything that may happen to an engine, beside the model."""

from __future__ import annotations

import asyncio
import string
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from activities.retrieval_ports import Engine
from goatherd.contracts.filters import flat_values
from goatherd.contracts.model import Json
from goatherd.contracts.retrieval import SearchQuery
from tests.activities.retrieval.engine_cases import (
    DIMENSIONS,
    index_of,
    some_vector,
)
from tests.activities.retrieval.engine_checks import EngineChecks, Make
from tests.activities.retrieval.reference_engine import STEMS, Reference

DOCS = st.sampled_from(string.ascii_lowercase[:8])
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(["en", "de", "1", ""]), st.sampled_from([0, 1, 1.5, -2]), st.booleans()
)
METADATA: st.SearchStrategy[Any] = st.dictionaries(
    st.sampled_from(["lang", "year", "not"]),
    st.one_of(
        VALUES,
        st.none(),
        st.lists(VALUES, max_size=3),
        st.dictionaries(st.sampled_from(["x", "y"]), VALUES, max_size=2),
    ),
    max_size=3,
)
KEYS = st.sampled_from(["lang", "year", "not", "lang.x", "year.y", "z"])


def _conditions() -> st.SearchStrategy[Any]:
    number = st.sampled_from([-2, 0, 1, 1.5])
    text = st.sampled_from(["", "1", "de", "en"])
    bounds = st.sampled_from(["gt", "gte", "lt", "lte"])
    operators: st.SearchStrategy[Any] = st.one_of(
        st.fixed_dictionaries({"eq": VALUES}),
        st.fixed_dictionaries({"in": st.lists(VALUES, max_size=3)}),
        st.fixed_dictionaries({"exists": st.booleans()}),
        st.dictionaries(bounds, number, min_size=1, max_size=3),
        st.dictionaries(bounds, text, min_size=1, max_size=3),
    )
    return st.builds(lambda key, operator: {"key": key, **operator}, KEYS, operators)


CONDITIONS: st.SearchStrategy[Any] = st.recursive(
    _conditions(),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"not": inner}),
        st.fixed_dictionaries({"and": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"or": st.lists(inner, max_size=3)}),
    ),
    max_leaves=4,
)
TEXTS = st.lists(st.sampled_from(sorted(STEMS)), min_size=1, max_size=4).map(" ".join)
SEEDS = st.integers(0, 10_000)


class EngineMachine(RuleBasedStateMachine):
    """Documents come, change, go and come back; entries are taken in late, twice, from earlier; the engine is
    saved, and begins anew."""

    def __init__(self, contract: EngineChecks, make: Make, metric: str) -> None:
        super().__init__()
        self.contract = contract
        self.make = make
        self.runner = asyncio.Runner()
        self.index, self.version = index_of(**(contract.wish | {"metric": metric}))
        self.reference = Reference(self.version.spec)
        self.engine = self.run(self._open())

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    async def _open(self) -> Engine:
        return await self.make(self.index, self.version)

    @rule(doc=DOCS, texts=st.lists(TEXTS, min_size=1, max_size=4), seed=SEEDS, metadata=METADATA)
    def put(self, doc: str, texts: list[str], seed: int, metadata: Json) -> None:
        flat_values(metadata)
        vectors = np.random.default_rng(seed).standard_normal((len(texts), DIMENSIONS))
        self.reference.put(doc, texts, vectors, metadata)

    @rule(doc=DOCS)
    def delete(self, doc: str) -> None:
        self.reference.delete(doc)

    @rule(doc=DOCS, seed=SEEDS)
    def delete_and_put(self, doc: str, seed: int) -> None:
        self.reference.delete(doc)
        self.put(doc, ["cats zebra"], seed, {"lang": "en"})

    @rule(back=st.integers(0, 6))
    def apply(self, back: int) -> None:
        self.catch_up(back)

    @rule(part=st.integers(1, 3))
    def apply_some(self, part: int) -> None:
        behind = [entry for entry in self.reference.written if entry.seq > self.engine.applied][:part]
        if behind:
            self.run(self.engine.apply(behind, behind[-1].seq))

    def catch_up(self, back: int = 0) -> None:
        """`back`: so many entries that it has come again."""
        after = self.engine.applied - back
        behind = [entry for entry in self.reference.written if entry.seq > after]
        self.run(self.engine.apply(behind, self.reference.seq))
        assert self.engine.applied == self.reference.seq

    @rule(saved=st.booleans())
    def begin_anew(self, saved: bool) -> None:
        had = self.engine.applied
        if saved:
            self.run(self.engine.save())
        self.run(self.engine.close())
        self.engine = self.run(self._open())
        assert self.engine.applied == had if saved else self.engine.applied <= had

    @rule(
        mode=st.sampled_from(["dense", "lexical", "hybrid"]),
        seed=SEEDS,
        text=TEXTS,
        k=st.sampled_from([1, 3, 50]),
        given=st.none() | CONDITIONS,
        per_document=st.booleans(),
    )
    def search(self, mode: Any, seed: int, text: str, k: int, given: Json | None, per_document: bool) -> None:
        self.catch_up()
        query = SearchQuery(
            mode=mode,
            vector=some_vector(seed),
            text=text,
            k=k,
            filter=given,
            per_document=per_document,
            explain=mode == "hybrid",
        )
        answer = self.run(self.contract.ask(self.engine, query))
        {
            "dense": self.contract.check_dense,
            "lexical": self.contract.check_lexical,
            "hybrid": self.contract.check_hybrid,
        }[mode](answer, self.reference, query)

    @invariant()
    def it_is_never_ahead(self) -> None:
        assert self.engine.applied <= self.reference.seq

    def teardown(self) -> None:
        try:
            self.catch_up()
            self.run(self.contract.check_all(self.engine, self.reference))
        finally:
            self.run(self.engine.close())
            self.runner.close()


def machine(contract: EngineChecks, make: Make, metric: str) -> type[RuleBasedStateMachine]:
    """The machine over these engines."""

    class Machine(EngineMachine):
        def __init__(self) -> None:
            super().__init__(contract, make, metric)

    return Machine
