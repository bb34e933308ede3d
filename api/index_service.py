"""Indexes: made, looked at, paused, built anew, deleted."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from activities.ports import Page
from api.grouped_calls import check_task
from api.idempotency import Ids
from api.index_lookup import IndexLookup
from api.index_nudges import Nudges
from api.index_schemas import CreateIndex, IndexDocument, RebuildIndex, VersionShown
from api.index_specs import (
    changed,
    check_change,
    check_wish,
    is_index_id,
    same_or_conflict,
    spec_with,
)
from api.index_vectors import embed
from api.inference_port import Inference
from goatherd.contracts.inference import fingerprint
from goatherd.contracts.inference_tasks import Task
from goatherd.contracts.model import Json
from goatherd.contracts.retrieval import MOST_DIMENSIONS, Counts, Index, IndexSpec, IndexWish, Version
from goatherd.errors import Conflict, Invalid, NotFound, WrongTask
from goatherd.security.access import Principal
from goatherd.settings import Settings

if TYPE_CHECKING:
    from activities.retrieval_ports import IndexStore

_SAMPLE = "A text."
_SAMPLE_TIMEOUT_S = 60.0


class IndexService:
    """What can be done with indexes. Every method that names one raises `NotFound`."""

    def __init__(
        self,
        store: IndexStore,
        lookup: IndexLookup,
        nudges: Nudges,
        inference: Inference,
        settings: Settings,
    ) -> None:
        self._store = store
        self._lookup = lookup
        self._nudges = nudges
        self._inference = inference
        self._settings = settings

    async def create(
        self, ids: Ids, principal: Principal, wish: CreateIndex, *, metadata: Json | None
    ) -> tuple[Index, bool]:
        """The index, and whether it is new. `metadata`: None if nothing was said of it.

        Raises:
            Conflict: there is another one of that name (`index-exists`).
            Invalid: it can't be had. `ModelNotFound`, `WrongTask`: of its model.
            Unavailable, DeadlineExceeded, TooManyRequests: its model gives no vector now.
        """
        if is_index_id(wish.name):
            raise Invalid("Looks like the id of an index: take another name.", pointer="/name")
        check_wish(wish, self._settings)
        id = ids.make("idx", "index")
        there = await self._store.named(principal.id, wish.name)
        if there is not None and there.id != id:
            newest = there.versions[-1].spec
            if wish.dimensions is None and wish.model is not None and wish.model == newest.model:
                wish = wish.model_copy(update={"dimensions": newest.dimensions})
            same_or_conflict(there, spec_with(wish, wish.dimensions or 0), metadata)
            return there, False
        spec = await self._spec(principal, wish)
        now = datetime.now(UTC)
        made = Index(
            id=id,
            name=wish.name,
            owner=principal.id,
            serving=Version(number=1, spec=spec, created_at=now),
            created_at=now,
            updated_at=now,
            metadata=metadata or {},
        )
        kept = await self._store.create(made)
        if kept.id != id:
            same_or_conflict(kept, spec, metadata)
            return kept, False
        return kept, True

    async def index(self, principal: Principal, called: str) -> Index:
        return await self._lookup.find(principal, called)

    async def indexes(self, principal: Principal, page: Page) -> list[tuple[Index, Counts]]:
        found = await self._store.indexes(principal.id, page)
        counts = await asyncio.gather(*(self._store.counts(index.id) for index in found))
        return list(zip(found, counts, strict=True))

    async def counts(self, index: Index) -> Counts:
        return await self._store.counts(index.id)

    async def set_metadata(self, principal: Principal, called: str, metadata: Json) -> Index:
        index = await self.index(principal, called)
        return _there(await self._store.set_metadata(index.id, metadata), index)

    async def delete(self, principal: Principal, called: str) -> None:
        """It is gone for everybody at once. What it had is removed by its ingestion."""
        index = await self.index(principal, called)
        if not await self._store.drop(index.id):
            _there(None, index)
        self._nudges.nudge(index)

    async def pause(self, principal: Principal, called: str) -> Index:
        """Nothing is taken in until it is resumed; what is under way may still be."""
        index = await self.index(principal, called)
        return _there(await self._store.set_paused(index.id, True), index)

    async def resume(self, principal: Principal, called: str) -> Index:
        index = await self.index(principal, called)
        index = _there(await self._store.set_paused(index.id, False), index)
        self._nudges.nudge(index)
        return index

    async def cancel(self, principal: Principal, called: str) -> tuple[Index, int, int | None]:
        """What is to do fails, and a version that is being built is given up. How many documents failed, and
        the number of that version."""
        index = await self.index(principal, called)
        given_up = None if index.building is None else index.building.number
        if index.building is not None:
            # First: else what it lacks would be failures of documents that the serving version has.
            index = _there(await self._store.abandon(index.id, index.building.number), index)
        cancelled = await self._store.cancel(index.id)
        self._nudges.nudge(index)
        return _there(await self._store.index(index.id), index), cancelled, given_up

    async def retry(self, principal: Principal, called: str) -> tuple[Index, int]:
        """All that failed is to do again. How many documents that are."""
        index = await self.index(principal, called)
        again = await self._store.retry(index.id)
        if again:
            self._nudges.nudge(index)
        return index, again

    async def rebuild(self, principal: Principal, called: str, changes: RebuildIndex) -> Index:
        """Begins a new version beside the one that serves, in place of one that is being built.

        Raises as `create` does; `Conflict` (`index-rebuilt`) if somebody else begins another.
        """
        index = await self.index(principal, called)
        wish = changed(index.serving.spec, changes)
        check_wish(wish, self._settings)
        spec = await self._spec(principal, wish)
        check_change(index.serving.spec, spec)
        number = max(version.number for version in index.versions) + 1
        version = Version(number=number, spec=spec, created_at=datetime.now(UTC))
        index = _there(await self._store.build(index.id, version), index)
        if index.building is None or index.building.spec != spec:
            raise Conflict("Somebody else has just begun to build another version.", code="index-rebuilt")
        self._nudges.nudge(index)
        return index

    async def _spec(self, principal: Principal, wish: IndexWish) -> IndexSpec:
        if wish.model is None:
            return spec_with(wish, wish.dimensions or 0)
        entry = self._inference.entry(wish.model)
        try:
            check_task(entry, Task.FEATURE_EXTRACTION)
        except WrongTask as error:
            error.pointer = "/model"
            raise
        sample = await embed(
            self._inference, wish.model, _SAMPLE, caller=principal.id, timeout_s=_SAMPLE_TIMEOUT_S
        )
        made = len(sample) // 4
        if wish.dimensions not in (None, made):
            raise Invalid(
                f"The vectors of {wish.model!r} have {made} dimensions: leave this out.",
                pointer="/dimensions",
            )
        if not 0 < made <= MOST_DIMENSIONS:
            raise Invalid(
                f"The vectors of {wish.model!r} have {made} dimensions; an index has at most "
                f"{MOST_DIMENSIONS}.",
                pointer="/model",
            )
        return spec_with(wish, made).model_copy(update={"model_print": fingerprint(entry.spec)})


def _there(found: Index | None, before: Index) -> Index:
    if found is None:
        raise NotFound(f"The index {before.name!r} has just been deleted.")
    return found


def shown(index: Index, counts: Counts) -> IndexDocument:
    """As its owner sees it."""
    building = index.building
    return IndexDocument(
        id=index.id,
        name=index.name,
        state="paused" if index.paused else "ready" if building is None else "building",
        version=index.serving.number,
        building=None if building is None else building.number,
        spec=index.serving.spec,
        versions=[
            VersionShown(
                number=version.number,
                state="serving" if version is index.serving else "building",
                spec=version.spec,
                created_at=version.created_at,
            )
            for version in index.versions
        ],
        seq=index.seq,
        counts=counts,
        created_at=index.created_at,
        updated_at=index.updated_at,
        metadata=index.metadata,
    )
