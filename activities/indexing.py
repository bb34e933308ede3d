"""The activities that take documents in: thin shells around the store of indexes and who makes entries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.attending import beating, handed_over
from goatherd.contracts.inference_work import Problem
from goatherd.contracts.retrieval import (
    AskPlan,
    Document,
    Entry,
    Index,
    Plan,
    TakeIn,
    Taken,
    Version,
    VersionOf,
    VersionWork,
)
from goatherd.errors import GoatherdError, Unavailable
from goatherd.temporal import failure

if TYPE_CHECKING:  # The ports know numpy, which workflows must not load.
    from activities.retrieval_ports import IndexStore

PARTS_AT_ONCE = 4
"""Of one version."""
MOST_PART = 128
"""Documents of one part …"""
_LEAST_PART = 32
"""… and as few as that, if there are not enough of them to keep `PARTS_AT_ONCE` busy."""
PARTS_AHEAD = 8
MOST_QUICK = 32
"""Documents that are taken in without a plan."""
MOST_PLAN_BYTES = 96 * 1024
"""Of the ids in a plan, as it is kept in histories."""
_READ_AT_ONCE = 32
_GATHER_S = 0.05
_ROUNDS = 3
"""How often documents that are written anew while they are taken in are begun again at once."""
_COMPARED = 1_024
"""Documents that a version may lack and yet serve, as the one that serves lacks them, too."""

MOST_LOST = 2
"""Workers of a part: then its documents are suspected of being what these die of."""
MOST_LOST_ALONE = 3
"""Workers of one document that was alone: then it is what they die of."""
MOST_BROKEN = 5
"""Tries of a part that fails in a way that nobody has foreseen, before its documents are suspected."""
MOST_OUT_OF_MEMORY = 10
"""Tries of a part with documents for which the memory does not suffice."""
SUSPECT = "suspect"
"""The type of the error that gives a part up, so that its documents are tried apart from each other."""

Failed = tuple[str, int, Problem]
"""A document, its revision, and why it can't be taken in."""


@dataclass(frozen=True, slots=True)
class MadeEntries:
    """What became of some documents. `passing`: what may pass; these are to be tried again."""

    entries: list[Entry] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    passing: list[Failed] = field(default_factory=list)


class EntryMaker(Protocol):
    """Who makes entries of documents (`activities/backends/retrieval/embedding.py`)."""

    def make(self, index: str, version: Version, documents: Sequence[Document]) -> AsyncIterator[MadeEntries]:
        """What becomes of the documents, in groups small enough to be kept at once: each in one group.

        Raises `Unavailable` if the model can't be had now.
        """


