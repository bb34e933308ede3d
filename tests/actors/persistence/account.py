"""An account of money, and a journal whose calls a test can hold, fail and count."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from goatherd.actors import Behavior, Context, Request, Signal, Terminated, message, unhandled
from goatherd.actors import persistence as p


@message
class Deposit(Request[int]):
    amount: int
    parts: int = 1


@message
class Balance(Request[int]):
    pass


@message
class Lock(Request[str]):
    pass


@message
class Unlock:
    pass


@message
class Close(Request[str]):
    pass


@message
class Break:
    """Raises; `after`: in a side effect."""

    after: bool = False


@message
class Bad(Request[int]):
    """Its event is refused by the event handler, or by the journal."""

    where: str = "handler"


@message
class Odd(Request[int]):
    pass


Command = Deposit | Balance | Lock | Unlock | Close | Break | Bad | Odd


@message
class Deposited:
    amount: int


@message
class Locked:
    locked: bool


class Unwritable:
    """An event that is no data."""


Event = Deposited | Locked | Unwritable


@message
class Money:
    balance: int = 0
    locked: bool = False


@p.event_sourced("tests.account")
class Account(p.EventSourced[Command, Event, Money]):
    owner: str = "ann"

    def empty(self) -> Money:
        return Money()

    def persistence_id(self, ctx: Context[Command]) -> str:
        return f"account-{self.owner}"

    def on_command(self, ctx: Context[Command], state: Money, command: Command) -> p.Effect[Event] | None:
        match command:
            case Deposit() if state.locked:
                return p.stash()
            case Deposit(amount=amount, parts=parts):
                events = [Deposited(amount)] * parts
                return (
                    p.persist(events)
                    .then_run(lambda state: note(self.owner, ("deposited", state.balance)))
                    .then_reply(command, lambda state: state.balance)
                )
            case Balance():
                return p.reply(command, state.balance)
            case Lock():
                return p.persist(Locked(True)).then_reply(command, lambda state: "locked")
            case Unlock():
                return p.persist(Locked(False)).then_unstash_all()
            case Close():
                return p.none().then_reply(command, lambda state: "closed").then_stop()
            case Break(after=True):
                return p.persist(Deposited(1)).then_run(_raise)
            case Break():
                _raise(state)
            case Bad(where="handler"):
                return p.persist([Deposited(1), Deposited(-1_000)])
            case Bad():
                return p.persist([Deposited(1), Unwritable()])
        return p.unhandled

    def on_event(self, state: Money, event: Event) -> Money:
        match event:
            case Deposited(amount=amount) if state.balance + amount < 0:
                raise ValueError("nobody has less than nothing")
            case Deposited(amount=amount):
                return Money(state.balance + amount, state.locked)
            case Locked(locked=locked):
                return Money(state.balance, locked)
        return state

    def on_signal(self, ctx: Context[Command], signal: Signal) -> Behavior[Command] | None:
        note(self.owner, signal)
        return unhandled if isinstance(signal, Terminated) else None


def _raise(state: Money) -> None:
    raise KeyError("told to")


NOTES: dict[str, list[Any]] = {}
LISTENERS: dict[str, list[Callable[[], None]]] = {}


def note(owner: str, what: Any) -> None:
    NOTES.setdefault(owner, []).append(what)
    for heard in LISTENERS.get(owner, []):
        heard()


def notes(owner: str, kind: type[Any] | None = None) -> list[Any]:
    """What an account was told and did, of one kind."""
    return [one for one in NOTES.get(owner, []) if kind is None or isinstance(one, kind)]


async def noted(owner: str, kind: type[Any], count: int = 1) -> list[Any]:
    """Until so many of a kind have been noted."""
    heard = asyncio.Event()
    LISTENERS.setdefault(owner, []).append(heard.set)
    async with asyncio.timeout(10):
        while len(notes(owner, kind)) < count:
            await heard.wait()
            heard.clear()
    return notes(owner, kind)


class Faulty(p.MemoryJournal):
    """`fail` and `hold` by method; `calls` counts."""

    def __init__(self) -> None:
        super().__init__()
        self.fail: dict[str, Exception] = {}
        self.after: dict[str, Exception] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.reached: dict[str, asyncio.Event] = {}
        self.calls: Counter[str] = Counter()

    def hold(self, method: str) -> None:
        """Calls of `method` wait from now on, until `let_go`."""
        self.held[method] = asyncio.Event()
        self.reached[method] = asyncio.Event()

    def let_go(self, method: str) -> None:
        self.held.pop(method).set()

    async def _gate(self, method: str) -> None:
        self.calls[method] += 1
        if (held := self.held.get(method)) is not None:
            self.reached[method].set()
            await held.wait()
        if (error := self.fail.get(method)) is not None:
            raise error

    async def append(
        self, persistence_id: str, first_seq: int, events: Sequence[Any], *, writer: str
    ) -> None:
        await self._gate("append")
        await super().append(persistence_id, first_seq, events, writer=writer)
        if (error := self.after.get("append")) is not None:
            raise error

    async def read(
        self, persistence_id: str, *, after: int = 0, limit: int = 1_000
    ) -> AsyncIterator[p.Entry]:
        await self._gate("read")
        async for entry in super().read(persistence_id, after=after, limit=limit):
            yield entry

    async def load_snapshot(self, persistence_id: str) -> p.Snapshot | None:
        await self._gate("load_snapshot")
        return await super().load_snapshot(persistence_id)

    async def save_snapshot(self, persistence_id: str, seq: int, state: Any) -> None:
        await self._gate("save_snapshot")
        await super().save_snapshot(persistence_id, seq, state)

    async def delete_snapshots(self, persistence_id: str, *, keep: int) -> int:
        await self._gate("delete_snapshots")
        return await super().delete_snapshots(persistence_id, keep=keep)

    async def delete_events(self, persistence_id: str, upto: int) -> None:
        await self._gate("delete_events")
        await super().delete_events(persistence_id, upto)

    async def events(self, persistence_id: str) -> list[Any]:
        """Everything written, as values."""
        return [entry.event["value"] async for entry in super().read(persistence_id)]
