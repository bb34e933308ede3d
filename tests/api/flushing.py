"""A session's actor and a store, as a flusher sees them, with each step taken by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from api.flusher import Flusher
from goatherd.contracts.chat import (
    Changed,
    Event,
    EventType,
    Handed,
    HandOver,
    SessionState,
)
from goatherd.contracts.ids import new_id
from goatherd.errors import DeadlineExceeded, Unavailable
from workflows.chat_handing import Handing
from workflows.chat_log import SessionLog

SESSION = "chat_01k9w2x6hj3v8m5r7t0q4n1b2c"


class Clock:
    def __init__(self) -> None:
        self.random = Random(1)

    def now(self) -> float:
        return 0.0


class Actor:
    """The session's log and what it hands out, with a window of kept answers."""

    def __init__(self) -> None:
        self.log = SessionLog(SessionState(session=SESSION))
        self.handing = Handing()
        self.kept: dict[str, Handed] = {}
        self.posted: dict[str, int] = {}
        self._clock = Clock()

    def post(self, ask_id: str, flusher: str | None, flushed: tuple[int, str | None] = (0, None)) -> Handed:
        if ask_id in self.kept:
            return self.kept[ask_id]
        self.confirm(flushed)
        if ask_id not in self.posted:
            self.posted[ask_id] = self.emit().seq
        answer = self.kept[ask_id] = self.handing.hand(self.log, flusher)
        return answer

    def hand_over(self, order: HandOver) -> Changed:
        self.confirm((order.flushed, order.flushed_event))
        return self.handing.hand(self.log, order.flusher)

    def confirm(self, flushed: tuple[int, str | None]) -> None:
        assert self.log.agrees(*flushed)
        self.log.confirm(flushed[0])

    def emit(self) -> Event:
        return self.log.emit(self._clock, EventType.MESSAGE_UPDATED)

    def continue_as_new(self, *, remembering: bool) -> None:
        self.log = SessionLog(SessionState.model_validate_json(self.log.state().model_dump_json()))
        if not remembering:
            self.handing = Handing()


@dataclass(eq=False)
class Write:
    """A call of the store's `append` that waits to be let through."""

    store: Store
    events: Sequence[Event]
    done: asyncio.Future[set[int]]

    def succeed(self) -> None:
        self.done.set_result(self.store.keep(self.events))

    def fail(self, kept: int = 0) -> None:
        """`kept`: a bit for each event that was written all the same."""
        self.store.keep([event for n, event in enumerate(self.events) if kept >> n & 1])
        self.done.set_exception(Unavailable("The store is down."))


class Store:
    def __init__(self) -> None:
        self.events: dict[int, str] = {}
        self.writes: list[Write] = []

    async def append(self, events: Sequence[Event]) -> set[int]:
        write = Write(self, events, asyncio.get_running_loop().create_future())
        self.writes.append(write)
        try:
            return await write.done
        finally:
            self.writes.remove(write)

    def keep(self, events: Sequence[Event]) -> set[int]:
        """As `ChatStore.append` says."""
        taken: set[int] = set()
        other: int | None = None
        for index, event in sorted(enumerate(events), key=lambda pair: pair[1].seq):
            if (other is not None and event.seq > other) or (
                self.events.setdefault(event.seq, event.id) != event.id
            ):
                taken.add(index)
                other = event.seq if other is None else other
        return taken

    def has(self, upto: int) -> bool:
        return all(number in self.events for number in range(1, upto + 1))


@dataclass(eq=False)
class Asked:
    """A request on its way. It may be applied although its asker has given up."""

    request: tuple[str, str, tuple[int, str | None]] | HandOver
    done: asyncio.Future[Handed]
    answer: Handed | None = None

    def apply(self, actor: Actor) -> None:
        if isinstance(self.request, HandOver):
            self.answer = actor.hand_over(self.request)
        else:
            self.answer = actor.post(*self.request)

    def deliver(self) -> None:
        if not self.done.done():
            assert self.answer is not None
            self.done.set_result(self.answer)

    def lose(self) -> None:
        if not self.done.done():
            self.done.set_exception(DeadlineExceeded("No answer in time."))


@dataclass
class World:
    """One actor, one store, two processes that flush."""

    actor: Actor = field(default_factory=Actor)
    store: Store = field(default_factory=Store)
    asked: list[Asked] = field(default_factory=list)
    answered: int = 0
    refused: int = 0

    def __post_init__(self) -> None:
        self.flushers = [self._flusher(), self._flusher()]
        self.tasks: list[list[asyncio.Task[None]]] = [[], []]

    def _flusher(self) -> Flusher:
        return Flusher(self.store.append, self._hand_over)

    async def post(self, who: int, ask_id: str | None = None) -> str:
        """One begins to post. Gives the id to post again with."""
        ask_id = ask_id or new_id("msg")
        self.tasks[who].append(asyncio.create_task(self._post(self.flushers[who], ask_id)))
        await self.settle()
        return ask_id

    async def _post(self, flusher: Flusher, ask_id: str) -> None:
        try:
            handed = await self._ask((ask_id, flusher.id(SESSION), flusher.written(SESSION)))
            assert not await flusher.take(SESSION, handed)
        except (DeadlineExceeded, Unavailable):
            self.refused += 1
            return
        # It would be told now that its message is stored.
        assert self.store.has(self.actor.posted[ask_id])
        self.answered += 1

    async def _hand_over(self, session: str, order: HandOver) -> Changed:
        handed = await self._ask(order)
        assert isinstance(handed, Changed)
        return handed

    async def _ask(self, request: Any) -> Handed:
        asked = Asked(request, asyncio.get_running_loop().create_future())
        self.asked.append(asked)
        return await asked.done

    # -- steps

    @property
    def unapplied(self) -> list[Asked]:
        return [one for one in self.asked if one.answer is None]

    @property
    def open(self) -> list[Asked]:
        return [one for one in self.asked if not one.done.done()]

    async def apply(self, asked: Asked) -> None:
        asked.apply(self.actor)
        await self.settle()

    async def answer(self, asked: Asked) -> None:
        """Applied, if it is not yet, and delivered."""
        if asked.answer is None:
            asked.apply(self.actor)
        asked.deliver()
        await self.settle()

    async def restart(self, who: int) -> None:
        """The process dies, with all that it has."""
        for task in self.tasks[who]:
            task.cancel()
        self.tasks[who], self.flushers[who] = [], self._flusher()
        await self.settle()

    async def finish(self) -> None:
        """All that is under way comes to an end; then, after a quiet while, the actor writes the rest."""
        while self.unapplied or self.open or self.store.writes:
            for asked in [*self.unapplied, *self.open]:
                await self.answer(asked)
            for write in list(self.store.writes):
                write.succeed()
            await self.settle()
        assert all(task.done() for tasks in self.tasks for task in tasks)
        for tasks in self.tasks:
            for task in tasks:
                if not task.cancelled():
                    task.result()
        self.flush()

    def flush(self) -> None:
        """The actor's own activity."""
        assert not self.store.keep(self.actor.log.unflushed())
        self.actor.log.confirm(self.actor.log.last_seq)

    async def settle(self) -> None:
        """Until nothing can go on by itself."""
        for _ in range(30):
            await asyncio.sleep(0)


def play(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)