class TakingIn:
    """The activity that works: it makes entries of documents, and keeps them."""

    def __init__(self, store: IndexStore, maker: EntryMaker) -> None:
        self._store = store
        self._maker = maker

    @activity.defn(name="index.take_in")
    async def take_in(self, part: TakeIn) -> Taken:
        """Takes in what is to do of a part, and leaves what is not.

        Errors that may pass fail this try. A part whose worker is lost again and again fails for good, as
        `SUSPECT`; if it is one document that was alone, that document fails.
        """
        # The last try left how often workers were lost before it. If it was lost itself, this one is told so.
        told = list(activity.info().heartbeat_details)
        lost = int(told[0]) + 1 if told else 0
        try:
            async with beating(lost):
                if lost >= _most_lost(part):
                    return await self._give_up(
                        part,
                        "worker-lost-too-often",
                        f"{lost} workers were lost while they took this document in, and nothing else of its "
                        "index. Change it, or have the index retry.",
                    )
                return await (self._take_first(part) if part.first else self._take_in(part))
        except GoatherdError as error:
            activity.heartbeat(-1)
            if not error.retryable:
                return await self._give_up(part, error.code, error.message, error)
            raise failure(error) from error
        except ApplicationError:
            activity.heartbeat(-1)
            raise
        except asyncio.CancelledError:
            activity.heartbeat(lost - 1)
            if (over := handed_over("these documents")) is not None:
                raise over from None
            raise
        except Exception as error:
            activity.heartbeat(-1)
            if activity.info().attempt < MOST_BROKEN:
                raise
            return await self._give_up(
                part, "error", f"It can't be taken in: {type(error).__name__}: {error}", error
            )

    async def _give_up(
        self, part: TakeIn, code: str, message: str, cause: BaseException | None = None
    ) -> Taken:
        if not part.alone or len(part.docs) > 1:
            raise ApplicationError(message, type=SUSPECT, non_retryable=True) from cause
        problem = Problem(code=code, message=message, pointer="/text")
        failed = [(one.id, one.rev, problem) for one in await self._to_do(part, part.docs)]
        await self._store.fail(part.index, part.version.number, failed)
        return Taken(failed=len(failed))

    async def _take_first(self, part: TakeIn) -> Taken:
        """Without a plan: good for an index with one version and little to do."""
        index = await self._store.index(part.index)
        if index is None or index.versions != [part.version] or index.paused:
            return Taken(more=True)
        docs = await self._store.todo(part.index, part.version.number, part.first + 1)
        taken = await self._take_in(part.model_copy(update={"docs": docs[: part.first]}))
        return taken.model_copy(update={"more": len(docs) > part.first})

    async def _to_do(self, part: TakeIn, docs: Sequence[str]) -> list[Document]:
        found = await self._store.read(part.index, docs)
        return [one for one in found if part.version.number in one.todo]

    async def _take_in(self, part: TakeIn) -> Taken:
        done = failed = chunks = 0
        left = part.docs
        for _ in range(_ROUNDS):
            again: list[str] = []
            passing: list[Problem] = []
            for begin in range(0, len(left), _READ_AT_ONCE):
                if not _wants(await self._store.index(part.index), part.version):
                    return Taken(done=done, failed=failed, chunks=chunks)
                documents = await self._to_do(part, left[begin : begin + _READ_AT_ONCE])
                async for made in self._maker.make(part.index, part.version, documents):
                    bad, good = list(made.failed), made.entries
                    for one in made.passing:
                        (bad.append(one) if _is_hopeless(one[2]) else passing.append(one[2]))
                    kept = len(good)
                    if good:
                        kept = await self._store.take_in(part.index, part.version.number, good)
                        chunks += sum(entry.chunks for entry in good)
                    if bad:
                        await self._store.fail(part.index, part.version.number, bad)
                    done, failed = done + kept, failed + len(bad)
                    if kept < len(good) or bad:
                        # Some of these may have been written anew meanwhile.
                        again += [*(entry.doc for entry in good), *(doc for doc, _, _ in bad)]
            if passing:
                longest = max(one.retry_after_s or 1.0 for one in passing)
                raise Unavailable(passing[0].message, code=passing[0].code, retry_after_s=longest)
            if not again:
                return Taken(done=done, failed=failed, chunks=chunks)
            left = again
        raise Unavailable("These documents are written anew again and again.")


def _most_lost(part: TakeIn) -> int:
    if not part.alone:
        return MOST_LOST
    return MOST_LOST_ALONE if len(part.docs) == 1 else 1


def _wants(index: Index | None, version: Version) -> bool:
    if index is None or index.paused:
        return False
    return index.version(version.number) is not None


def _is_hopeless(problem: Problem) -> bool:
    """Whether waiting does not help, as it seems."""
    return problem.code == "out-of-memory" and activity.info().attempt >= MOST_OUT_OF_MEMORY


