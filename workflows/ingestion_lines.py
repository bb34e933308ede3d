"""What ingestion has in hand: a line of work for each version of its index. Plain, without Temporal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from goatherd.contracts.retrieval import InHand, Version, VersionWork

_SPLIT = 12
"""In how many parts a suspected one is tried again: one of 128 documents comes down to single ones in two
steps."""


@dataclass(eq=False, slots=True)
class Part:
    """Documents for one activity.

    `alone`: while nothing else of the index is under way. `passed_over`: a plan left these documents out
    while they were in hand; they may have been written anew before it.
    """

    version: int
    docs: list[str]
    alone: bool = False
    passed_over: bool = False


@dataclass(slots=True)
class Line:
    """Of one version. `more`: there may be more to do than is in hand."""

    version: Version
    more: bool = False
    waiting: deque[Part] = field(default_factory=deque)
    running: list[Part] = field(default_factory=list)
    suspects: deque[Part] = field(default_factory=deque)

    @property
    def parts(self) -> Iterator[Part]:
        yield from self.running
        yield from self.waiting
        yield from self.suspects

    def clear(self) -> None:
        self.waiting.clear()
        self.suspects.clear()
        self.more = False


class Lines:
    """By version, the serving one first.

    A part that is given up, as its workers are lost or fail in a way that nobody has foreseen, is suspected.
    It is tried again when nothing else is under way, in smaller parts: so whoever is lost then is lost to one
    of its documents, and these hold up nobody else.
    """

    def __init__(self) -> None:
        self._lines: dict[int, Line] = {}
        self._held: int | None = None

    @property
    def serving(self) -> int | None:
        return next(iter(self._lines), None)

    @property
    def building(self) -> int | None:
        return next(iter(list(self._lines)[1:]), None)

    def version(self, number: int) -> Version:
        return self._lines[number].version

    def want_more(self) -> bool:
        return any(line.more and not line.waiting for line in self._free())

    def known(self, but: int | None = None) -> tuple[list[int], list[InHand]]:
        """For a plan: versions that need none, and what the others have in hand. `but`: the only one to be
        planned for."""
        busy: list[int] = []
        in_hand: list[InHand] = []
        for number, line in self._lines.items():
            if line.waiting or (but is not None and number != but):
                busy.append(number)
                line.more = True
                continue
            line.more = False
            for part in line.parts:
                part.passed_over = True
            if docs := [doc for part in line.parts for doc in part.docs]:
                in_hand.append(InHand(version=number, docs=docs))
        return busy, in_hand

    def follow(self, work: Sequence[VersionWork], busy: Sequence[int]) -> list[int]:
        """Takes a plan over, that was made while these versions were busy. Gives the versions that are no
        more."""
        there = {one.version.number: one for one in work}
        gone = [number for number in self._lines if number not in there]
        before, self._lines = self._lines, {}
        for number, one in there.items():
            line = self._lines[number] = before.get(number) or Line(one.version)
            if number not in busy:
                line.more = line.more or one.more
                line.waiting += [Part(number, docs) for docs in one.parts]
        return gone

    def next(self, at_once: int) -> Part | None:
        """The next part to be begun; at most so many are under way of each version."""
        for line in self._free():
            if line.waiting and len(line.running) < at_once:
                return _begun(line, line.waiting)
        return None

    def next_suspect(self) -> Part | None:
        for line in self._free():
            if line.suspects:
                return _begun(line, line.suspects)
        return None

    def end(self, part: Part) -> bool:
        """It is not under way any more. True if it was the last one of its version."""
        line = self._lines.get(part.version)
        if line is None:
            return True
        line.running = [one for one in line.running if one is not part]
        line.more = line.more or part.passed_over
        return not any(True for _ in line.parts)

    def suspect(self, part: Part) -> None:
        """It is given up as it is."""
        line = self._lines.get(part.version)
        if line is None:
            return
        size = -(-len(part.docs) // _SPLIT)
        for begin in range(0, len(part.docs), size):
            docs = part.docs[begin : begin + size]
            line.suspects.append(Part(part.version, docs, True, part.passed_over))

    def wait(self, part: Part) -> None:
        """A suspect gets another turn, after the others."""
        if (line := self._lines.get(part.version)) is not None:
            line.suspects.append(Part(part.version, part.docs, True, part.passed_over))

    def is_done(self, number: int) -> bool:
        line = self._lines.get(number)
        return line is None or not any(True for _ in line.parts)

    def hold(self, number: int | None) -> None:
        """Begins nothing of this version, until None is held."""
        self._held = number

    def clear(self, number: int | None = None) -> None:
        """Forgets what has not begun, of one version or of all."""
        for line in self._lines.values():
            if number in (None, line.version.number):
                line.clear()

    def clear_waiting(self) -> None:
        """As `clear`, but for suspects."""
        for line in self._lines.values():
            line.waiting.clear()
            line.more = False

    def _free(self) -> Iterator[Line]:
        return (line for number, line in self._lines.items() if number != self._held)


def _begun(line: Line, parts: deque[Part]) -> Part:
    part = parts.popleft()
    line.running.append(part)
    return part
