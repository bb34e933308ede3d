"""The way of a session's events from its actor's answers to the store (docs/adr/0007).

An answer hands a flusher only what it was not handed before, so that it is worth something only as a link of
a chain: all of the session's events, in order, none left out. This process holds a chain for each session.
An answer that does not join it (another one was lost on its way, or is late) shows a gap: the actor is asked
to hand over everything anew. A write that fails breaks the chain: what hung on it is not written, and the
chain goes on, as a new flusher, from what the store has.

So it is decided here what a client may be told. The actor's idea of what it has handed to whom may be wrong
without harm.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import uuid4

from api.recent import Recent
from goatherd.coalesce import Coalescer
from goatherd.contracts.chat import Changed, Event, Handed, HandOver
from goatherd.errors import Unavailable
from goatherd.telemetry import metrics

_CATCH_UPS = 5


@dataclass(slots=True, eq=False)
class _Chain:
    """What this process has of a session's events, without a gap.

    `flusher`: who it is for the actor. `held`: all events up to this number are written, or about to be, or
    known to be in the store. `written`: the last that was written here, and its id. `breaks`: how many writes
    failed. `fenced`: of which of these the reason was that the store has another past.
    """

    flusher: str
    held: int = 0
    written: tuple[int, str | None] = (0, None)
    breaks: int = 0
    fenced: int | None = None
    catching_up: asyncio.Task[bool] | None = None

    def joins(self, handed: Handed) -> bool:
        return handed.after <= max(self.held, handed.stored)

    def has(self, handed: Handed) -> bool:
        """Whether the store has all up to an answer that brings nothing."""
        return not handed.events and handed.upto <= max(self.written[0], handed.stored)


@dataclass(frozen=True, slots=True, eq=False)
class _Link:
    """An answer's events. They are written unless the chain has been broken since they joined it."""

    chain: _Chain
    breaks: int
    events: Sequence[Event]


class Flusher:
    """One a process. All sessions' answers that wait are written at once, in the order in which they came."""

    def __init__(
        self,
        append: Callable[[Sequence[Event]], Awaitable[set[int]]],
        ask: Callable[[str, HandOver], Awaitable[Changed]],
        *,
        linger: Callable[[], float] | None = None,
    ) -> None:
        """`append`: `ChatStore.append`. `ask`: asks a session's actor. `linger`: see `Coalescer`."""
        self._append = append
        self._ask = ask
        self._process = uuid4().hex
        self._numbers = itertools.count(1)
        # Of a session that is forgotten, it begins anew.
        self._chains: Recent[_Chain] = Recent()
        self._writes: Coalescer[_Link, bool] = Coalescer(self._write, linger=linger)

    def id(self, session: str) -> str:
        """Who asks, for the actor to hand him what he lacks. An answer to it has to be given to `take`."""
        return self._chain(session).flusher

    def written(self, session: str) -> tuple[int, str | None]:
        """The number up to which the store has everything, as far as is known here, and that event's id."""
        return self._chain(session).written

    async def take(self, session: str, handed: Handed) -> bool:
        """Returns when the store has all events up to the answer's.

        True: it has others under these numbers: the run that made these was reset. They are not kept.

        Raises:
            GoatherdError: the store can't be written, or the actor not be asked for what is missing.
        """
        chain = self._chain(session)
        for _ in range(_CATCH_UPS):
            if chain.joins(handed):
                return await self._join(chain, handed)
            if await self._catch_up(session, chain):
                return True
        raise Unavailable("The session's messages can't be stored right now. Try again in a moment.")

    def _chain(self, session: str) -> _Chain:
        chain = self._chains.use(session)
        return self._chains.put(session, _Chain(self._new_id())) if chain is None else chain

    def _new_id(self) -> str:
        return f"{self._process}-{next(self._numbers)}"

    async def _join(self, chain: _Chain, handed: Handed) -> bool:
        chain.held = max(chain.held, handed.upto)
        if chain.has(handed):
            return False
        # Also what is held already: only the store can tell that the events are of another past.
        return await self._writes.submit(_Link(chain, chain.breaks, handed.events))

    # -- a gap

    async def _catch_up(self, session: str, chain: _Chain) -> bool:
        """At once for all who wait for it. Whose answer came later than the actor's looks again."""
        if chain.catching_up is None:
            chain.catching_up = asyncio.create_task(self._hand_over(session, chain))
            chain.catching_up.add_done_callback(lambda done: self._caught_up(chain, done))
        return await asyncio.shield(chain.catching_up)

    def _caught_up(self, chain: _Chain, done: asyncio.Task[bool]) -> None:
        chain.catching_up = None
        if not done.cancelled():
            done.exception()  # Whoever waited may have gone away.

    async def _hand_over(self, session: str, chain: _Chain) -> bool:
        # A new one, which nobody else uses before this is answered: it is handed everything.
        flusher = self._new_id()
        flushed, event = chain.written
        handed = await self._ask(session, HandOver(flusher=flusher, flushed=flushed, flushed_event=event))
        if not chain.joins(handed):
            return False
        chain.flusher = flusher
        return await self._join(chain, handed)

    # -- the store

    async def _write(self, links: Sequence[_Link]) -> Sequence[bool | BaseException]:
        holds = [link.breaks == link.chain.breaks for link in links]
        whole = list(itertools.compress(links, holds))
        events = [event for link in whole for event in link.events]
        try:
            taken = await self._timed(events) if events else set()
        except BaseException:
            for chain in {id(link.chain): link.chain for link in whole}.values():
                self._break(chain)
            raise
        fenced = self._written(whole, taken)
        for chain in fenced:
            chain.fenced = chain.breaks
            self._break(chain)
        return [
            link.chain in fenced if held else self._broken(link)
            for link, held in zip(links, holds, strict=True)
        ]

    def _broken(self, link: _Link) -> bool | BaseException:
        """What became of one that hung on what was not written."""
        if link.breaks == link.chain.fenced:
            return True
        return Unavailable("What comes before could not be stored. Try again.")

    def _written(self, links: Sequence[_Link], taken: set[int]) -> list[_Chain]:
        """Notes how far each chain was written. Gives those that the store has another past of."""
        fenced: list[_Chain] = []
        start = 0
        for link in links:
            end = start + len(link.events)
            if link.chain in fenced:
                pass
            elif taken and not taken.isdisjoint(range(start, end)):
                fenced.append(link.chain)
            elif link.events:
                newest = link.events[-1]
                link.chain.written = max(link.chain.written, (newest.seq, newest.id))
            start = end
        return fenced

    async def _timed(self, events: Sequence[Event]) -> set[int]:
        metrics.STORE_APPEND_EVENTS.observe(len(events))
        with metrics.STORE_APPEND_SECONDS.time():
            return await self._append(events)

    def _break(self, chain: _Chain) -> None:
        """What hangs on what was not written is not written either, but had anew."""
        chain.breaks += 1
        chain.held = chain.written[0]
        chain.flusher = self._new_id()