class IndexPlanning:
    """What ingestion asks of the store alone."""

    def __init__(self, store: IndexStore) -> None:
        self._store = store

    @activity.defn(name="index.plan")
    async def plan(self, ask: AskPlan) -> Plan:
        """What is to be done next. The serving version comes first."""
        try:
            if ask.gather:
                await asyncio.sleep(_GATHER_S)
            index = await self._store.index(ask.index)
            if index is None:
                return Plan(gone=True)
            if index.paused:
                return Plan(paused=True)
            in_hand = {one.version: one.docs for one in ask.in_hand}
            work: list[VersionWork] = []
            close = False
            for version in index.versions:
                if version.number in ask.busy:
                    work.append(VersionWork(version=version))
                    continue
                known = frozenset(in_hand.get(version.number, ()))
                limit = len(known) + PARTS_AHEAD * MOST_PART
                todo = await self._store.todo(index.id, version.number, limit)
                parts, whole = _parts([doc for doc in todo if doc not in known])
                more = not whole or len(todo) == limit
                work.append(VersionWork(version=version, parts=parts, more=more))
                close = version == index.building and len(todo) < _COMPARED
            complete = close and await self._lacks_only_common(index) and not await self._is_stuck(index)
            return Plan(work=work, complete=complete)
        except GoatherdError as error:
            raise failure(error) from error

    @activity.defn(name="index.audit")
    async def audit(self, of: VersionOf) -> int:
        """Counts what a version lacks, and makes it to do again: nothing, unless something was lost."""
        async with beating():
            try:
                return await self._store.missing(of.index, of.version)
            except GoatherdError as error:
                raise failure(error) from error

    @activity.defn(name="index.complete")
    async def complete(self, of: VersionOf) -> bool:
        """Lets a version that was built serve, if it has all that the serving one has.

        Exact: nothing that can be found is lost by it, nor found as it was earlier. What neither has taken in
        yet does not count, else a stream of writes would put it off for ever. Documents that failed in it and
        are found in the other keep it from serving.
        """
        try:
            for _ in range(_ROUNDS):
                index = await self._store.index(of.index)
                if index is None:
                    return False
                if index.serving.number == of.version:
                    # An earlier try of this one did it.
                    return True
                if index.building is None or index.building.number != of.version:
                    return False
                if not await self._may_serve(index):
                    return False
                # What was found holds only as long as no version takes anything in.
                swapped = await self._store.swap(of.index, of.version, seq=index.seq)
                if swapped is not None and swapped.serving.number == of.version:
                    return True
            return False
        except GoatherdError as error:
            raise failure(error) from error

    async def _may_serve(self, index: Index) -> bool:
        """Whether nothing that can be found is lost if the version that is being built serves."""
        if index.building is None or not await self._lacks_only_common(index):
            return False
        return not await self._store.lacking(index.id, index.building.number, 1)

    async def _is_stuck(self, index: Index) -> bool:
        """Whether the version that is being built can't serve before documents that failed in it are retried,
        changed or removed."""
        if index.building is None:
            return False
        # Those that failed come first. What else it lacks is caught up with, or found by the audit.
        lacking = await self._store.lacking(index.id, index.building.number, 1)
        return any(one.error is not None for one in await self._store.read(index.id, lacking))

    async def _lacks_only_common(self, index: Index) -> bool:
        """Whether all that is to do by the version that is being built is to do by the serving one, too."""
        if index.building is None:
            return False
        lacks = await self._store.todo(index.id, index.building.number, _COMPARED)
        if not lacks or len(lacks) == _COMPARED:
            return not lacks
        serving = frozenset(await self._store.todo(index.id, index.serving.number, _COMPARED))
        return serving.issuperset(lacks)

    @activity.defn(name="index.sweep")
    async def sweep(self, of: str) -> None:
        """Removes all that a dropped index, or versions that are no more, have left."""
        async with beating():
            try:
                while await self._store.sweep(of):
                    pass
            except GoatherdError as error:
                raise failure(error) from error


def _parts(docs: Sequence[str]) -> tuple[list[list[str]], bool]:
    """Documents in parts, and whether these are all of them."""
    bytes_left, count = MOST_PLAN_BYTES, 0
    for doc in docs[: PARTS_AHEAD * MOST_PART]:
        bytes_left -= len(doc.encode()) + 3
        if bytes_left < 0 and count:
            break
        count += 1
    size = min(MOST_PART, max(_LEAST_PART, -(-count // PARTS_AT_ONCE)))
    return [list(docs[begin : min(begin + size, count)]) for begin in range(0, count, size)], count == len(
        docs
    )
