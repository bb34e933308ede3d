"""`goatherd index load`: an index gets what it lacks of some documents; again, it gets what has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from goatherd.terminal._api import Refused, Unreachable
from goatherd.terminal._index_api import IndexApi, IntakeView, KeptView
from goatherd.terminal._index_bar import IntakeMeter
from goatherd.terminal._index_document import DIGEST, BadSource, LoadedDocument, Source
from goatherd.terminal._screen import Screen

BATCH_LINES = 500
BATCH_BYTES = 1_000_000
MOST_REMOVED = 1_000
"""At once."""
_LOOK_S, _LOOK_MAX_S = 0.25, 2.0
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be done. `delete`: also remove what was loaded before, whose id begins with `prefix`, and
    that is in no source now. `wait`: until all is taken in."""

    index: str
    delete: bool = False
    prefix: str = ""
    wait: bool = True


@dataclass(slots=True)
class Loaded:
    """What became of it. `failed`: documents of these sources that the index can't take in."""

    index: str
    sent: int = 0
    unchanged: int = 0
    removed: int = 0
    refused: int = 0
    left_out: int = 0
    failed: int = 0
    pending: int = 0

    @property
    def whole(self) -> bool:
        return not self.refused and not self.left_out and not self.failed

    def told(self) -> str:
        named = (
            (self.sent, "sent"),
            (self.unchanged, "unchanged"),
            (self.removed, "removed"),
            (self.refused, "refused"),
            (self.left_out, "left out"),
            (self.failed, "failed"),
            (self.pending, "not taken in yet"),
        )
        return ", ".join(f"{count:,} {name}" for count, name in named if count) or "nothing to do"


@dataclass(slots=True)
class _Known:
    """What is known before anything is sent: what the index has (a digest, or None if it was not loaded),
    what the sources have, and how much of that is to be sent."""

    has: dict[str, str | None]
    seen: set[str] = field(default_factory=set)
    to_send: int = 0

    def lacks(self, document: LoadedDocument) -> bool:
        return self.has.get(document.id) != document.digest()

    def gone(self, prefix: str) -> list[str]:
        loaded = (id for id, digest in self.has.items() if digest is not None)
        unread = tuple(id for id in self.seen if id.endswith("/"))
        return [
            id for id in loaded if id.startswith(prefix) and id not in self.seen and not id.startswith(unread)
        ]


async def load(
    api: IndexApi,
    screen: Screen,
    meter: IntakeMeter,
    sources: Sequence[Source],
    wish: Wish,
    *,
    look_s: float = _LOOK_S,
) -> Loaded:
    """Sends what the index lacks, and waits until it is taken in.

    Raises:
        BadSource: before anything is sent.
    """
    before = (await api.index(wish.index)).counts
    known = _Known(await _digests(api, wish.index) if before.documents else {})
    loaded = Loaded(wish.index)
    left_out = _survey(sources, known)
    loaded.left_out = len(left_out)
    _tell(screen, [f"{id}: {why}." for id, why in left_out.items()], "are left out")
    loaded.unchanged = len(known.seen) - len(left_out) - known.to_send
    try:
        with meter.begun(known.to_send):
            if known.to_send:
                await _send(api, screen, meter, sources, known, loaded)
            if wish.delete:
                loaded.removed = await _remove(api, wish.index, known.gone(wish.prefix))
            if wish.wait and (loaded.sent or before.pending):
                loaded.pending = await _taken_in(api, screen, meter, loaded, look_s)
    except (Refused, Unreachable, OSError, asyncio.CancelledError):
        screen.notice(
            f"It is not complete: {loaded.told()}. What was sent stays, and the same command again sends the "
            "rest."
        )
        raise
    await _tell_failed(api, screen, known, loaded)
    return loaded


