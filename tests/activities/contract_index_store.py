"""What every `IndexStore` does. The fixture `indexes` says which ones are asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from activities.ports import Page
from activities.retrieval_ports import MOST_PUT_BYTES, MOST_PUT_DOCUMENTS, IndexStore
from goatherd.contracts.ids import new_id
from goatherd.contracts.inference_work import Problem
from goatherd.contracts.retrieval import (
    Chunking,
    Counts,
    Document,
    DocumentIn,
    Entry,
    Index,
    IndexSpec,
    Version,
)
from goatherd.errors import Invalid

PROBLEM = Problem(code="too-long", message="no", pointer="/text", retry_after_s=1.5)
EVERYTHING = Page(limit=10_000)
STRANGE = ["a/b", "a:b", "a.$b", " ", "é", "漢字", "\uffff", "😀", "1:a", "%2F", "-" * 512]


def version(number: int = 1, **spec: Any) -> Version:
    return Version(number=number, spec=IndexSpec(dimensions=2, **spec), created_at=datetime.now(UTC))


def make_index(name: str = "a", owner: str = "ann", **fields: Any) -> Index:
    now = datetime.now(UTC)
    given = {"serving": version(), "created_at": now, "updated_at": now, **fields}
    return Index(id=new_id("idx"), name=name, owner=owner, **given)


def docs(*ids: str) -> list[DocumentIn]:
    return [DocumentIn(id=id, text=f"text of {id}", metadata={"id": id}) for id in ids]


def entry(doc: str, rev: int, *texts: str) -> Entry:
    texts = texts or (f"{doc}@{rev}",)
    spans = [(n, n + len(text)) for n, text in enumerate(texts)]
    vectors = np.full((len(texts), 2), rev, dtype="<f4").tobytes()
    return Entry(doc=doc, rev=rev, texts=list(texts), spans=spans, vectors=vectors, metadata={"rev": rev})


async def begun(store: IndexStore, *ids: str) -> str:
    """A new index that has these documents."""
    index = await store.create(make_index(new_id("idx")[4:]))
    if ids:
        await store.put(index.id, docs(*ids))
    return index.id


async def written(store: IndexStore, index: str, *ids: str) -> list[Document]:
    found = await store.put(index, docs(*ids))
    assert found is not None
    return found


async def take_in(store: IndexStore, index: str, *ids: str, number: int = 1) -> int:
    """As they are now."""
    found = await store.read(index, ids)
    return await store.take_in(index, number, [entry(one.id, one.rev) for one in found])


async def fail(store: IndexStore, index: str, *ids: str, number: int = 1) -> None:
    """As they are now."""
    found = await store.read(index, ids)
    await store.fail(index, number, [(one.id, one.rev, PROBLEM) for one in found])


async def followed(
    store: IndexStore, index: str, number: int = 1, after: int = 0, upto: int | None = None
) -> list[Entry]:
    return [one async for batch in store.entries(index, number, after=after, upto=upto) for one in batch]


async def found_of(store: IndexStore, index: str, number: int = 1) -> list[str]:
    """What searches would find, in order of entries."""
    return [one.doc for one in await followed(store, index, number)]


async def listed(
    store: IndexStore, index: str, page: Page = EVERYTHING, failed: bool | None = None
) -> list[str]:
    return [one.id for one in await store.documents(index, page, failed=failed)]


async def one_of(store: IndexStore, index: str, doc: str) -> Document:
    found = await store.document(index, doc)
    assert found is not None
    return found


async def assert_gone(store: IndexStore, index: str) -> None:
    """Nothing of an index is seen by any way."""
    assert await store.index(index) is None
    assert await store.seq(index) is None
    assert await store.counts(index) == Counts()
    assert await store.todo(index, 1, 10) == []
    assert await listed(store, index) == []
    assert await followed(store, index) == []


class IndexStoreContract:
    async def test_prepare_may_be_called_again(self, indexes: IndexStore) -> None:
        await indexes.prepare()

    # -- indexes

    async def test_an_index_is_read_as_it_was_made(self, indexes: IndexStore) -> None:
        spec = {
            "model": "org/m",
            "metric": "l2",
            "backend": "scann",
            "chunking": Chunking(size=77, overlap=7),
        }
        made = make_index(serving=version(3, **spec), metadata={"a.b": {"$c": [None, 1 << 70]}})
        assert await indexes.create(made) == made
        assert await indexes.index(made.id) == made
        assert await indexes.named("ann", "a") == made
        assert await indexes.named("bob", "a") is None
        assert await indexes.index(new_id("idx")) is None
        assert await indexes.seq(made.id) == 0

    async def test_a_name_is_one_of_a_kind_among_its_owners(self, indexes: IndexStore) -> None:
        first = await indexes.create(make_index())
        assert await indexes.create(make_index(metadata={"x": 1})) == first
        assert await indexes.create(first) == first
        other = await indexes.create(make_index(owner="bob"))
        assert other.id != first.id
        assert await indexes.named("ann", "a") == first

    async def test_of_many_that_make_an_index_one_does(self, indexes: IndexStore) -> None:
        made = await asyncio.gather(*(indexes.create(make_index()) for _ in range(8)))
        assert len({one.id for one in made}) == 1
        assert await indexes.indexes("ann", EVERYTHING) == [made[0]]

    async def test_indexes_are_listed_by_name_and_page(self, indexes: IndexStore) -> None:
        for name in ("c", "a-1", "a.1", "b", "a1"):
            await indexes.create(make_index(name))
        await indexes.create(make_index("a0", owner="bob"))

        async def names(**page: Any) -> list[str]:
            return [one.name for one in await indexes.indexes("ann", Page(**page))]

        assert await names() == ["a-1", "a.1", "a1", "b", "c"]
        assert await names(limit=2) == ["a-1", "a.1"]
        assert await names(limit=2, after="a.1") == ["a1", "b"]
        assert await names(limit=2, before="b") == ["a.1", "a1"]
        assert await names(limit=2, descending=True) == ["c", "b"]
        assert await names(limit=2, descending=True, after="b") == ["a1", "a.1"]

    async def test_an_index_is_paused_and_described_anew(self, indexes: IndexStore) -> None:
        id = await begun(indexes)
        paused = await indexes.set_paused(id, True)
        assert paused is not None
        assert paused.paused
        described = await indexes.set_metadata(id, {"a.$b": 1})
        assert described == await indexes.index(id)
        assert described is not None
        assert described.paused
        assert described.metadata == {"a.$b": 1}
        assert described.updated_at >= described.created_at
        resumed = await indexes.set_paused(id, False)
        assert resumed is not None
        assert not resumed.paused
        assert await indexes.set_paused("idx_none", True) is None
        assert await indexes.set_metadata("idx_none", {}) is None

    # -- documents

    async def test_documents_are_read_as_they_were_put(self, indexes: IndexStore) -> None:
        id = await begun(indexes)
        vector = np.array([1, -2], dtype="<f4").tobytes()
        given = [
            DocumentIn(id="x", text="a\0\n漢", vector=vector, metadata={"a.b": {"$c": [None, 1 << 70, 0.1]}}),
            DocumentIn(id="y"),
        ]
        put = await indexes.put(id, given)
        assert put is not None
        assert [one.model_dump(include=set(DocumentIn.model_fields)) for one in put] == [
            one.model_dump() for one in given
        ]
        assert [one.rev for one in put] == [1, 2]
        assert [one.todo for one in put] == [[1], [1]]
        assert await indexes.document(id, "x") == put[0]
        assert await indexes.document(id, "z") is None
        assert await indexes.read(id, ["y", "z", "x", "y"]) == put[::-1]
        assert await indexes.put("idx_none", given) is None
        assert await indexes.put(id, []) == []

    async def test_a_document_takes_the_place_of_the_one_of_its_id(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a", "b")
        first = await one_of(indexes, id, "a")
        again = await indexes.put(id, [DocumentIn(id="a", text="new")])
        assert again is not None
        assert (again[0].rev, again[0].text, again[0].metadata) == (3, "new", {})
        assert again[0].created_at == first.created_at
        assert await indexes.document(id, "a") == again[0]
        assert await listed(indexes, id) == ["a", "b"]
        assert await indexes.counts(id) == Counts(documents=2, pending=2)

    async def test_only_a_new_document_was_made_when_it_was_written(self, indexes: IndexStore) -> None:
        id = await begun(indexes)
        new: list[bool] = []
        for n in range(20):
            for one in await indexes.put(id, [DocumentIn(id="a", text=str(n))]) or ():
                new.append(one.created_at == one.updated_at)
        assert new == [True] + 19 * [False]

    async def test_of_two_of_one_id_the_later_one_counts(self, indexes: IndexStore) -> None:
        id = await begun(indexes)
        given = [DocumentIn(id="a", text="1"), DocumentIn(id="b"), DocumentIn(id="a", text="2")]
        put = await indexes.put(id, given)
        assert put is not None
        assert [one.id for one in put] == ["a", "b", "a"]
        assert put[0] == put[2]
        assert put[0].text == "2"
        assert put[0].rev > put[1].rev
        assert await indexes.counts(id) == Counts(documents=2, pending=2)
        assert await indexes.todo(id, 1, 10) == ["b", "a"]

    async def test_too_much_at_once_is_refused_and_nothing_kept(self, indexes: IndexStore) -> None:
        id = await begun(indexes)
        with pytest.raises(Invalid):
            await indexes.put(id, docs(*map(str, range(MOST_PUT_DOCUMENTS + 1))))
        half = "é" * (MOST_PUT_BYTES // 4)
        with pytest.raises(Invalid):
            await indexes.put(id, [DocumentIn(id=str(n), text=half) for n in range(3)])
        assert await indexes.counts(id) == Counts()
        assert len(await written(indexes, id, *map(str, range(MOST_PUT_DOCUMENTS)))) == MOST_PUT_DOCUMENTS

    async def test_ids_of_any_characters(self, indexes: IndexStore) -> None:
        id, other = await begun(indexes, *STRANGE), await begun(indexes, "other")
        assert await listed(indexes, id) == sorted(STRANGE)
        assert sorted(await indexes.todo(id, 1, 100)) == sorted(STRANGE)
        assert await take_in(indexes, id, *STRANGE[:5]) == 5
        await fail(indexes, id, *STRANGE[5:])
        assert await found_of(indexes, id) == STRANGE[:5]
        assert sorted(await indexes.hits(id, 1, STRANGE)) == sorted(STRANGE[:5])
        assert await listed(indexes, id, failed=True) == sorted(STRANGE[5:])
        assert await indexes.remove(id, STRANGE) == STRANGE
        assert await listed(indexes, id) == []
        assert await listed(indexes, other) == ["other"]

    async def test_documents_are_listed_by_page(self, indexes: IndexStore) -> None:
        id = await begun(indexes, *(f"{n:02}" for n in range(12)))
        await fail(indexes, id, "03", "04", "05", "10")

        async def ids(failed: bool | None = None, **page: Any) -> list[str]:
            return await listed(indexes, id, Page(**page), failed)

        assert await ids(limit=3) == ["00", "01", "02"]
        assert await ids(limit=3, after="02") == ["03", "04", "05"]
        assert await ids(limit=3, before="02") == ["00", "01"]
        assert await ids(limit=3, before="05") == ["02", "03", "04"]
        assert await ids(limit=3, descending=True) == ["11", "10", "09"]
        assert await ids(limit=3, descending=True, after="09") == ["08", "07", "06"]
        assert await ids(True, limit=3) == ["03", "04", "05"]
        assert await ids(True, limit=3, after="05") == ["10"]
        assert await ids(True, limit=2, before="10") == ["04", "05"]
        assert await ids(True, limit=2, descending=True) == ["10", "05"]
        assert await ids(False, limit=4) == ["00", "01", "02", "06"]
        assert await ids(False, limit=2, before="06") == ["01", "02"]
        assert await ids(False, limit=9, after="02") == ["06", "07", "08", "09", "11"]
        assert await ids(False, limit=2, descending=True, after="06") == ["02", "01"]

    async def test_many_documents_are_listed_by_page_from_wherever_one_begins(
        self, indexes: IndexStore
    ) -> None:
        ids = [f"{(n * 7_919) % 1_400:04}" for n in range(1_400)]
        id = await begun(indexes)
        for begin in range(0, 1_400, 700):
            await indexes.put(id, docs(*ids[begin : begin + 700]))
        assert await listed(indexes, id, Page(limit=3, after="0500")) == ["0501", "0502", "0503"]
        # What is known of where ids are may be old, from here on.
        await indexes.remove(id, [one for one in ids if "0300" <= one < "0600"])
        await written(indexes, id, "0400a", "0400b", "zz")
        await fail(indexes, id, "0100", "0400b", "1200", "1201", "zz")
        left = sorted([*(one for one in ids if not "0300" <= one < "0600"), "0400a", "0400b", "zz"])
        good = [one for one in left if one not in ("0100", "0400b", "1200", "1201", "zz")]

        async def ids_of(failed: bool | None = None, **page: Any) -> list[str]:
            return await listed(indexes, id, Page(**page), failed)

        assert await ids_of(limit=2_000) == left
        assert await ids_of(limit=2_000, descending=True) == left[::-1]
        assert await ids_of(limit=1, descending=True) == ["zz"]
        for limit, after in [(50, "0000"), (400, "0290"), (50, "0299x"), (7, "1399"), (50, "zz")]:
            at = next((n for n, one in enumerate(left) if one > after), len(left))
            assert await ids_of(limit=limit, after=after) == left[at : at + limit]
            assert (
                await ids_of(limit=limit, after=after, descending=True)
                == [one for one in left[::-1] if one < after][:limit]
            )
            assert await ids_of(limit=limit, before=after) == [one for one in left if one < after][-limit:]
            assert (
                await ids_of(False, limit=limit, after=after) == [one for one in good if one > after][:limit]
            )
        assert await ids_of(limit=900, after="0200", before="0700") == [
            one for one in left if "0200" < one < "0700"
        ]
        assert await ids_of(True, limit=2) == ["0100", "0400b"]
        assert await ids_of(True, limit=9, after="0400a") == ["0400b", "1200", "1201", "zz"]
        assert await ids_of(True, limit=2, before="1201") == ["0400b", "1200"]
        assert await ids_of(True, limit=3, descending=True, after="1201") == ["1200", "0400b", "0100"]

    async def test_what_is_removed_is_found_no_more(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a", "b", "c")
        await take_in(indexes, id, "a", "b")
        assert await indexes.remove(id, ["c", "x", "a", "a"]) == ["c", "a"]
        assert await indexes.remove(id, ["a"]) == []
        assert await indexes.remove("idx_none", ["a"]) is None
        assert await found_of(indexes, id) == ["b"]
        [left] = await followed(indexes, id)
        hit = left.model_copy(update={"vectors": b""})
        assert await indexes.hits(id, 1, ["a", "b", "c"]) == {"b": hit}
        after = await followed(indexes, id, after=2)
        assert [(one.doc, one.seq, one.deleted, one.texts) for one in after] == [("a", 3, True, [])]
        assert await indexes.todo(id, 1, 10) == []
        assert await indexes.counts(id) == Counts(documents=1, chunks=1)
        assert await indexes.document(id, "a") is None

    async def test_what_was_removed_may_come_again(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a")
        await take_in(indexes, id, "a")
        await indexes.remove(id, ["a"])
        [again] = await written(indexes, id, "a")
        assert again.rev == 2
        assert again.todo == [1]
        assert await found_of(indexes, id) == []
        assert await indexes.take_in(id, 1, [entry("a", 1)]) == 0
        assert await take_in(indexes, id, "a") == 1
        assert [(one.rev, one.seq) for one in await followed(indexes, id)] == [(2, 3)]
        assert await indexes.counts(id) == Counts(documents=1, chunks=1)

    # -- taking in

    async def test_what_is_taken_in_is_followed_in_order(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a", "b", "c")
        given = [entry("b", 2, "x", "漢\0"), entry("a", 1), Entry(doc="c", rev=3)]
        assert await indexes.take_in(id, 1, given) == 3
        numbered = [one.model_copy(update={"seq": n}) for n, one in enumerate(given, 1)]
        assert await followed(indexes, id) == numbered
        assert await followed(indexes, id, after=1) == numbered[1:]
        assert await followed(indexes, id, after=1, upto=2) == numbered[1:2]
        assert await followed(indexes, id, after=3) == []
        assert await indexes.seq(id) == 3
        found = await indexes.index(id)
        assert found is not None
        assert found.seq == 3
        assert (await one_of(indexes, id, "b")).todo == []
        assert await indexes.counts(id) == Counts(documents=3, chunks=3)
        assert await indexes.hits(id, 1, ["b", "b", "z"]) == {
            "b": numbered[0].model_copy(update={"vectors": b""})
        }

    async def test_what_was_written_first_is_to_do_first(self, indexes: IndexStore) -> None:
        id = await begun(indexes, *(f"{n}" for n in range(300)))
        await written(indexes, id, "7", "0")
        order = [f"{n}" for n in range(300) if n not in (0, 7)] + ["7", "0"]
        assert await indexes.todo(id, 1, 1_000) == order
        await take_in(indexes, id, *order[100:200])
        left = order[:100] + order[200:]
        assert await indexes.todo(id, 1, 150) == left[:150]
        await take_in(indexes, id, *left)
        assert await indexes.todo(id, 1, 150) == []
        await written(indexes, id, "3")
        assert await indexes.todo(id, 1, 150) == ["3"]
        assert await indexes.todo(id, 2, 150) == []

    async def test_what_is_of_another_revision_is_left_out(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a", "b")
        await written(indexes, id, "a")
        assert await indexes.take_in(id, 1, [entry("a", 1), entry("b", 2), entry("z", 1)]) == 1
        assert await found_of(indexes, id) == ["b"]
        assert await indexes.todo(id, 1, 10) == ["a"]
        assert await indexes.seq(id) == 1

    async def test_taken_in_again_there_is_one_of_it(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a", "b")
        assert await take_in(indexes, id, "a", "b") == 2
        assert await indexes.take_in(id, 1, [entry("a", 1, "x", "y")]) == 1
        assert [(one.doc, one.seq) for one in await followed(indexes, id)] == [("b", 2), ("a", 3)]
        assert await indexes.counts(id) == Counts(documents=2, chunks=3)
        twice = [entry("a", 1), entry("b", 2), entry("a", 1, "last")]
        assert await indexes.take_in(id, 1, twice) == 2
        assert [one.texts for one in await followed(indexes, id)] == [["b@2"], ["last"]]

    async def test_what_a_document_said_is_found_until_the_new_is_taken_in(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a")
        await take_in(indexes, id, "a")
        await written(indexes, id, "a")
        assert [one.rev for one in await followed(indexes, id)] == [1]
        assert await indexes.counts(id) == Counts(documents=1, pending=1, chunks=1)
        await take_in(indexes, id, "a")
        assert [(one.rev, one.seq) for one in await followed(indexes, id)] == [(2, 2)]

    async def test_a_version_that_is_none_takes_nothing_in(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a")
        assert await indexes.take_in(id, 2, [entry("a", 1)]) == 0
        assert await indexes.take_in("idx_none", 1, [entry("a", 1)]) == 0
        await indexes.fail(id, 2, [("a", 1, PROBLEM)])
        await indexes.fail("idx_none", 1, [("a", 1, PROBLEM)])
        assert await followed(indexes, id, 2) == []
        assert await indexes.counts(id) == Counts(documents=1, pending=1)
        assert await indexes.missing(id, 2) == 0
        assert await indexes.take_in(id, 1, []) == 0

    # -- failing

    async def test_what_fails_is_not_to_do_and_says_why(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a", "b")
        await indexes.fail(id, 1, [("a", 1, PROBLEM), ("b", 1, PROBLEM), ("z", 1, PROBLEM)])
        failed = await one_of(indexes, id, "a")
        assert (failed.error, failed.todo) == (PROBLEM, [])
        assert (await one_of(indexes, id, "b")).error is None
        assert await indexes.todo(id, 1, 10) == ["b"]
        assert await indexes.counts(id) == Counts(documents=2, pending=1, failed=1)
        assert await listed(indexes, id, failed=True) == ["a"]
        assert await listed(indexes, id, failed=False) == ["b"]

    async def test_what_fails_takes_away_what_was_said_before(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a", "b")
        await take_in(indexes, id, "a", "b")
        await written(indexes, id, "a")
        await fail(indexes, id, "a")
        assert await found_of(indexes, id) == ["b"]
        assert await indexes.hits(id, 1, ["a"]) == {}
        after = await followed(indexes, id, after=2)
        assert [(one.doc, one.deleted, one.seq) for one in after] == [("a", True, 3)]
        assert await indexes.counts(id) == Counts(documents=2, failed=1, chunks=1)

    async def test_a_new_revision_has_not_failed(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a")
        await fail(indexes, id, "a")
        [again] = await written(indexes, id, "a")
        assert (again.error, again.todo) == (None, [1])
        assert await one_of(indexes, id, "a") == again
        assert await listed(indexes, id, failed=True) == []
        assert await indexes.todo(id, 1, 10) == ["a"]
        assert await indexes.counts(id) == Counts(documents=1, pending=1)
        assert await indexes.retry(id) == 0

    async def test_what_was_removed_has_not_failed(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a")
        await fail(indexes, id, "a")
        await indexes.remove(id, ["a"])
        assert await indexes.counts(id) == Counts()
        assert await listed(indexes, id, failed=True) == []
        assert await indexes.retry(id) == 0

    async def test_what_failed_is_taken_in_when_it_is_tried_again_and_not_before(
        self, indexes: IndexStore
    ) -> None:
        id = await begun(indexes, "a")
        await fail(indexes, id, "a")
        assert await take_in(indexes, id, "a") == 0
        assert (await one_of(indexes, id, "a")).error == PROBLEM
        assert await indexes.counts(id) == Counts(documents=1, failed=1)
        assert await indexes.retry(id) == 1
        assert await take_in(indexes, id, "a") == 1
        assert (await one_of(indexes, id, "a")).error is None
        assert await indexes.counts(id) == Counts(documents=1, chunks=1)
        await fail(indexes, id, "a")
        await fail(indexes, id, "a")
        assert await found_of(indexes, id) == []
        assert await indexes.counts(id) == Counts(documents=1, failed=1)

    async def test_all_that_failed_is_to_do_again(self, indexes: IndexStore) -> None:
        id = await begun(indexes, *"abcde")
        await take_in(indexes, id, "a", "c")
        await fail(indexes, id, "b", "d", "e")
        assert await indexes.todo(id, 1, 10) == []
        assert await indexes.retry(id) == 3
        assert await indexes.retry(id) == 0
        assert await indexes.retry("idx_none") == 0
        assert await indexes.todo(id, 1, 10) == ["b", "d", "e"]
        assert await indexes.missing(id, 1) == 3
        assert await listed(indexes, id, failed=True) == []
        assert await indexes.counts(id) == Counts(documents=5, pending=3, chunks=2)
        assert await found_of(indexes, id) == ["a", "c"]

    async def test_what_is_to_do_is_cancelled(self, indexes: IndexStore) -> None:
        id = await begun(indexes, *"abc")
        await take_in(indexes, id, "a", "b")
        await written(indexes, id, "b")
        assert await indexes.cancel(id) == 2
        assert await indexes.cancel(id) == 0
        assert await indexes.cancel("idx_none") == 0
        assert await indexes.todo(id, 1, 10) == []
        assert await found_of(indexes, id) == ["a"]
        error = (await one_of(indexes, id, "b")).error
        assert error is not None
        assert error.code == "cancelled"
        assert await indexes.counts(id) == Counts(documents=3, failed=2, chunks=1)
        assert await indexes.retry(id) == 2
        assert await indexes.todo(id, 1, 10) == ["c", "b"]

    async def test_what_is_cancelled_in_hand_stays_so(self, indexes: IndexStore) -> None:
        id = await begun(indexes, *"abc")
        await indexes.build(id, version(2))
        in_hand = [entry(one.id, one.rev) for one in await indexes.read(id, "abc")]
        await indexes.take_in(id, 2, in_hand[:1])
        await indexes.cancel(id)
        [anew] = await written(indexes, id, "c")
        given = [*in_hand[:2], entry("c", anew.rev)]
        assert await indexes.take_in(id, 1, given) == 1
        assert await indexes.take_in(id, 2, given) == 2
        assert await found_of(indexes, id, 1) == ["c"]
        assert await found_of(indexes, id, 2) == ["a", "c"]
        assert await indexes.counts(id) == Counts(documents=3, failed=1, chunks=1)
        assert await listed(indexes, id, failed=True) == ["a", "b"]

    async def test_more_is_cancelled_and_tried_again_than_a_transaction_has(
        self, indexes: IndexStore
    ) -> None:
        ids = [f"{n:04}" for n in range(600)]
        id = await begun(indexes, *ids)
        assert await indexes.cancel(id) == 600
        assert await indexes.counts(id) == Counts(documents=600, failed=600)
        assert await indexes.retry(id) == 600
        assert await indexes.todo(id, 1, 2_000) == ids
        assert await take_in(indexes, id, *ids) == 600
        assert await found_of(indexes, id) == ids
        assert await indexes.remove(id, ids) == ids
        assert [one.deleted for one in await followed(indexes, id, after=1)] == [True] * 600

    # -- versions

    async def test_a_version_is_built_beside_the_one_that_serves(self, indexes: IndexStore) -> None:
        id = await begun(indexes, *"abc")
        await take_in(indexes, id, "a", "b")
        await fail(indexes, id, "c")
        new = version(2, metric="ip")
        built = await indexes.build(id, new)
        assert built is not None
        assert (built.building, built.serving.number) == (new, 1)
        assert await indexes.build(id, version(2, metric="l2")) == built
        assert await indexes.index(id) == built
        assert await indexes.todo(id, 2, 10) == ["a", "b", "c"]
        assert await indexes.todo(id, 1, 10) == []
        assert await indexes.counts(id) == Counts(documents=3, pending=3, chunks=2)
        stood = await one_of(indexes, id, "c")
        assert (stood.todo, stood.error) == ([2], PROBLEM)
        [more] = await written(indexes, id, "d")
        assert more.todo == [1, 2]
        assert await take_in(indexes, id, "a", "d", number=2) == 2
        assert await found_of(indexes, id, 2) == ["a", "d"]
        assert await found_of(indexes, id, 1) == ["a", "b"]
        assert await indexes.todo(id, 2, 10) == ["b", "c"]
        assert await indexes.todo(id, 1, 10) == ["d"]
        assert await indexes.build("idx_none", new) is None

    async def test_a_version_that_has_everything_serves(self, indexes: IndexStore) -> None:
        id = await begun(indexes, *"abc")
        await take_in(indexes, id, *"abc")
        await indexes.build(id, version(2))
        assert await indexes.missing(id, 2) == 3
        await take_in(indexes, id, "a", "b", number=2)
        assert await indexes.missing(id, 2) == 1
        await fail(indexes, id, "c", number=2)
        assert await indexes.missing(id, 2) == 0
        assert (await indexes.counts(id)).chunks == 3
        swapped = await indexes.swap(id, 2)
        assert swapped is not None
        assert (swapped.serving.number, swapped.building) == (2, None)
        assert await indexes.swap(id, 2) == swapped == await indexes.index(id)
        assert await indexes.counts(id) == Counts(documents=3, failed=1, chunks=2)
        assert await take_in(indexes, id, "a", number=1) == 0
        assert await indexes.todo(id, 1, 10) == []
        assert (await one_of(indexes, id, "a")).todo == []
        assert await indexes.swap("idx_none", 2) is None

    async def test_what_would_be_lost_if_a_version_served_is_told(self, indexes: IndexStore) -> None:
        id = await begun(indexes, *"abcdef")
        await take_in(indexes, id, *"abcde")
        await fail(indexes, id, "f")
        await indexes.build(id, version(2))
        assert await indexes.lacking(id, 2, 10) == list("abcde")
        assert await indexes.lacking(id, 2, 2) == ["a", "b"]
        await take_in(indexes, id, "a", number=2)
        await fail(indexes, id, "f", "e", "d", number=2)
        assert await indexes.lacking(id, 2, 10) == ["d", "e", "b", "c"]
        await written(indexes, id, "b")
        assert await indexes.lacking(id, 2, 10) == ["d", "e", "c", "b"]
        await take_in(indexes, id, "b", "c", number=2)
        assert await indexes.lacking(id, 2, 10) == ["d", "e"]
        await indexes.remove(id, ["d"])
        assert await indexes.lacking(id, 2, 10) == ["e"]
        await indexes.retry(id)
        assert await indexes.lacking(id, 2, 10) == ["e"]
        await take_in(indexes, id, "e", number=2)
        assert await indexes.lacking(id, 2, 10) == []
        assert await indexes.lacking(id, 1, 10) == []
        assert await indexes.lacking(id, 3, 10) == []
        assert await indexes.lacking("idx_none", 1, 10) == []

    async def test_what_a_version_has_only_as_it_was_earlier_would_be_lost(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a", "b", "c")
        await indexes.build(id, version(2))
        for number in (1, 2):
            await take_in(indexes, id, "a", "b", number=number)
        await written(indexes, id, "a", "b")
        assert await indexes.lacking(id, 2, 10) == []
        await take_in(indexes, id, "b", "a")
        await written(indexes, id, "a")
        assert await indexes.lacking(id, 2, 10) == ["b", "a"]
        await take_in(indexes, id, "a", number=2)
        assert await indexes.lacking(id, 2, 10) == ["b"]

    async def test_more_may_be_lost_than_a_look_reads(self, indexes: IndexStore) -> None:
        ids = [f"{n:04}" for n in range(700)]
        id = await begun(indexes, *ids)
        await take_in(indexes, id, *ids[300:])
        await indexes.build(id, version(2))
        assert await indexes.lacking(id, 2, 1_000) == ids[300:]
        await fail(indexes, id, *ids, number=2)
        assert await indexes.lacking(id, 2, 1_000) == ids[300:]
        assert await indexes.lacking(id, 2, 1) == ids[300:301]

    async def test_a_version_serves_only_if_nothing_was_taken_in_since(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a")
        await indexes.build(id, version(2))
        await take_in(indexes, id, "a")
        refused = await indexes.swap(id, 2, seq=0)
        assert refused == await indexes.index(id)
        assert refused is not None
        assert refused.serving.number == 1
        swapped = await indexes.swap(id, 2, seq=1)
        assert swapped is not None
        assert swapped.serving.number == 2

    async def test_a_document_that_is_removed_is_gone_from_all_versions(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a", "b")
        await take_in(indexes, id, "a", "b")
        await indexes.build(id, version(2))
        await take_in(indexes, id, "a", number=2)
        await indexes.remove(id, ["a", "b"])
        for number in (1, 2):
            assert await found_of(indexes, id, number) == []
            assert await indexes.missing(id, number) == 0
        assert [one.doc for one in await followed(indexes, id, 1, after=1)] == ["a", "b"]
        assert [one.doc for one in await followed(indexes, id, 2, after=1)] == ["a"]
        assert await indexes.seq(id) == 6

    async def test_a_version_is_given_up(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a")
        await indexes.build(id, version(2))
        await take_in(indexes, id, "a", number=2)
        assert await indexes.abandon(id, 3) == await indexes.index(id)
        given_up = await indexes.abandon(id, 2)
        assert given_up is not None
        assert given_up.building is None
        assert await indexes.abandon(id, 2) == given_up
        assert await indexes.swap(id, 2) == given_up
        assert await indexes.counts(id) == Counts(documents=1, pending=1)
        assert await indexes.take_in(id, 2, [entry("a", 1)]) == 0
        assert await indexes.abandon("idx_none", 2) is None

    async def test_a_number_never_stands_for_two_versions(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a")
        await indexes.build(id, version(2))
        await take_in(indexes, id, "a", number=2)
        await indexes.abandon(id, 2)
        again = await indexes.build(id, version(2, metric="l2"))
        assert again is not None
        assert again.building is not None
        assert (again.building.number, again.building.spec.metric) == (3, "l2")
        assert await found_of(indexes, id, 3) == []
        other = version(7)
        in_place = await indexes.build(id, other)
        assert in_place is not None
        assert in_place.building == other
        assert await indexes.todo(id, 3, 10) == []
        assert await indexes.todo(id, 7, 10) == ["a"]

    async def test_what_fails_in_the_new_version_is_told_before_what_failed_in_the_old(
        self, indexes: IndexStore
    ) -> None:
        id = await begun(indexes, "a", "b")
        await fail(indexes, id, "a", "b")
        await indexes.build(id, version(2))
        newer = Problem(code="invalid", message="newer")
        await indexes.fail(id, 2, [("a", 1, newer)])
        assert (await one_of(indexes, id, "a")).error == newer
        assert (await one_of(indexes, id, "b")).error == PROBLEM
        assert await listed(indexes, id, failed=True) == ["a", "b"]
        assert await indexes.counts(id) == Counts(documents=2, pending=1, failed=1)
        await take_in(indexes, id, "b", number=2)
        await indexes.swap(id, 2)
        assert await listed(indexes, id, failed=True) == ["a"]
        assert await indexes.retry(id) == 1

    # -- the end of an index

    async def test_a_dropped_index_is_gone_and_its_name_is_free(self, indexes: IndexStore) -> None:
        first = await indexes.create(make_index())
        await indexes.put(first.id, docs("a", "b"))
        await take_in(indexes, first.id, "a")
        assert await indexes.drop(first.id)
        assert not await indexes.drop(first.id)
        await assert_gone(indexes, first.id)
        assert await indexes.put(first.id, docs("c")) is None
        assert await indexes.remove(first.id, ["a"]) is None
        assert await indexes.take_in(first.id, 1, [entry("b", 2)]) == 0
        assert await indexes.hits(first.id, 1, ["a"]) == {}
        assert await indexes.read(first.id, ["a"]) == []
        assert await indexes.named("ann", "a") is None
        again = await indexes.create(make_index())
        assert again.id != first.id
        assert await listed(indexes, again.id) == []
        assert await found_of(indexes, again.id) == []
        assert await indexes.counts(again.id) == Counts()

    async def test_what_was_dropped_is_swept_in_steps(self, indexes: IndexStore) -> None:
        id, other = await begun(indexes, *map(str, range(100))), await begun(indexes, "a")
        await take_in(indexes, id, *map(str, range(50)))
        await take_in(indexes, other, "a")
        assert not await indexes.sweep(id)
        assert await indexes.drop(id)
        steps = 1
        while await indexes.sweep(id, most=40):
            steps += 1
        assert 4 <= steps <= 8
        assert not await indexes.sweep(id)
        await assert_gone(indexes, id)
        assert await listed(indexes, other) == ["a"]
        assert await found_of(indexes, other) == ["a"]

    async def test_versions_that_are_no_more_are_swept(self, indexes: IndexStore) -> None:
        id = await begun(indexes, *map(str, range(30)))
        await take_in(indexes, id, *map(str, range(30)))
        await indexes.build(id, version(2))
        await take_in(indexes, id, *map(str, range(30)), number=2)
        await indexes.swap(id, 2)
        await indexes.build(id, version(3))
        await take_in(indexes, id, *map(str, range(10)), number=3)
        await indexes.abandon(id, 3)
        while await indexes.sweep(id, most=7):
            pass
        assert [len(await found_of(indexes, id, number)) for number in (1, 2, 3)] == [0, 30, 0]
        assert len(await listed(indexes, id)) == 30
        assert await indexes.counts(id) == Counts(documents=30, chunks=30)

    async def test_what_is_left_to_do_is_told_of_all_indexes(self, indexes: IndexStore) -> None:
        async def left() -> set[str]:
            return {id for id, _ in await indexes.unfinished()} & {id, other}

        id, other = await begun(indexes, "a", "b"), await begun(indexes)
        assert await left() == {id}
        assert dict(await indexes.unfinished())[id] == "ann"
        await indexes.set_paused(id, True)
        assert await left() == set()
        await indexes.set_paused(id, False)
        await take_in(indexes, id, "a")
        assert await left() == {id}
        await fail(indexes, id, "b")
        assert await left() == set()
        await indexes.build(id, version(2))
        await take_in(indexes, id, "a", "b", number=2)
        assert await left() == {id}
        await indexes.swap(id, 2)
        while await indexes.sweep(id):
            pass
        assert await left() == set()
        await indexes.drop(id)
        assert dict(await indexes.unfinished())[id] == ""
        while await indexes.sweep(id):
            pass
        assert await left() == set()

    async def test_an_index_that_only_failures_keep_from_serving_waits_for_somebody(
        self, indexes: IndexStore
    ) -> None:
        id = await begun(indexes, "a", "b", "c")

        async def is_left() -> bool:
            return id in dict(await indexes.unfinished())

        await take_in(indexes, id, "a", "b")
        await fail(indexes, id, "c")
        await indexes.build(id, version(2))
        await take_in(indexes, id, "a", number=2)
        await fail(indexes, id, "c", number=2)
        assert await is_left()
        await fail(indexes, id, "b", number=2)
        assert not await is_left()
        await written(indexes, id, "c")
        assert await is_left()
        await fail(indexes, id, "c")
        await fail(indexes, id, "c", number=2)
        assert not await is_left()
        await indexes.remove(id, ["b"])
        assert await is_left()

    # -- several at once

    async def test_nobody_who_follows_sees_a_gap(self, indexes: IndexStore) -> None:
        ids = [f"{n:03}" for n in range(240)]
        id = await begun(indexes, *ids)
        seen: list[int] = []
        done = asyncio.Event()

        async def write(part: Sequence[str]) -> None:
            for start in range(0, len(part), 6):
                assert await take_in(indexes, id, *part[start : start + 6]) == 6

        async def follow() -> None:
            while len(seen) < len(ids):
                over = done.is_set()
                seen.extend([one.seq for one in await followed(indexes, id, after=seen[-1] if seen else 0)])
                await asyncio.sleep(0)
                if over:
                    break

        reader = asyncio.create_task(follow())
        await asyncio.gather(*(write(ids[n::8]) for n in range(8)))
        done.set()
        await reader
        assert seen == list(range(1, len(ids) + 1))
        assert await indexes.counts(id) == Counts(documents=240, chunks=240)

    async def test_writers_of_one_document_leave_it_as_one_of_them_did(self, indexes: IndexStore) -> None:
        id = await begun(indexes, "a", "b")

        async def put(n: int) -> int:
            [document] = await indexes.put(id, [DocumentIn(id="a", text=str(n))]) or []
            await indexes.take_in(id, 1, [entry("a", document.rev)])
            return document.rev

        revs = await asyncio.gather(*(put(n) for n in range(12)))
        assert sorted(revs) == list(range(3, 15))
        last = await one_of(indexes, id, "a")
        assert (last.rev, last.text) == (14, str(revs.index(14)))
        entries = {one.doc: one.rev for one in await followed(indexes, id)}
        assert entries.get("a") == 14
        assert last.todo == []
        assert await indexes.counts(id) == Counts(documents=2, pending=1, chunks=1)

    async def test_removed_while_it_is_taken_in_it_is_not_found(self, indexes: IndexStore) -> None:
        ids = [f"{n:02}" for n in range(40)]
        id = await begun(indexes, *ids)
        revs = {one.id: one.rev for one in await indexes.read(id, ids)}
        await asyncio.gather(
            *(indexes.take_in(id, 1, [entry(one, revs[one])]) for one in ids),
            *(indexes.remove(id, [one]) for one in ids),
        )
        assert await found_of(indexes, id) == []
        assert await indexes.counts(id) == Counts()

    async def test_dropped_or_swapped_while_it_is_written_nothing_is_left(self, indexes: IndexStore) -> None:
        ids = [f"{n:02}" for n in range(20)]
        id = await begun(indexes, *ids)
        await indexes.build(id, version(2))
        revs = {one.id: one.rev for one in await indexes.read(id, ids)}
        await asyncio.gather(
            *(indexes.take_in(id, 1, [entry(one, revs[one])]) for one in ids),
            indexes.swap(id, 2),
            *(indexes.take_in(id, 2, [entry(one, revs[one])]) for one in ids),
        )
        while await indexes.sweep(id):
            pass
        assert await found_of(indexes, id, 1) == []
        assert sorted(await found_of(indexes, id, 2)) == ids
        assert await indexes.counts(id) == Counts(documents=20, chunks=20)
        await asyncio.gather(
            *(indexes.put(id, docs(f"more {one}")) for one in ids),
            indexes.drop(id),
            *(take_in(indexes, id, one, number=2) for one in ids),
        )
        while await indexes.sweep(id):
            pass
        await assert_gone(indexes, id)

    async def test_built_while_documents_come_none_is_missed(self, indexes: IndexStore) -> None:
        id = await begun(indexes, *(f"a{n:02}" for n in range(20)))
        await asyncio.gather(
            *(indexes.put(id, docs(f"b{n:02}", f"a{n:02}")) for n in range(10)),
            indexes.build(id, version(2)),
            *(indexes.put(id, docs(f"c{n:02}")) for n in range(10)),
        )
        todo = await indexes.todo(id, 2, 100)
        assert sorted(todo) == await listed(indexes, id)
        assert await indexes.missing(id, 2) == 40
        await take_in(indexes, id, *todo, number=2)
        assert await indexes.missing(id, 2) == 0

    async def test_what_is_tried_again_while_others_look_is_found(self, indexes: IndexStore) -> None:
        ids = [f"{n:02}" for n in range(30)]
        id = await begun(indexes, *ids)
        for _ in range(5):
            await fail(indexes, id, *ids)
            looks = [indexes.todo(id, 1, 5) for _ in range(4)]
            await asyncio.gather(*looks, indexes.retry(id), *(indexes.todo(id, 1, 50) for _ in range(4)))
            assert await indexes.todo(id, 1, 50) == ids
