"""Documents are taken in, whatever happens meanwhile: nothing is lost, nothing is there twice."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta

import pytest
from temporalio.testing import WorkflowEnvironment

from activities.backends.memory_indexes import MemoryIndexStore
from activities.backends.retrieval.embedding import Embedding
from activities.indexing import MadeEntries
from goatherd.contracts.inference_work import Problem
from goatherd.contracts.retrieval import Document, DocumentIn, Entry, Index, IndexSpec, Version
from goatherd.errors import Unavailable
from tests.histories import runs
from tests.temporal import cli, eventually
from tests.workflows.ingestion_house import SPEC, Barn, version

WORDS_ONLY = IndexSpec(dimensions=0)
OTHER = IndexSpec(model="other", dimensions=8)


@pytest.fixture
def barn(temporal: WorkflowEnvironment) -> Barn:
    return Barn(temporal.client)


class Maker:
    """As `Embedding`, with whatever a test does before."""

    def __init__(self, barn: Barn, before: Callable[[Sequence[Document]], Awaitable[None]]) -> None:
        self._embedding = Embedding(barn.host)
        self._before = before
        self.made: list[str] = []

    async def make(
        self, index: str, version: Version, documents: Sequence[Document]
    ) -> AsyncIterator[MadeEntries]:
        await self._before(documents)
        async for made in self._embedding.make(index, version, documents):
            self.made += [entry.doc for entry in made.entries]
            yield made


async def never() -> None:
    await asyncio.Event().wait()


async def lose_the_worker() -> None:
    """As a process that is killed: no answer, and no beat any more."""
    await asyncio.sleep(0.1)  # the last beat that it sent is under way
    for task in asyncio.all_tasks():
        if getattr(task.get_coro(), "__name__", "") == "_beat":
            task.cancel()
    await never()


def numbered(entries: dict[str, Entry]) -> bool:
    seqs = [entry.seq for entry in entries.values()]
    return len(set(seqs)) == len(seqs)


# -- the way


async def test_documents_are_cut_embedded_and_numbered(barn: Barn) -> None:
    async with barn.workers():
        index = await barn.begin()
        await barn.put_many(index, 1_000)
        counts = await barn.idle(index)
        assert (counts.documents, counts.pending, counts.failed, counts.chunks) == (1_000, 0, 0, 1_000)
        entries = await barn.entries(index)
        assert len(entries) == 1_000
        assert sorted(entry.seq for entry in entries.values()) == list(range(1, 1_001))
        one = entries["d7"]
        assert (one.texts, one.spans) == (["document 7"], [(0, 10)])
        assert len(struct.unpack("<16f", one.vectors)) == 16
        # Eight parts of 128, six events each.
        assert await barn.events(index) < 100


async def test_an_index_without_a_model_needs_no_worker_with_models(barn: Barn) -> None:
    async with barn.workers():
        words, given = await barn.begin(WORDS_ONLY), await barn.begin(IndexSpec(dimensions=2))
        await barn.put(words, DocumentIn(id="a", text="only words"))
        vector = struct.pack("<2f", 3.0, 4.0)
        await barn.put(given, DocumentIn(id="a", text="x", vector=vector), DocumentIn(id="b", text="y"))
        assert (await barn.idle(words)).chunks == 1
        assert (await barn.idle(given)).failed == 1
        assert (await barn.entries(words))["a"].vectors == b""
        assert struct.unpack("<2f", (await barn.entries(given))["a"].vectors) == pytest.approx((0.6, 0.8))


async def test_a_stream_of_single_writes_is_one_run_that_ends_when_it_is_over(barn: Barn) -> None:
    async with barn.workers():
        index = await barn.begin()
        for n in range(20):
            await barn.put(index, DocumentIn(id=f"d{n}", text=f"text {n}"))
            await barn.idle(index)
        assert len(await runs(barn.client, barn.ingestion(index).id)) == 1
        assert await barn.status(index) == "RUNNING"
        await barn.ended(index)
        assert await barn.status(index) == "COMPLETED"
        assert await barn.events(index) < 20 * 22


async def test_a_nudge_that_comes_while_it_ends_is_not_lost(
    barn: Barn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.ingestion.LINGER", timedelta(milliseconds=20))
    async with barn.workers(sandboxed=False):
        index = await barn.begin()
        for n in range(40):
            await barn.put(index, DocumentIn(id=f"d{n}", text=f"text {n}"))
            await barn.idle(index, within_s=10)
            await asyncio.sleep(0.002 * (n % 20))  # so that nudges come at any point of its end
        assert len(await barn.entries(index)) == 40


async def test_it_goes_on_in_a_new_run_before_its_history_is_long(barn: Barn) -> None:
    barn.rounds = 3
    async with barn.workers():
        index = await barn.begin()
        await barn.put_many(index, 1_500)
        await barn.idle(index)
        entries = await barn.entries(index)
        assert len(entries) == 1_500
        assert numbered(entries)
        assert len(await runs(barn.client, barn.ingestion(index).id)) >= 4


# -- documents that can't be taken in


async def test_a_bad_document_fails_alone(barn: Barn) -> None:
    async with barn.workers():
        index = await barn.begin()
        texts = {"good": "a goat", "bad": "[[fail=invalid]]", "broken": "[[fail=batch]]", "fine": "some hay"}
        await barn.put(index, *(DocumentIn(id=id, text=text) for id, text in texts.items()))
        assert (await barn.idle(index)).failed == 2
        assert set(await barn.entries(index)) == {"good", "fine"}
        bad = await barn.store.document(index, "bad")
        assert bad is not None
        assert bad.error is not None
        assert (bad.error.code, bad.error.pointer) == ("invalid", "/text")
        await barn.put(index, DocumentIn(id="bad", text="good now"))
        assert (await barn.idle(index)).failed == 1
        assert set(await barn.entries(index)) == {"good", "fine", "bad"}


async def test_what_may_pass_is_waited_out(barn: Barn) -> None:
    tries = 0

    async def away(documents: Sequence[Document]) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unavailable("not yet")

    async with barn.workers(maker=Maker(barn, away)):
        index = await barn.begin()
        await barn.put_many(index, 10)
        assert (await barn.idle(index)).failed == 0
        assert tries == 3


async def test_without_its_model_documents_fail_and_say_what_to_do(barn: Barn) -> None:
    async with barn.workers():
        index = await barn.begin(IndexSpec(model="nowhere", dimensions=4))
        await barn.put_many(index, 3)
        assert (await barn.idle(index)).failed == 3
        one = await barn.store.document(index, "d0")
        assert one is not None
        assert one.error is not None
        assert (one.error.code, one.error.pointer) == ("model-not-found", "/model")
        assert "Register it" in one.error.message


async def test_what_nobody_has_foreseen_fails_the_document_that_it_comes_from(
    barn: Barn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.indexing.MOST_BROKEN", 2)

    async def odd(documents: Sequence[Document]) -> None:
        if any(one.id == "d3" for one in documents):
            raise ZeroDivisionError("odd")

    async with barn.workers(maker=Maker(barn, odd)):
        index = await barn.begin()
        await barn.put_many(index, 40)
        assert (await barn.idle(index)).failed == 1
        assert len(await barn.entries(index)) == 39
        one = await barn.store.document(index, "d3")
        assert one is not None
        assert one.error is not None
        assert "ZeroDivisionError: odd" in one.error.message


# -- workers that die


async def test_who_takes_over_from_a_worker_that_died_does_only_what_is_left(
    barn: Barn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.ingestion._LOST_AFTER", timedelta(seconds=1))
    monkeypatch.setattr("activities.indexing._READ_AT_ONCE", 8)
    begun = 0

    async def dies(documents: Sequence[Document]) -> None:
        nonlocal begun
        begun += 1
        if begun == 3:
            await lose_the_worker()

    maker = Maker(barn, dies)
    async with barn.workers(maker=maker, sandboxed=False):
        index = await barn.begin()
        await barn.put_many(index, 32)
        counts = await barn.idle(index)
        assert (counts.failed, counts.chunks) == (0, 32)
        assert sorted(maker.made) == sorted(f"d{n}" for n in range(32))
        there = await barn.store.index(index)
        assert there is not None
        assert there.seq == 32


async def test_what_kills_its_workers_is_found_and_stops_nobody_else(
    barn: Barn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.ingestion._LOST_AFTER", timedelta(seconds=1))
    killed = 0

    async def deadly(documents: Sequence[Document]) -> None:
        nonlocal killed
        if any(one.id == "d33" for one in documents):
            killed += 1
            await lose_the_worker()

    async with barn.workers(maker=Maker(barn, deadly), sandboxed=False):
        index = await barn.begin()
        await barn.put_many(index, 300)

        async def others() -> bool:
            return len(await barn.entries(index)) > 200

        await eventually(others, within_s=20)
        assert (await barn.idle(index, within_s=90)).failed == 1
        assert len(await barn.entries(index)) == 299
        one = await barn.store.document(index, "d33")
        assert one is not None
        assert one.error is not None
        assert one.error.code == "worker-lost-too-often"
        # Twice beside others, once among some, three times alone; or more, if a beat was never sent.
        assert 6 <= killed <= 8


# -- documents that change meanwhile


async def test_a_document_that_is_written_anew_meanwhile_is_taken_in_as_it_is_now(barn: Barn) -> None:
    written = False

    async def write(documents: Sequence[Document]) -> None:
        nonlocal written
        if not written and any(one.id == "d1" for one in documents):
            written = True
            await barn.put(index, DocumentIn(id="d1", text="the second text"))

    async with barn.workers(maker=Maker(barn, write)):
        index = await barn.begin()
        await barn.put_many(index, 10)
        await barn.idle(index)
        entries = await barn.entries(index)
        assert len(entries) == 10
        assert entries["d1"].texts == ["the second text"]


async def test_a_document_that_is_written_anew_after_it_was_kept_is_taken_in_again(barn: Barn) -> None:
    """Its ingestion has it in hand still, so the plan that the nudge asks for leaves it out."""

    class Slow(MemoryIndexStore):
        planned = asyncio.Event()
        kept = False

        async def todo(self, index: str, version: int, limit: int) -> list[str]:
            self.planned.set()
            return await super().todo(index, version, limit)

        async def take_in(self, index: str, version: int, entries: Sequence[Entry]) -> int:
            taken = await super().take_in(index, version, entries)
            if not self.kept:
                self.kept = True
                self.planned.clear()
                await barn.put(index, DocumentIn(id="d1", text="the second text"))
                await self.planned.wait()
            return taken

    barn.store = Slow()
    async with barn.workers():
        index = await barn.begin()
        await barn.put_many(index, 10)
        await barn.idle(index)
        assert (await barn.entries(index))["d1"].texts == ["the second text"]


async def test_a_document_that_is_removed_meanwhile_is_not_found_again(barn: Barn) -> None:
    async def remove(documents: Sequence[Document]) -> None:
        await barn.store.remove(index, ["d1"])

    async with barn.workers(maker=Maker(barn, remove)):
        index = await barn.begin()
        await barn.put_many(index, 10)
        assert (await barn.idle(index)).documents == 9
        assert "d1" not in await barn.entries(index)


# -- stopping it


async def test_a_pause_stops_it_and_a_resume_goes_on(barn: Barn) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(documents: Sequence[Document]) -> None:
        begun.set()
        await go_on.wait()

    async with barn.workers(maker=Maker(barn, wait)):
        index = await barn.begin()
        await barn.put_many(index, 300)
        await begun.wait()
        await barn.store.set_paused(index, True)
        await barn.nudge(index)
        await barn.ended(index)
        assert await barn.status(index) == "COMPLETED"
        go_on.set()
        await barn.put_many(index, 10, first=300)
        await barn.ended(index)
        assert (await barn.store.counts(index)).pending == 310
        await barn.store.set_paused(index, False)
        await barn.nudge(index)
        assert (await barn.idle(index)).chunks == 310


async def test_who_is_cancelled_by_hand_ends_and_the_next_nudge_goes_on(barn: Barn) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(documents: Sequence[Document]) -> None:
        begun.set()
        await go_on.wait()

    async with barn.workers(maker=Maker(barn, wait)):
        index = await barn.begin()
        await barn.put_many(index, 300)
        await begun.wait()
        await cli(barn.client, "workflow", "cancel", "--workflow-id", barn.ingestion(index).id)
        await barn.ended(index)
        assert await barn.status(index) == "CANCELED"
        go_on.set()
        await barn.nudge(index)
        assert (await barn.idle(index)).chunks == 300


async def test_who_is_terminated_by_hand_is_begun_anew_by_a_nudge(barn: Barn) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(documents: Sequence[Document]) -> None:
        begun.set()
        await go_on.wait()

    async with barn.workers(maker=Maker(barn, wait)):
        index = await barn.begin()
        await barn.put_many(index, 100)
        await begun.wait()
        await barn.ingestion(index).terminate()
        await barn.nudge(index)
        go_on.set()
        assert (await barn.idle(index)).chunks == 100
        entries = await barn.entries(index)
        assert len(entries) == 100
        assert numbered(entries)


async def test_of_a_dropped_index_nothing_is_left(barn: Barn) -> None:
    begun = asyncio.Event()

    async def wait(documents: Sequence[Document]) -> None:
        begun.set()
        await never()

    async with barn.workers(maker=Maker(barn, wait)):
        index = await barn.begin()
        await barn.put_many(index, 1_200)
        await begun.wait()
        await barn.store.drop(index)
        await barn.nudge(index)
        await barn.ended(index)
        assert await barn.status(index) == "COMPLETED"
        assert not await barn.store.sweep(index, 0)
        assert barn.tidied == [index]


# -- versions


class Watched(MemoryIndexStore):
    """Says what would be lost by a swap, as it is done."""

    lost: list[str] | None = None

    async def swap(self, id: str, version: int, *, seq: int | None = None) -> Index | None:
        before = await self.index(id)
        assert before is not None
        served = {one.doc: one.rev async for some in self.entries(id, before.serving.number) for one in some}
        built = {one.doc: one.rev async for some in self.entries(id, version) for one in some}
        self.lost = [doc for doc, rev in served.items() if built.get(doc, 0) < rev]
        return await super().swap(id, version, seq=seq)


async def test_a_version_is_built_beside_the_other_and_serves_when_it_has_everything(barn: Barn) -> None:
    async with barn.workers():
        index = await barn.begin()
        await barn.put_many(index, 300)
        await barn.idle(index)
        await barn.store.build(index, version(2, OTHER))
        await barn.nudge(index)
        await barn.serves(index, 2)
        entries = await barn.entries(index, 2)
        assert len(entries) == 300
        assert len(entries["d0"].vectors) == 32
        assert [of.version for of in barn.warmed] == [2]
        await eventually(lambda: _has_none(barn, index, 1))
        await eventually(lambda: _is_tidied(barn, index))


async def _is_tidied(barn: Barn, index: str) -> bool:
    return barn.tidied == [index]


async def _has_none(barn: Barn, index: str, number: int) -> bool:
    return not await barn.entries(index, number)


async def test_a_swap_among_writes_loses_nothing_that_could_be_found(barn: Barn) -> None:
    store = barn.store = Watched()
    stop = asyncio.Event()

    async def write(index: str) -> int:
        n = 0
        while not stop.is_set():
            await barn.put(index, DocumentIn(id=f"d{n % 400}", text=f"written as {n}"))
            if n % 7 == 0:
                await store.remove(index, [f"d{(n * 3) % 400}"])
            n += 1
        return n

    async with barn.workers():
        index = await barn.begin()
        await barn.put_many(index, 400)
        await barn.idle(index)
        writing = asyncio.create_task(write(index))
        await store.build(index, version(2, OTHER))
        await barn.nudge(index)
        await barn.serves(index, 2)
        stop.set()
        assert await writing > 10
        assert store.lost == []
        counts = await barn.idle(index)
        entries = await barn.entries(index, 2)
        assert len(entries) == counts.documents
        for doc, entry in entries.items():
            document = await store.document(index, doc)
            assert document is not None
            assert (entry.rev, entry.texts) == (document.rev, [document.text])


async def test_a_version_is_built_over_many_runs(barn: Barn) -> None:
    barn.rounds = 2
    async with barn.workers():
        index = await barn.begin()
        await barn.put_many(index, 600)
        await barn.store.build(index, version(2, OTHER))
        await barn.nudge(index)
        for n in range(20):
            await barn.put(index, DocumentIn(id=f"d{n}", text=f"meanwhile {n}"))
        await barn.serves(index, 2)
        assert (await barn.idle(index)).chunks == 600
        assert len(await runs(barn.client, barn.ingestion(index).id)) > 4


async def test_a_version_serves_though_nobody_can_load_it_before(
    barn: Barn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.ingestion._WARM_SOON", timedelta(milliseconds=100))
    async with barn.workers(retrieval=False, sandboxed=False):
        index = await barn.begin()
        await barn.put_many(index, 10)
        await barn.store.build(index, version(2, OTHER))
        await barn.nudge(index)
        await barn.serves(index, 2)


async def test_a_new_version_does_not_wait_for_the_serving_ones_model(barn: Barn) -> None:
    """Whoever builds it may do so because that model is away."""

    class Away(Maker):
        async def make(
            self, index: str, version: Version, documents: Sequence[Document]
        ) -> AsyncIterator[MadeEntries]:
            if version.number == 1:
                raise Unavailable("away")
            async for made in super().make(index, version, documents):
                yield made

    async with barn.workers(maker=Away(barn, lambda documents: asyncio.sleep(0))):
        index = await barn.begin()
        await barn.put_many(index, 700)
        await barn.store.build(index, version(2, OTHER))
        await barn.nudge(index)
        await barn.serves(index, 2)
        assert (await barn.idle(index)).chunks == 700


async def test_what_a_given_up_version_has_left_is_removed(
    barn: Barn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.ingestion.LINGER", timedelta(milliseconds=100))
    stuck = asyncio.Event()

    class Half(Maker):
        async def make(
            self, index: str, version: Version, documents: Sequence[Document]
        ) -> AsyncIterator[MadeEntries]:
            if version.number == 2 and any(one.id == "d250" for one in documents):
                stuck.set()
                await never()
            async for made in super().make(index, version, documents):
                yield made

    async with barn.workers(maker=Half(barn, lambda documents: asyncio.sleep(0)), sandboxed=False):
        index = await barn.begin()
        await barn.put_many(index, 300)
        await barn.idle(index)
        await barn.store.build(index, version(2, SPEC))
        await barn.nudge(index)
        await stuck.wait()
        await eventually(lambda: _has_some(barn, index, 2))
        await barn.store.abandon(index, 2)
        await barn.nudge(index)
        await barn.ended(index)
        assert not await barn.entries(index, 2)
        assert len(await barn.entries(index, 1)) == 300


async def _has_some(barn: Barn, index: str, number: int) -> bool:
    return bool(await barn.entries(index, number))


async def test_documents_that_fail_in_a_new_version_keep_it_from_serving_until_they_do_not(
    barn: Barn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.ingestion.LINGER", timedelta(milliseconds=100))
    mended = False

    class Half(Maker):
        async def make(
            self, index: str, version: Version, documents: Sequence[Document]
        ) -> AsyncIterator[MadeEntries]:
            if version.number == 1 or mended:
                async for made in super().make(index, version, documents):
                    yield made
                return
            why = Problem(code="odd", message="odd")
            yield MadeEntries(failed=[(one.id, one.rev, why) for one in documents])

    async with barn.workers(maker=Half(barn, lambda documents: asyncio.sleep(0)), sandboxed=False):
        index = await barn.begin()
        await barn.put_many(index, 60)
        await barn.idle(index)
        await barn.ended(index)
        await barn.store.build(index, version(2, OTHER))
        await barn.nudge(index)
        await barn.ended(index)
        assert await barn.status(index) == "COMPLETED"
        there = await barn.store.index(index)
        assert there is not None
        assert (there.serving.number, there.building is not None) == (1, True)
        assert len(await barn.entries(index, 1)) == 60
        assert (await barn.store.counts(index)).failed == 60
        assert await barn.store.unfinished() == []
        assert await barn.events(index) < 60
        # What comes meanwhile is found, and fails in the other.
        await barn.put(index, DocumentIn(id="more", text="more"))
        await barn.idle(index)
        assert "more" in await barn.entries(index, 1)
        mended = True
        assert await barn.store.retry(index) == 61
        await barn.nudge(index)
        await barn.serves(index, 2)
        assert len(await barn.entries(index, 2)) == 61


async def test_what_was_lost_of_a_version_is_found_before_it_serves(barn: Barn) -> None:
    class Lossy(MemoryIndexStore):
        """Takes one document in without keeping it, once."""

        lost = False

        async def take_in(self, index: str, version: int, entries: Sequence[Entry]) -> int:
            taken = await super().take_in(index, version, entries)
            if version == 2 and not self.lost:
                self.lost = True
                del self._indexes[index].entries[2][entries[0].doc]
            return taken

    barn.store = Lossy()
    async with barn.workers():
        index = await barn.begin()
        await barn.put_many(index, 50)
        await barn.idle(index)
        await barn.store.build(index, version(2, OTHER))
        await barn.nudge(index)
        await barn.serves(index, 2)
        assert len(await barn.entries(index, 2)) == 50


async def test_documents_that_are_cancelled_are_not_begun(barn: Barn) -> None:
    async with barn.deciders():
        index = await barn.begin()
        await barn.put_many(index, 50)
        assert await barn.store.cancel(index) == 50
        maker = Maker(barn, lambda documents: asyncio.sleep(0))
        async with barn.takers(maker):
            await barn.ended(index)
        assert maker.made == []
        one = await barn.store.document(index, "d0")
        assert one is not None
        assert isinstance(one.error, Problem)
        assert one.error.code == "cancelled"