async def _digests(api: IndexApi, index: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    async with aclosing(api.documents(index)) as documents:
        async for document in documents:
            digest = document.metadata.get(DIGEST)
            found[document.id] = digest if isinstance(digest, str) else None
    return found


def _survey(sources: Sequence[Source], known: _Known) -> dict[str, str]:
    """Reads all once; gives what is left out, and why."""
    left_out: dict[str, str] = {}
    for source in sources:
        for document in source.documents():
            if document.id in known.seen:
                raise BadSource(
                    f"There are two documents {document.id!r}, and an id is one of a kind: load one of them "
                    "on its own, with a --prefix."
                )
            known.seen.add(document.id)
            known.to_send += known.lacks(document)
        left_out |= source.left_out
    known.seen |= left_out.keys()
    if not known.seen:
        raise BadSource("There is no document in it: nothing is sent.")
    return left_out


async def _send(
    api: IndexApi,
    screen: Screen,
    meter: IntakeMeter,
    sources: Sequence[Source],
    known: _Known,
    loaded: Loaded,
) -> None:
    refused: list[str] = []
    for batch in _batches(sources, known):
        answer = await api.put_lines(loaded.index, b"".join(line for _, line in batch))
        loaded.sent += answer.kept
        loaded.refused += answer.refused
        refused += _refusals(answer, [id for id, _ in batch])
        meter.at(loaded.sent, _taken(loaded, answer.counts), loaded.refused)
    _tell(screen, refused, "are refused", loaded.refused)


def _batches(sources: Sequence[Source], known: _Known) -> Iterator[list[tuple[str, bytes]]]:
    batch: list[tuple[str, bytes]] = []
    size = 0
    for source in sources:
        for document in source.documents():
            if not known.lacks(document):
                continue
            line = document.line()
            if batch and (len(batch) == BATCH_LINES or size + len(line) > BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append((document.id, line))
            size += len(line)
    if batch:
        yield batch


def _refusals(answer: KeptView, ids: Sequence[str]) -> list[str]:
    told = []
    for error in answer.errors:
        id = error.id or (ids[error.line - 1] if 0 < error.line <= len(ids) else f"line {error.line}")
        where = f" ({error.pointer})" if error.pointer else ""
        told.append(f"{id}: {error.detail}{where}")
    return told


async def _remove(api: IndexApi, index: str, ids: Sequence[str]) -> int:
    removed = 0
    for begin in range(0, len(ids), MOST_REMOVED):
        removed += await api.remove(index, ids[begin : begin + MOST_REMOVED])
    return removed


async def _taken_in(api: IndexApi, screen: Screen, meter: IntakeMeter, loaded: Loaded, look_s: float) -> int:
    """Waits until nothing is pending, or the index is paused; gives how much is pending then."""
    delay = look_s
    while True:
        now = await api.index(loaded.index)
        meter.at(loaded.sent, _taken(loaded, now.counts), loaded.refused)
        if not now.counts.pending:
            return 0
        if now.state == "paused":
            screen.notice(f"The index is paused: `goatherd index resume {loaded.index}` has it go on.")
            return now.counts.pending
        await asyncio.sleep(delay)
        delay = min(delay * 1.5, _LOOK_MAX_S)


def _taken(loaded: Loaded, counts: IntakeView) -> int:
    """Of what was sent; what others have sent meanwhile counts as if it were ours until it is taken in."""
    return max(0, loaded.sent - counts.pending)


async def _tell_failed(api: IndexApi, screen: Screen, known: _Known, loaded: Loaded) -> None:
    if not (await api.index(loaded.index)).counts.failed:
        return
    failed: list[str] = []
    async with aclosing(api.documents(loaded.index, failed=True)) as documents:
        async for document in documents:
            if document.id in known.seen:
                loaded.failed += 1
                why = document.error.message if document.error is not None else "it can't be taken in"
                failed.append(f"{document.id}: {why}")
    _tell(screen, failed, "can't be taken in")
    if failed:
        screen.notice(f"`goatherd index retry {loaded.index}` tries those again that failed.")


def _tell(screen: Screen, lines: Sequence[str], what: str, count: int | None = None) -> None:
    """The first of them, and how many more there are."""
    for line in lines[:_MOST_NAMED]:
        screen.problem(line)
    more = (len(lines) if count is None else count) - len(lines[:_MOST_NAMED])
    if more > 0:
        screen.problem(f"{more:,} more {what}.")
