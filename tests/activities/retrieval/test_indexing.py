"""The activities of ingestion: what is to be done next, and doing it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.backends.memory_indexes import MemoryIndexStore
from activities.indexing import (
    MOST_PLAN_BYTES,
    PARTS_AT_ONCE,
    SUSPECT,
    IndexPlanning,
    MadeEntries,
    TakingIn,
)
from goatherd.contracts.inference_work import Problem
from goatherd.contracts.retrieval import (
    AskPlan,
    Document,
    DocumentIn,
    Entry,
    Index,
    IndexSpec,
    InHand,
    Plan,
    TakeIn,
    Taken,
    Version,
    VersionOf,
)
from goatherd.errors import Invalid
from goatherd.payloads import utc_now

SPEC = IndexSpec(model="vectors", dimensions=2)
ID = "index"


def version(number: int = 1) -> Version:
    return Version(number=number, spec=SPEC, created_at=utc_now())


@pytest.fixture
async def store() -> MemoryIndexStore:
    store = MemoryIndexStore()
    now = utc_now()
    await store.create(
        Index(id=ID, name="goats", owner="ann", serving=version(), created_at=now, updated_at=now)
    )
    return store


async def put(store: MemoryIndexStore, *ids: str) -> list[Document]:
    documents: list[Document] = []
    for begin in range(0, len(ids), 1_000):
        some = [DocumentIn(id=id, text=f"text of {id}") for id in ids[begin : begin + 1_000]]
        documents += await store.put(ID, some) or []
    return documents


async def take(store: MemoryIndexStore, number: int, *documents: Document) -> None:
    await store.take_in(ID, number, [Entry(doc=one.id, rev=one.rev) for one in documents])


async def planned(store: MemoryIndexStore, **more: object) -> Plan:
    ask = AskPlan.model_validate({"index": ID, **more})
    plan: Plan = await ActivityEnvironment().run(IndexPlanning(store).plan, ask)
    return plan


# -- planning


async def test_nothing_to_do_is_an_empty_plan(store: MemoryIndexStore) -> None:
    plan = await planned(store)
    assert [(one.version.number, one.parts, one.more) for one in plan.work] == [(1, [], False)]
    assert plan == Plan(work=plan.work)


@pytest.mark.parametrize(
    ("count", "sizes", "more"),
    [
        (1, [1], False),
        (40, [32, 8], False),
        (200, [50] * 4, False),
        (600, [128] * 4 + [88], False),
        (3_000, [128] * 8, True),
    ],
)
async def test_documents_are_parted_so_that_all_lanes_have_some(
    store: MemoryIndexStore, count: int, sizes: list[int], more: bool
) -> None:
    await put(store, *(f"d{n}" for n in range(count)))
    (work,) = (await planned(store)).work
    assert [len(part) for part in work.parts] == sizes
    assert work.more is more
    assert work.parts[0][0] == "d0"
    assert PARTS_AT_ONCE == 4


async def test_a_plan_stays_small_however_long_the_ids_are(store: MemoryIndexStore) -> None:
    await put(store, *(f"{n:0500d}" for n in range(1_000)))
    plan = await planned(store)
    (work,) = plan.work
    assert work.more
    assert 100 < sum(map(len, work.parts)) < 200
    assert len(plan.model_dump_json()) < MOST_PLAN_BYTES + 4_096


async def test_what_is_in_hand_is_not_given_again(store: MemoryIndexStore) -> None:
    await put(store, "a", "b", "c")
    (work,) = (await planned(store, in_hand=[InHand(version=1, docs=["a", "c"])])).work
    assert work.parts == [["b"]]


async def test_each_version_has_its_own_work_and_who_has_enough_gets_none(store: MemoryIndexStore) -> None:
    documents = await put(store, "a", "b")
    await take(store, 1, *documents)
    await store.build(ID, version(2))
    await put(store, "c")
    work = (await planned(store)).work
    assert [(one.version.number, one.parts) for one in work] == [(1, [["c"]]), (2, [["a", "b", "c"]])]
    work = (await planned(store, busy=[2])).work
    assert [(one.version.number, one.parts) for one in work] == [(1, [["c"]]), (2, [])]


async def test_a_paused_index_and_one_that_is_gone_have_no_work(store: MemoryIndexStore) -> None:
    await put(store, "a")
    await store.set_paused(ID, True)
    assert await planned(store) == Plan(paused=True)
    await store.drop(ID)
    assert await planned(store) == Plan(gone=True)


# -- having a version serve


async def complete(store: MemoryIndexStore, number: int = 2) -> bool:
    done: bool = await ActivityEnvironment().run(
        IndexPlanning(store).complete, VersionOf(index=ID, version=number)
    )
    return done


async def test_a_version_serves_when_it_lacks_only_what_the_other_lacks(store: MemoryIndexStore) -> None:
    old = await put(store, "a", "b")
    await take(store, 1, *old)
    await store.build(ID, version(2))
    new = await put(store, "c", "b")
    assert not (await planned(store)).complete
    assert not await complete(store)
    await take(store, 2, old[0])
    assert (await planned(store)).complete
    await take(store, 1, new[0])
    assert not await complete(store)
    await take(store, 2, new[0])
    # What the other shows of this one is of before it was written anew.
    assert not await complete(store)
    await take(store, 2, new[1])
    await put(store, "b", "d")
    assert await complete(store)
    index = await store.index(ID)
    assert index is not None
    assert (index.serving.number, index.building) == (2, None)


async def test_a_version_in_which_documents_failed_does_not_take_them_from_searches(
    store: MemoryIndexStore,
) -> None:
    a, b, c = await put(store, "a", "b", "c")
    await take(store, 1, a, b)
    await store.fail(ID, 1, [("c", c.rev, Problem(code="x", message="x"))])
    await store.build(ID, version(2))
    await take(store, 2, a)
    failed = [(one.id, one.rev, Problem(code="x", message="x")) for one in (b, c)]
    await store.fail(ID, 2, failed)
    assert not (await planned(store)).complete
    assert not await complete(store)
    await store.retry(ID)
    await take(store, 2, b)
    await store.fail(ID, 2, failed[1:])
    await store.fail(ID, 1, failed[1:])
    assert (await planned(store)).complete
    assert await complete(store)


async def test_what_is_found_as_it_was_and_pending_everywhere_is_not_lost(store: MemoryIndexStore) -> None:
    a, b = await put(store, "a", "b")
    await take(store, 1, a, b)
    await store.build(ID, version(2))
    (again,) = await put(store, "a")
    await take(store, 2, b)
    # The other can be held while this one catches up.
    assert (await planned(store)).complete
    assert not await complete(store)
    await take(store, 2, again)
    assert await complete(store)


async def test_what_is_lost_while_it_is_asked_for_is_found_before_the_swap(store: MemoryIndexStore) -> None:
    class Moving(MemoryIndexStore):
        meanwhile = True

        async def lacking(self, index: str, version: int, limit: int) -> list[str]:
            found = await super().lacking(index, version, limit)
            if self.meanwhile:
                self.meanwhile = False
                await self.fail(index, version, [("a", a.rev, Problem(code="x", message="x"))])
            return found

    moving = Moving()
    there = await store.index(ID)
    assert there is not None
    await moving.create(there)
    (a,) = await put(moving, "a")
    await take(moving, 1, a)
    await moving.build(ID, version(2))
    await take(moving, 2, a)
    assert not await complete(moving)


async def test_a_swap_that_was_done_by_a_try_that_was_lost_is_done(store: MemoryIndexStore) -> None:
    await store.build(ID, version(2))
    assert await complete(store)
    assert await complete(store)


async def test_a_version_that_is_not_being_built_does_not_come_to_serve(store: MemoryIndexStore) -> None:
    assert not await complete(store)
    await store.build(ID, version(2))
    await store.abandon(ID, 2)
    assert not await complete(store)


# -- taking in


class Maker:
    """Gives each document an entry, or what a test says."""

    def __init__(self, odd: dict[str, Problem | Exception] | None = None) -> None:
        self._odd = odd or {}
        self.asked: list[str] = []

    async def make(
        self, index: str, version: Version, documents: Sequence[Document]
    ) -> AsyncIterator[MadeEntries]:
        made = MadeEntries()
        for one in documents:
            self.asked.append(one.id)
            match self._odd.get(one.id):
                case None:
                    made.entries.append(Entry(doc=one.id, rev=one.rev, texts=[one.text]))
                case Problem(code="unavailable" | "out-of-memory") as why:
                    made.passing.append((one.id, one.rev, why))
                case Problem() as why:
                    made.failed.append((one.id, one.rev, why))
                case error:
                    raise error
        yield made


def environment(*, attempt: int = 1, lost: int | None = None) -> ActivityEnvironment:
    made = ActivityEnvironment()
    details = [] if lost is None else [lost]
    made.info = replace(made.info, attempt=attempt, heartbeat_details=details)
    return made


async def taken(
    store: MemoryIndexStore,
    maker: Maker,
    *docs: str,
    alone: bool = False,
    at: ActivityEnvironment | None = None,
) -> Taken:
    part = TakeIn(index=ID, owner="ann", version=version(), docs=list(docs), alone=alone)
    done: Taken = await (at or environment()).run(TakingIn(store, maker).take_in, part)
    return done


async def test_what_is_to_do_of_a_part_is_done_and_nothing_else(store: MemoryIndexStore) -> None:
    documents = await put(store, "a", "b", "c")
    await take(store, 1, documents[0])
    await store.remove(ID, ["c"])
    maker = Maker()
    assert await taken(store, maker, "a", "b", "c") == Taken(done=1, chunks=1)
    assert maker.asked == ["b"]
    assert (await store.counts(ID)).pending == 0


async def test_what_can_never_be_taken_in_fails_and_the_rest_does_not(store: MemoryIndexStore) -> None:
    await put(store, "a", "b")
    why = Problem(code="too-long", message="no", pointer="/text")
    assert await taken(store, Maker({"a": why}), "a", "b") == Taken(done=1, failed=1, chunks=1)
    document = await store.document(ID, "a")
    assert document is not None
    assert document.error == why


async def test_what_may_pass_fails_the_try_after_the_others_are_kept(store: MemoryIndexStore) -> None:
    await put(store, "a", "b")
    why = Problem(code="unavailable", message="slow down", retry_after_s=2)
    with pytest.raises(ApplicationError) as failed:
        await taken(store, Maker({"a": why}), "a", "b")
    assert (failed.value.type, failed.value.non_retryable) == ("unavailable", False)
    assert await store.todo(ID, 1, 10) == ["a"]


async def test_memory_that_never_suffices_fails_the_document_in_the_end(store: MemoryIndexStore) -> None:
    await put(store, "a")
    maker = Maker({"a": Problem(code="out-of-memory", message="not enough memory")})
    with pytest.raises(ApplicationError):
        await taken(store, maker, "a", at=environment(attempt=9))
    assert await taken(store, maker, "a", at=environment(attempt=10)) == Taken(failed=1)


@pytest.mark.parametrize("error", [ZeroDivisionError("odd"), Invalid("odd")])
async def test_whoever_makes_what_nobody_has_foreseen_is_tried_apart_from_others(
    store: MemoryIndexStore, error: Exception
) -> None:
    await put(store, "a", "b")
    maker, late = Maker({"a": error}), environment(attempt=5)
    with pytest.raises(ApplicationError) as suspected:
        await taken(store, maker, "a", "b", at=late)
    assert (suspected.value.type, suspected.value.non_retryable) == (SUSPECT, True)
    assert await taken(store, maker, "b", alone=True, at=late) == Taken(done=1, chunks=1)
    assert await taken(store, maker, "a", alone=True, at=late) == Taken(failed=1)


@pytest.mark.parametrize(
    ("docs", "alone", "lost"), [(["a", "b"], False, 1), (["a"], False, 1), (["a", "b"], True, 0)]
)
async def test_what_its_workers_were_lost_with_is_suspected(
    store: MemoryIndexStore, docs: list[str], alone: bool, lost: int
) -> None:
    await put(store, "a", "b")
    maker = Maker()
    with pytest.raises(ApplicationError) as suspected:
        await taken(store, maker, *docs, alone=alone, at=environment(lost=lost))
    assert suspected.value.type == SUSPECT
    assert maker.asked == []


async def test_one_document_that_its_workers_were_lost_with_alone_fails(store: MemoryIndexStore) -> None:
    await put(store, "a")
    maker = Maker()
    assert await taken(store, maker, "a", alone=True, at=environment(lost=1)) == Taken(done=1, chunks=1)
    await put(store, "a")
    assert await taken(store, maker, "a", alone=True, at=environment(lost=2)) == Taken(failed=1)
    document = await store.document(ID, "a")
    assert document is not None
    assert document.error is not None
    assert document.error.code == "worker-lost-too-often"


async def test_nothing_is_taken_in_by_a_paused_index_or_a_version_that_is_no_more(
    store: MemoryIndexStore,
) -> None:
    await put(store, "a")
    await store.set_paused(ID, True)
    maker = Maker()
    assert await taken(store, maker, "a") == Taken()
    await store.set_paused(ID, False)
    await store.build(ID, version(2))
    await store.swap(ID, 2)
    assert await taken(store, maker, "a") == Taken()
    assert maker.asked == []
