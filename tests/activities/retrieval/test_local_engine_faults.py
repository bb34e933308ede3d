"""What a `LocalEngine` does when its parts fail, and how it uses them."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from activities.backends.retrieval import local_parts
from activities.backends.retrieval.local_engine import LocalEngine, open_engine
from activities.backends.retrieval.local_parts import Parts
from activities.backends.retrieval.snapshots import Snapshots
from activities.retrieval_ports import Engine
from goatherd.contracts.retrieval import Index, IndexSpec, SearchAnswer, SearchQuery, Version, chunk_key
from goatherd.errors import GoatherdError, Invalid, ModelBroken, Unavailable
from tests.activities.retrieval.engine_cases import DIMENSIONS, fill, index_of, key_of, some_vector
from tests.activities.retrieval.engine_checks import EngineChecks, Make
from tests.activities.retrieval.engine_machine import EngineMachine
from tests.activities.retrieval.plain_parts import PlainTexts, PlainVectors, open_plain
from tests.activities.retrieval.reference_engine import Reference

SPEC = IndexSpec(dimensions=DIMENSIONS)
FAULTS = (
    ("vectors", "upsert"),
    ("vectors", "remove"),
    ("texts", "upsert"),
    ("texts", "remove"),
    ("vectors", "save"),
    ("texts", "save"),
)


class Opened:
    """Opens plain parts, and keeps them at hand."""

    def __init__(self) -> None:
        self.parts: Parts | None = None

    def __call__(self, spec: IndexSpec, folder: Path | None, live: Path) -> Parts:
        self.parts = open_plain(spec, folder, live)
        return self.parts

    @property
    def vectors(self) -> PlainVectors:
        assert self.parts is not None
        assert isinstance(self.parts.vectors, PlainVectors)
        return self.parts.vectors

    @property
    def texts(self) -> PlainTexts:
        assert self.parts is not None
        assert isinstance(self.parts.texts, PlainTexts)
        return self.parts.texts

    def fail(self, part: str, method: str) -> None:
        {"vectors": self.vectors, "texts": self.texts}[part].fail_at.append(method)

    def mend(self) -> None:
        self.vectors.fail_at.clear()
        self.texts.fail_at.clear()


@pytest.fixture
def opened() -> Opened:
    return Opened()


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path, "ix", 1, SPEC)


@pytest.fixture
async def engine(opened: Opened, snapshots: Snapshots) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(SPEC, snapshots, opened)
    yield engine
    await engine.close()


@pytest.fixture
async def reference(engine: LocalEngine) -> Reference:
    """What the engine has."""
    reference = Reference(SPEC)
    fill(reference, 20)
    await engine.apply(reference.written, reference.seq)
    return reference


async def one(engine: Engine, query: SearchQuery) -> SearchAnswer:
    (answer,) = await engine.search([query])
    assert isinstance(answer, SearchAnswer), answer
    return answer


# -- faults


@pytest.mark.parametrize(("part", "method"), FAULTS[:4])
async def test_entries_that_were_taken_in_by_half_are_taken_in_again(
    engine: LocalEngine, reference: Reference, opened: Opened, part: str, method: str
) -> None:
    before = reference.seq
    reference.put("doc 3", ["quartz"], [[1.0] * DIMENSIONS], {"lang": "sv"})
    reference.delete("doc 4")
    opened.fail(part, method)
    with pytest.raises(Unavailable, match="No space left"):
        await engine.apply(reference.written[-2:], reference.seq)
    assert engine.applied == before
    # By half or not: whatever is found is somebody's.
    answer = await one(engine, SearchQuery(vector=some_vector(), k=1_000))
    assert {hit.doc for hit in answer.hits} >= set(reference.docs) - {"doc 3"}
    with pytest.raises(Unavailable):
        await engine.save()
    await engine.apply(reference.written[-2:], reference.seq)
    await EngineChecks().check_all(engine, reference)
    assert set(opened.vectors.rows) == set(opened.texts.texts) == set(reference.chunks())
    await engine.save()


async def test_entries_that_are_overtaken_while_they_fail_leave_nothing(
    engine: LocalEngine, reference: Reference, opened: Opened
) -> None:
    opened.fail("texts", "upsert")
    failed = reference.put("doc 3", ["quartz"], [[1.0] * DIMENSIONS])
    with pytest.raises(Unavailable):
        await engine.apply([failed], failed.seq)
    # The store gives only what is valid now.
    newer = reference.put("doc 3", ["zebra"], [[-1.0] * DIMENSIONS])
    await engine.apply([newer], newer.seq)
    await EngineChecks().check_all(engine, reference)
    assert set(opened.vectors.rows) == set(opened.texts.texts) == set(reference.chunks())


async def test_fault_while_it_saves_leaves_the_last_snapshot(
    engine: LocalEngine, reference: Reference, opened: Opened, snapshots: Snapshots
) -> None:
    await engine.save()
    saved = snapshots.latest()
    entry = reference.delete("doc 1")
    await engine.apply([entry], entry.seq)
    for part in ("vectors", "texts"):
        opened.fail(part, "save")
        with pytest.raises(Unavailable, match="No space left"):
            await engine.save()
        assert snapshots.latest() == saved
    await engine.save()
    again = snapshots.latest()
    assert again is not None
    assert again.applied == reference.seq


async def test_search_that_fails_fails_for_itself_alone(
    engine: LocalEngine, reference: Reference, opened: Opened
) -> None:
    dense = SearchQuery(vector=some_vector(), k=3)
    words = SearchQuery(mode="lexical", text="cats", k=3)
    opened.texts.fail_at = ["search"]
    found, failed, again = await engine.search([dense, words, words])
    assert isinstance(found, SearchAnswer)
    assert isinstance(failed, Unavailable)
    assert isinstance(again, SearchAnswer)
    opened.vectors.fail_at = ["search 1"]
    failed, found = await engine.search([dense, words])
    assert isinstance(failed, Unavailable)
    assert isinstance(found, SearchAnswer)
    EngineChecks().check_dense(await one(engine, dense), reference, dense)


@pytest.mark.parametrize(
    "vectors", [b"", b"\0" * 4 * (DIMENSIONS - 1), np.full(8, math.nan, "<f4").tobytes()]
)
async def test_entry_with_vectors_that_are_none_changes_nothing(
    engine: LocalEngine, reference: Reference, vectors: bytes
) -> None:
    before = reference.seq
    entry = reference.put("doc 2", ["cats"], [[1.0] * DIMENSIONS])
    broken = entry.model_copy(update={"vectors": vectors})
    with pytest.raises(Invalid):
        await engine.apply([broken], broken.seq)
    assert engine.applied == before
    await engine.apply([entry], entry.seq)
    await EngineChecks().check_all(engine, reference)


async def test_hits_that_are_nobodys_are_left_out(
    engine: LocalEngine, reference: Reference, opened: Opened
) -> None:
    near = np.frombuffer(some_vector(), "<f4")
    # More than what lives: others may write words, too.
    for n in range(500):
        if n < 100:
            opened.vectors.rows[chunk_key(10_000, n)] = near / np.linalg.norm(near)
        opened.texts.texts[chunk_key(10_000, n)] = "cats zebra cats zebra"
    for per_document in (False, True):
        dense = SearchQuery(vector=some_vector(), k=5, per_document=per_document)
        EngineChecks().check_dense(await one(engine, dense), reference, dense)
        lexical = SearchQuery(mode="lexical", text="cats zebra", k=5, per_document=per_document)
        EngineChecks().check_lexical(await one(engine, lexical), reference, lexical)
        hybrid = lexical.model_copy(update={"mode": "hybrid", "vector": some_vector()})
        answer = await one(engine, hybrid)
        EngineChecks().check_hits(answer, reference, hybrid)
        assert len(answer.hits) == 5


@pytest.mark.parametrize("metric", ["cosine", "l2"])
async def test_it_has_the_answers_of_the_model_whatever_fails(tmp_path: Path, metric: str) -> None:
    opened = Opened()

    async def make(index: Index, version: Version) -> Engine:
        snapshots = Snapshots(tmp_path, index.id, version.number, version.spec)
        return LocalEngine(version.spec, snapshots, opened)

    await asyncio.to_thread(
        run_state_machine_as_test,
        _faulty(make, metric, opened),
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def _faulty(make: Make, metric: str, opened: Opened) -> type[RuleBasedStateMachine]:
    class FaultyMachine(EngineMachine):
        def __init__(self) -> None:
            super().__init__(EngineChecks(), make, metric)

        @rule(fault=st.sampled_from(FAULTS), part=st.integers(1, 5), saved=st.booleans())
        def fail(self, fault: tuple[str, str], part: int, saved: bool) -> None:
            opened.fail(*fault)
            behind = [entry for entry in self.reference.written if entry.seq > self.engine.applied][:part]
            try:
                if behind:
                    self.run(self.engine.apply(behind, behind[-1].seq))
                if saved:
                    self.run(self.engine.save())
            except Unavailable:
                pass
            opened.mend()

        @rule(saved=st.booleans())
        def begin_anew(self, saved: bool) -> None:
            if saved:
                # What was taken in by half can't be saved.
                self.catch_up()
            super().begin_anew(saved)

        def teardown(self) -> None:
            super().teardown()
            assert set(opened.vectors.rows) == set(opened.texts.texts) == set(self.reference.chunks())

    return FaultyMachine


# -- how parts are used


async def test_queries_of_a_batch_that_share_a_filter_are_one_search(
    engine: LocalEngine, reference: Reference, opened: Opened
) -> None:
    opened.vectors.calls.clear()
    queries = [SearchQuery(vector=some_vector(n), k=1 + n) for n in range(5)]
    queries += [SearchQuery(vector=some_vector(n), k=3, filter={"lang": "en", "n": 4}) for n in range(3)]
    queries += [SearchQuery(vector=some_vector(n), k=3, filter={"n": 4, "lang": "en"}) for n in range(2)]
    # These two are not the same filter, even if 1 is true.
    queries += [SearchQuery(vector=some_vector(), k=50, filter={"mixed": value}) for value in (1, True)]
    answers = await engine.search(queries)
    assert opened.vectors.calls == ["search 5", "search 5", "search 1", "search 1"]
    for query, answer in zip(queries, answers, strict=True):
        assert isinstance(answer, SearchAnswer)
        EngineChecks().check_dense(answer, reference, query)


async def test_query_for_very_many_does_not_make_the_others_slow(
    engine: LocalEngine, reference: Reference, opened: Opened
) -> None:
    opened.vectors.calls.clear()
    await engine.search([SearchQuery(vector=some_vector(n), k=k) for n, k in enumerate((10, 1_000, 10))])
    assert sorted(opened.vectors.calls) == ["search 1", "search 2"]


async def test_parts_are_used_by_one_thread_at_a_time(tmp_path: Path) -> None:
    inside, threads, together = 0, set[str](), 0

    def seen(work: Any) -> Any:
        def called(*arguments: Any, **options: Any) -> Any:
            nonlocal inside, together
            inside += 1
            together = max(together, inside)
            threads.add(threading.current_thread().name)
            try:
                return work(*arguments, **options)
            finally:
                inside -= 1

        return called

    def open_seen(spec: IndexSpec, folder: Path | None, live: Path) -> Parts:
        parts = seen(open_plain)(spec, folder, live)
        assert isinstance(parts, Parts)
        for name in ("upsert", "remove", "search", "save"):
            for part in (parts.vectors, parts.texts):
                setattr(part, name, seen(getattr(part, name)))
        return parts

    engine = LocalEngine(SPEC, Snapshots(tmp_path, "ix", 1, SPEC), open_seen)
    reference = Reference(SPEC)
    fill(reference)
    try:
        work: list[Any] = []
        for start in range(0, len(reference.written), 4):
            some = reference.written[start : start + 4]
            work.append(engine.apply(some, some[-1].seq))
            work.append(
                engine.search([SearchQuery(mode="hybrid", text="cats", vector=some_vector(start))] * 3)
            )
            work.append(engine.save())
        outcomes = await asyncio.gather(*work)
        assert all(not isinstance(one, GoatherdError) for answers in outcomes for one in answers or [])
        await EngineChecks().check_all(engine, reference)
    finally:
        await engine.close()
    assert together == 1
    assert len(threads) == 1


async def test_only_what_is_given_back_is_marked(
    engine: LocalEngine, reference: Reference, opened: Opened
) -> None:
    asked: list[tuple[int, bool]] = []
    search = opened.texts.search

    def seen(text: str, k: int, *given: Any, highlight: bool = False) -> Any:
        asked.append((k, highlight))
        return search(text, k, *given, highlight=highlight)

    opened.texts.search = seen  # type: ignore[assignment]
    query = SearchQuery(mode="hybrid", text="cats", vector=some_vector(), k=4, highlight=True, explain=True)
    answer = await one(engine, query)
    assert asked == [(100, False), (sum(hit.lexical is not None for hit in answer.hits), True)]
    assert all(bool(hit.highlights) == (hit.lexical is not None) for hit in answer.hits)


# -- begin and end


async def test_working_copy_is_gone_with_the_engine(
    engine: LocalEngine, reference: Reference, snapshots: Snapshots
) -> None:
    await engine.save()
    assert len([name for name in os.listdir(snapshots.folder) if name.startswith(".live")]) == 1
    await engine.close()
    await engine.close()
    assert not [name for name in os.listdir(snapshots.folder) if name.startswith(".live")]
    with pytest.raises(Unavailable):
        await engine.search([SearchQuery(vector=some_vector())])
    with pytest.raises(Unavailable):
        await engine.apply([], 100)


async def test_nothing_new_is_not_saved_again(
    engine: LocalEngine, reference: Reference, snapshots: Snapshots, opened: Opened
) -> None:
    await engine.save()
    first = snapshots.latest()
    await engine.save()
    assert snapshots.latest() == first
    other = LocalEngine(SPEC, snapshots, open_plain)
    try:
        await other.save()
        assert snapshots.latest() == first
    finally:
        await other.close()


async def test_engine_can_begin_with_nothing(tmp_path: Path) -> None:
    index, version = index_of(lexical="off")
    engine = open_engine(tmp_path, index, version)
    await engine.apply([], 5)
    await engine.save()
    await engine.close()
    for fresh, applied in ((False, 5), (True, 0)):
        engine = open_engine(tmp_path, index, version, fresh=fresh)
        assert engine.applied == applied
        await engine.close()


async def test_snapshot_whose_parts_do_not_fit_is_not_used(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, "ix", 1, SPEC)
    with snapshots.writing() as writing:
        parts = open_plain(SPEC, None, tmp_path / "elsewhere")
        assert isinstance(parts.vectors, PlainVectors)
        parts.vectors.rows[1] = np.ones(DIMENSIONS, np.float32)
        parts.save(writing.folder)
        parts.close()
        writing.commit(7)
    engine = LocalEngine(SPEC, snapshots, open_plain)
    assert engine.applied == 0
    await engine.close()


async def test_missing_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(local_parts, "import_module", missing)
    for wish, package in (({}, "faiss-cpu"), ({"backend": "scann"}, "scann"), ({"dimensions": 0}, "tantivy")):
        index, version = index_of(**wish)
        with pytest.raises(ModelBroken, match=package):
            open_engine(tmp_path, index, version)


async def test_words_in_elasticsearch_are_whoevers_brings_them(tmp_path: Path) -> None:
    index, version = index_of(lexical="elasticsearch")
    with pytest.raises(Unavailable, match="Elasticsearch"):
        open_engine(tmp_path, index, version)
    texts = PlainTexts()
    engine = open_engine(tmp_path, index, version, elastic_texts=lambda spec, folder, live: texts)
    reference = Reference(version.spec)
    fill(reference, 10)
    await engine.apply(reference.written, reference.seq)
    await EngineChecks().check_all(engine, reference)
    await engine.close()
    assert texts.closed


async def test_folder_that_can_not_be_worked_in_is_told(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file")
    index, version = index_of(lexical="off")
    with pytest.raises(Unavailable, match="can't be opened"):
        open_engine(tmp_path / "root", index, version)


async def test_memory_grows_with_what_it_has(engine: LocalEngine, reference: Reference) -> None:
    assert engine.memory_bytes >= 4 * DIMENSIONS * len(reference.chunks())
    assert engine.exact
    keys = {key_of(hit) for hit in (await one(engine, SearchQuery(vector=some_vector(), k=1_000))).hits}
    assert keys == set(reference.chunks())


async def test_save_that_nobody_waits_for_any_more_comes_to_its_end(
    engine: LocalEngine, reference: Reference, opened: Opened, snapshots: Snapshots
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    save = opened.vectors.save

    def slow(folder: Path) -> None:
        begun.set()
        assert go_on.wait(30)
        save(folder)

    opened.vectors.save = slow  # type: ignore[method-assign]
    saving = asyncio.create_task(engine.save())
    await asyncio.to_thread(begun.wait, 30)
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    go_on.set()
    # The next one waits for it, and finds nothing left to do.
    await engine.save()
    latest = snapshots.latest()
    assert latest is not None
    assert latest.applied == reference.seq
    assert opened.vectors.calls.count("save") == 1
