"""The accounts of `accounts`, in shards; and a store that a test can hold up."""

from __future__ import annotations

import asyncio

from goatherd.actors import Behavior
from goatherd.actors.durable import MemoryStateStore, ShardedEntity, Stored, sharded
from goatherd.actors.durable._state_store import Json
from goatherd.errors import GoatherdError
from tests.actors.durable.accounts import (
    AskHelper,
    Break,
    Close,
    Convert,
    Credit,
    Deposit,
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
