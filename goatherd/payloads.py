"""Payloads that are too large for Temporal, by claim check: kept in a store, with a claim in their place.

Temporal takes 2 MB a payload and 4 MB a message. What is `LARGE` or more goes to a `PayloadStore` before it
is sent, and comes from there before it is read: messages, answers, and the state that a run hands on. All
processes that talk to the same actors need the same store (docs/adr/0006-claim-check.md).

The only module that knows the SDK's experimental interface for this.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    ExternalStorage,
    PayloadConverter,
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)

from goatherd.errors import GoatherdError, Unavailable

LARGE = 256 * 1024
"""Bytes. A message of a chat, 128 KiB of text, stays below; ten updates in flight on one actor, each a bit
smaller than this, still fit one gRPC message."""
PATIENCE_S = 3.0
"""For one payload. Less than a workflow task's timeout: its failure is then told, not guessed."""


class PayloadLost(GoatherdError):
    """What a claim stands for is not in the store, or is not what was put there."""

    code = "payload-lost"


class Owner(NamedTuple):
    """Whose history has the claim: a workflow, or an activity without one, by its id. It is empty if nobody
    told: then it is never swept."""

    namespace: str
    workflow: str


class PayloadStore(Protocol):
    """Large payloads, by a key that says what they are. Each belongs to one workflow."""

    async def put(self, owner: Owner, content: bytes) -> str:
        """Keeps `content`; gives `key_of(owner, content)`. Again, it only counts as stored now.

        Raises `Unavailable` if it can't be kept now.
        """

    async def get(self, key: str) -> bytes | None:
        """What was put; None if it is not there. Raises `Unavailable` if nobody can say."""

    async def due(self, before: datetime, limit: int) -> Sequence[Owner]:
        """Workflows with something stored before then, at most `limit`: those longest not looked at first."""

    async def sweep(self, owner: Owner, before: datetime) -> int:
        """Drops what was stored for a workflow before then, and counts it as looked at. Gives how many."""


def key_of(owner: Owner, content: bytes) -> str:
    """The same content of two workflows is kept twice: each lives as long as its workflow."""
    digest = hashlib.sha256(f"{owner.namespace}\0{owner.workflow}\0".encode())
    digest.update(content)
    return digest.hexdigest()


def data_converter(payloads: PayloadStore | None) -> DataConverter:
    """How clients and workers read and write payloads: as pydantic does, the large ones in the store."""
    if payloads is None:
        return pydantic_data_converter
    storage = ExternalStorage(drivers=[_Driver(payloads)], payload_size_threshold=LARGE)
    return DataConverter(payload_converter_class=_LargeToo, external_storage=storage)


@contextmanager
def noted_owners() -> Iterator[set[Owner]]:
    """Those whose large payloads this task, or one that it starts, stores or reads within the context."""
    owners: set[Owner] = set()
    token = _noted.set(owners)
    try:
        yield owners
    finally:
        _noted.reset(token)


_noted: ContextVar[set[Owner] | None] = ContextVar("noted_owners", default=None)


def _note(owner: Owner) -> None:
    if (owners := _noted.get()) is not None:
        owners.add(owner)


def carries_large(converter: PayloadConverter) -> bool:
    """Whether the converter is of a client or worker that has a store. Asked inside of workflows, too."""
    # The SDK wraps converters, and has no public way to what it wrapped.
    inner = getattr(converter, "_inner_payload_converter", converter)
    return getattr(inner, "carries_large", False) is True


_CONVERTERS = tuple(PydanticPayloadConverter().converters.values())


class _LargeToo(CompositePayloadConverter):
    """Pydantic's. With a store the SDK makes a new one for each call: they share the types that they know."""

    carries_large = True

    def __init__(self) -> None:
        super().__init__(*_CONVERTERS)


class _Driver(StorageDriver):
    """A `PayloadStore`, as the SDK wants it. What it raises fails a workflow task, which is done again."""

    def __init__(self, payloads: PayloadStore) -> None:
        self._payloads = payloads
        self._puts: set[asyncio.Task[str]] = set()

    def name(self) -> str:
        return "goatherd"

    def type(self) -> str:
        return "goatherd.payloads"

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        owner = _owner(context)
        _note(owner)
        return await asyncio.gather(*(self._put(owner, payload) for payload in payloads))

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        return await asyncio.gather(*(self._get(claim) for claim in claims))

    async def _put(self, owner: Owner, payload: Payload) -> StorageDriverClaim:
        put = asyncio.create_task(self._payloads.put(owner, payload.SerializeToString()))
        self._puts.add(put)
        put.add_done_callback(self._done)
        # A slow one goes on: when the same is tried again, it is there.
        await asyncio.wait((put,), timeout=PATIENCE_S)
        if not put.done():
            raise Unavailable(f"The store has not taken a large payload within {PATIENCE_S:g} s.")
        return StorageDriverClaim({"key": put.result(), **owner._asdict()})

    def _done(self, put: asyncio.Task[str]) -> None:
        self._puts.discard(put)
        if not put.cancelled():
            put.exception()  # Nobody may wait for it any more.

    async def _get(self, claim: StorageDriverClaim) -> Payload:
        data = claim.claim_data
        owner = Owner(data["namespace"], data["workflow"])
        _note(owner)
        try:
            async with asyncio.timeout(PATIENCE_S):
                content = await self._payloads.get(data["key"])
        except TimeoutError:
            raise Unavailable(f"The store has not given a large payload within {PATIENCE_S:g} s.") from None
        if content is None:
            raise PayloadLost(f"A large payload of {owner.workflow!r} is not in the store: {data['key']}.")
        if await asyncio.to_thread(key_of, owner, content) != data["key"]:
            raise PayloadLost(f"A large payload of {owner.workflow!r} is damaged: {data['key']}.")
        return Payload.FromString(content)


def _owner(context: StorageDriverStoreContext) -> Owner:
    target = context.target
    if target is None:
        return Owner("", "")
    # Of a call of a model it is the activity's id: whoever called drops what is its, and what is left over
    # is swept after a while, since there is no workflow of that id.
    return Owner(target.namespace, target.id or "")


def utc_now() -> datetime:
    return datetime.now(UTC)


class MemoryPayloadStore:
    """`PayloadStore` in this process."""

    def __init__(self, *, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self._kept: dict[str, tuple[Owner, bytes]] = {}
        self._stored: dict[str, datetime] = {}
        self._looked: dict[str, datetime] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def put(self, owner: Owner, content: bytes) -> str:
        key = key_of(owner, content)
        self._kept[key] = (owner, content)
        self._stored[key] = self._now()
        self._looked.setdefault(key, self._now())
        return key

    async def get(self, key: str) -> bytes | None:
        kept = self._kept.get(key)
        return None if kept is None else kept[1]

    async def due(self, before: datetime, limit: int) -> Sequence[Owner]:
        keys = sorted(self._looked, key=lambda key: self._looked[key])
        owners = (self._kept[key][0] for key in keys if self._stored[key] < before)
        return [owner for owner in dict.fromkeys(owners) if owner.workflow][:limit]

    async def sweep(self, owner: Owner, before: datetime) -> int:
        own = [key for key, (kept_for, _) in self._kept.items() if kept_for == owner]
        old = [key for key in own if self._stored[key] < before]
        for key in own:
            self._looked[key] = self._now()
        for key in old:
            del self._kept[key], self._stored[key], self._looked[key]
        return len(old)
