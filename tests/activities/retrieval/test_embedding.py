"""From documents to entries: chunks with a vector each, or a reason that says what to do."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from activities.backends.model_host import ModelHost
from activities.backends.retrieval.embedding import Embedding
from activities.indexing import MadeEntries
from activities.inference_ports import Made
from goatherd.contracts.inference import Limits, ModelSpec, fingerprint
from goatherd.contracts.inference_tasks import Task, Vectors
from goatherd.contracts.inference_work import Problem
from goatherd.contracts.retrieval import Chunking, Document, IndexSpec, Version
from goatherd.errors import GoatherdError, Unavailable
from goatherd.payloads import utc_now
from goatherd.settings import Settings

SMALL = Chunking(size=50, overlap=0)
FEATURES = Task.FEATURE_EXTRACTION


def settings(**models: ModelSpec) -> Settings:
    return Settings(models={"scripted": ModelSpec(provider="scripted"), **models}, model="scripted")


def scripted(**options: Any) -> ModelSpec:
    return ModelSpec(provider="scripted", task=FEATURES, options=options, limits=Limits(batch=16))


def a_document(id: str, text: str = "", vector: bytes | None = None, **more: Any) -> Document:
    now = utc_now()
    return Document(id=id, rev=7, text=text, vector=vector, created_at=now, updated_at=now, **more)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


async def made_of(embedding: Embedding, spec: IndexSpec, *documents: Document) -> MadeEntries:
    version = Version(number=1, spec=spec, created_at=utc_now())
    whole = MadeEntries()
    async for some in embedding.make("index", version, documents):
        whole.entries.extend(some.entries)
        whole.failed.extend(some.failed)
        whole.passing.extend(some.passing)
    return whole


def only_problem(made: MadeEntries) -> Problem:
    assert not made.entries
    ((doc, rev, why),) = made.failed
    assert (doc, rev) == ("a", 7)
    return why


@pytest.fixture
async def embedding() -> Embedding:
    models = {
        "small": scripted(),
        "other": scripted(dimensions=32),
        "broken": scripted(fail_load="there is no such folder"),
        "away": scripted(fail_load="not yet", fail_code="model-unavailable"),
        "moods": ModelSpec(provider="scripted", task=Task.TEXT_CLASSIFICATION),
    }
    return Embedding(ModelHost(settings(**models)))


class Given:
    """A runner whose vectors a test says."""

    def __init__(self, vectors: dict[str, Sequence[float] | GoatherdError]) -> None:
        self._vectors = vectors
        self.tasks = [FEATURES]
        self.callers: list[str] = []

    async def compute(
        self, task: Task, items: Sequence[Any], *, callers: Sequence[str], deadline: float | None = None
    ) -> list[Any]:
        from activities.inference_ports import Computed

        self.callers += callers
        return [Computed(self._of(item.inputs)) for item in items]

    def _of(self, text: str) -> Made | GoatherdError:
        given = self._vectors[text]
        if isinstance(given, GoatherdError):
            return given
        return Made(Vectors(shape=[len(given)], data=floats(*given)))


def giving(vectors: dict[str, Sequence[float] | GoatherdError]) -> tuple[Embedding, Given]:
    from contextlib import asynccontextmanager

    given = Given(vectors)

    class Host(ModelHost):
        @asynccontextmanager
        async def use(self, name: str, spec: ModelSpec) -> Any:  # type: ignore[override]
            yield given

    return Embedding(Host(settings(m=scripted()))), given


# -- chunks and their vectors


async def test_each_chunk_has_its_text_its_place_and_a_vector_of_length_one(embedding: Embedding) -> None:
    text = "One goat eats hay in the barn. Two goats eat hay in the barn. Three goats are asleep."
    spec = IndexSpec(model="small", dimensions=16, chunking=SMALL)
    made = await made_of(embedding, spec, a_document("a", text, metadata={"by": "ann"}))
    (entry,) = made.entries
    assert (entry.doc, entry.rev, entry.metadata) == ("a", 7, {"by": "ann"})
    assert entry.chunks > 1
    assert entry.texts == [text[start:end] for start, end in entry.spans]
    rows = np.frombuffer(entry.vectors, "<f4").reshape(entry.chunks, 16)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1.0)


async def test_documents_are_embedded_together_as_one_callers() -> None:
    embedding, given = giving({"x": [3.0, 4.0], "y": [0.0, 2.0]})
    spec = IndexSpec(model="m", dimensions=2)
    made = await made_of(embedding, spec, a_document("a", "x"), a_document("b", "y"))
    assert [entry.vectors for entry in made.entries] == [floats(0.6, 0.8), floats(0.0, 1.0)]
    assert given.callers == ["index@1", "index@1"]


@pytest.mark.parametrize("metric", ["ip", "l2"])
async def test_only_the_cosine_changes_vectors(metric: Any) -> None:
    embedding, _ = giving({"x": [3.0, 4.0], "y": [0.0, 0.0]})
    spec = IndexSpec(model="m", dimensions=2, metric=metric)
    made = await made_of(embedding, spec, a_document("a", "x"), a_document("b", "y"))
    assert [entry.vectors for entry in made.entries] == [floats(3, 4), floats(0, 0)]


async def test_tiny_and_huge_vectors_keep_their_direction() -> None:
    embedding, _ = giving({"x": [3e-40, 4e-40], "y": [3e17, 4e17]})
    spec = IndexSpec(model="m", dimensions=2)
    made = await made_of(embedding, spec, a_document("a", "x"), a_document("b", "y"))
    for entry in made.entries:
        assert struct.unpack("<2f", entry.vectors) == pytest.approx((0.6, 0.8), rel=1e-3)


async def test_an_empty_text_is_an_entry_without_chunks(embedding: Embedding) -> None:
    made = await made_of(embedding, IndexSpec(model="small", dimensions=16), a_document("a", " \n "))
    assert [entry.chunks for entry in made.entries] == [0]


async def test_an_index_for_words_has_chunks_without_vectors() -> None:
    spec = IndexSpec(dimensions=0, chunking=SMALL)
    made = await made_of(Embedding(), spec, a_document("a", "Many words. " * 20))
    (entry,) = made.entries
    assert entry.chunks > 3
    assert entry.vectors == b""


async def test_a_given_vector_is_one_chunk_however_long_the_text() -> None:
    text = "word " * 2_000
    made = await made_of(Embedding(), IndexSpec(dimensions=2), a_document("a", text, floats(0, 5)))
    (entry,) = made.entries
    assert (entry.texts, entry.spans, entry.vectors) == ([text], [(0, len(text))], floats(0, 1))


async def test_what_is_made_at_once_is_bounded() -> None:
    spec = IndexSpec(dimensions=0, chunking=Chunking(splitter="none"))
    documents = [a_document(f"d{n}", "x" * (1 << 20)) for n in range(20)]
    version = Version(number=1, spec=spec, created_at=utc_now())
    groups = [len(some.entries) async for some in Embedding().make("index", version, documents)]
    assert sum(groups) == 20
    assert max(groups) <= 6


async def test_an_index_may_want_fewer_dimensions_than_the_model_has(embedding: Embedding) -> None:
    spec = IndexSpec(model="other", dimensions=8)
    for _ in range(2):
        made = await made_of(embedding, spec, a_document("a", "a goat"), a_document("b", "hay"))
        assert [len(entry.vectors) for entry in made.entries] == [32, 32]
        row = np.frombuffer(made.entries[0].vectors, "<f4")
        assert math.isclose(float(np.linalg.norm(row)), 1.0, rel_tol=1e-5)


# -- what can't be


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        ([0.0, 0.0], "length 0"),
        ([math.nan, 1.0], "NaN"),
        ([math.inf, 1.0], "NaN or infinity"),
        ([3e38, 3e38], "longer than"),
        ([1.0], "makes vectors of 1 numbers, and the index wants 2"),
    ],
)
async def test_vectors_that_cannot_be_compared_fail_their_document_alone(
    vector: list[float], words: str
) -> None:
    embedding, _ = giving({"x": vector, "y": [1.0, 0.0]})
    made = await made_of(
        embedding, IndexSpec(model="m", dimensions=2), a_document("a", "x"), a_document("b", "y")
    )
    assert [entry.doc for entry in made.entries] == ["b"]
    ((doc, _, why),) = made.failed
    assert (doc, why.code) == ("a", "invalid")
    assert words in why.message


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        (None, "each document brings its vector, of 2 numbers"),
        (floats(1, 2, 3), "has 3 numbers, and the index wants 2"),
        (b"\0\0\0", "has 0.75 numbers"),
        (floats(0, 0), "length 0"),
        (floats(math.nan, 0), "NaN"),
    ],
)
async def test_a_given_vector_that_is_none_says_so(vector: bytes | None, words: str) -> None:
    why = only_problem(await made_of(Embedding(), IndexSpec(dimensions=2), a_document("a", "x", vector)))
    assert (why.code, why.pointer) == ("invalid", "/vector")
    assert words in why.message


async def test_a_text_that_the_model_refuses_says_which_chunk(embedding: Embedding) -> None:
    text = "A paragraph of its own, first of all.\n\n[[fail=too-long]] is refused."
    spec = IndexSpec(model="small", dimensions=16, chunking=SMALL)
    why = only_problem(await made_of(embedding, spec, a_document("a", text)))
    assert (why.code, why.pointer) == ("too-long", "/text")
    assert "refuses chunk 1 (characters 39 to 68)" in why.message


async def test_too_many_chunks_are_refused_before_any_work() -> None:
    spec = IndexSpec(model="m", dimensions=2, chunking=SMALL)
    embedding, given = giving({})
    text = "A sentence of forty characters is it. " * 6_000
    why = only_problem(await made_of(embedding, spec, a_document("a", text)))
    assert (why.code, why.pointer) == ("too-long", "/text")
    assert "4,096 is the most" in why.message
    assert given.callers == []


async def test_an_entry_that_is_too_large_for_the_store_is_refused() -> None:
    spec = IndexSpec(model="m", dimensions=4_096, chunking=SMALL)
    embedding, _ = giving({})
    text = "A sentence of forty characters is it. " * 1_500
    why = only_problem(await made_of(embedding, spec, a_document("a", text)))
    assert (why.code, why.pointer) == ("too-long", "/text")
    assert "12 MB is the most" in why.message


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("nowhere", "model-not-found", "Register it"),
        ("broken", "model-broken", "no such folder"),
        ("moods", "wrong-task", "text-classification"),
    ],
)
async def test_a_model_that_cannot_be_used_fails_all_and_says_what_to_do(
    embedding: Embedding, model: str, code: str, words: str
) -> None:
    made = await made_of(
        embedding, IndexSpec(model=model, dimensions=4), a_document("a", "x"), a_document("b", "y")
    )
    assert [doc for doc, _, _ in made.failed] == ["a", "b"]
    why = made.failed[0][2]
    assert (why.code, why.pointer) == (code, "/model")
    assert words in why.message
    assert "have the index retry" in why.message


async def test_a_model_that_is_away_is_no_documents_fault(embedding: Embedding) -> None:
    with pytest.raises(Unavailable, match="not yet"):
        await made_of(embedding, IndexSpec(model="away", dimensions=4), a_document("a", "x"))


async def test_an_error_that_may_pass_leaves_its_document_for_later() -> None:
    embedding, _ = giving({"x": Unavailable("slow down", retry_after_s=3), "y": [1.0, 0.0]})
    spec = IndexSpec(model="m", dimensions=2)
    made = await made_of(embedding, spec, a_document("a", "x"), a_document("b", "y"))
    assert [entry.doc for entry in made.entries] == ["b"]
    ((doc, _, why),) = made.passing
    assert (doc, why.code, why.retry_after_s) == ("a", "unavailable", 3)
    assert not made.failed


async def test_a_cancelled_one_leaves_the_model_to_others() -> None:
    slow = Embedding(ModelHost(settings(slow=scripted(batch_ms=60_000))))
    making = asyncio.create_task(made_of(slow, IndexSpec(model="slow", dimensions=16), a_document("a", "x")))
    await asyncio.wait([making], timeout=0.3)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making


async def test_a_model_that_is_another_one_now_makes_nothing(embedding: Embedding) -> None:
    spec = IndexSpec(model="small", dimensions=16, model_print=fingerprint(scripted()))
    made = await made_of(embedding, spec, a_document("a", "goats"))
    assert len(made.entries) == 1
    spec = spec.model_copy(update={"model_print": fingerprint(scripted(dimensions=32))})
    problem = only_problem(await made_of(embedding, spec, a_document("a", "goats")))
    assert problem.code == "another-model"
    assert "__rebuild" in problem.message


def test_a_models_limits_do_not_make_it_another_one() -> None:
    one = scripted(dimensions=32)
    same = one.model_copy(update={"limits": Limits(batch=2), "pinned": True, "memory_mb": 5})
    assert fingerprint(one) == fingerprint(same)
    assert fingerprint(one) != fingerprint(one.model_copy(update={"revision": "v2"}))
