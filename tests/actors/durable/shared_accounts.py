"""The accounts of `accounts`, in shards; and a store that a test can hold up."""

from __future__ import annotations

import asyncio

from goatherd.actors import Behavior, Context, Ref, Request, behavior, message
from goatherd.actors._wire import Json
from goatherd.actors.durable import MemoryStateStore, ShardedEntity, Stored, sharded
from goatherd.errors import GoatherdError
from tests.actors.durable.accounts import (
    AskHelper,
    Break,
    Close,
    Convert,
    Credit,
    Deposit,
    Helper,
    Later,
    Messages,
    OpenedAccount,
    Total,
    Transfer,
    WatchOther,
    WhoStopped,
    Withdraw,
)

PASSIVATE_AFTER_S = 0.3


@sharded(
    "TestShared", Deposit, Total, Withdraw, Credit, Close, Break, Later, Convert, AskHelper, Transfer,
    WatchOther, WhoStopped, shards=1, passivate_after=PASSIVATE_AFTER_S,
)  # fmt: skip
class SharedAccount(ShardedEntity):
    def behavior(self, entity_id: str) -> Behavior[Messages]:
        if entity_id == "nobody's":
            raise KeyError(entity_id)
        return OpenedAccount(owner=entity_id)

    def asks_per_run(self) -> int:
        return 40


@message
class Lend(Request[Ref[Deposit]]):
    """Answered with the address of an actor below."""


@message
class Borrow(Request[None]):
    """Keeps the address of what another lends."""

    lender: str


@message
class Use(Request[int]):
    """Answered by what was borrowed."""

    amount: int


@message
class _Lent:
    helper: Ref[Deposit]


@message
class _NotLent:
    pass


def not_lent(error: Exception) -> _NotLent:
    return _NotLent()


@behavior("tests.lender")
class Lending(Behavior[Lend | Borrow | Use | _Lent | _NotLent]):
    helper: Ref[Deposit] | None = None
    borrowed: Ref[Deposit] | None = None
    asker: Ref[None] | None = None

    def on_start(self, ctx: Context[Lend | Borrow | Use | _Lent | _NotLent]) -> None:
        self.helper = ctx.spawn(Helper(), "helper")

    def receive(
        self, ctx: Context[Lend | Borrow | Use | _Lent | _NotLent], message: object
    ) -> Behavior[Lend | Borrow | Use | _Lent | _NotLent] | None:
        match message:
            case Lend():
                assert self.helper is not None
                ctx.reply(message, self.helper)
            case Borrow(lender=lender):
                self.asker = ctx.reply_to(message)
                ctx.timers.once("stay", _NotLent(), "1h")
                ctx.ask(ctx.ref(lender), Lend(), _Lent, not_lent, timeout="5s")
            case _Lent(helper=helper):
                self.borrowed = helper
                assert self.asker is not None
                self.asker.tell(None)
            case Use(amount=amount):
                assert self.borrowed is not None
                ctx.forward(self.borrowed, Deposit(amount))
        return None


@sharded("TestLender", Lend, Borrow, Use, shards=1, passivate_after=PASSIVATE_AFTER_S)
class Lender(ShardedEntity):
    def behavior(self, entity_id: str) -> Behavior[Lend | Borrow | Use | _Lent | _NotLent]:
        return Lending()


class Shelf(MemoryStateStore):
    """What is saved and loaded is noted; `saving` and `loading`, if cleared, hold it up."""

    def __init__(self) -> None:
        super().__init__()
        self.saves: list[tuple[str, int]] = []
        self.loads: list[str] = []
        self.saving, self.loading = asyncio.Event(), asyncio.Event()
        self.saving.set()
        self.loading.set()
        self.refuses: GoatherdError | None = None
        self.entered = asyncio.Event()

    async def save(self, kind: str, entity: str, version: int, state: Json) -> None:
        self.saves.append((entity, version))
        self.entered.set()
        await self.saving.wait()
        if self.refuses is not None:
            raise self.refuses
        await super().save(kind, entity, version, state)

    async def load(self, kind: str, entity: str) -> Stored | None:
        self.loads.append(entity)
        self.entered.set()
        await self.loading.wait()
        return await super().load(kind, entity)
