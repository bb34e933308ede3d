"""What a shard has done in the store: the states of many entities at once, each with its own outcome."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from temporalio import activity

from goatherd.actors.durable._state_store import StateStore
from goatherd.contracts.model import Contract
from goatherd.errors import Fenced, GoatherdError
from goatherd.temporal import failure

MOST_BYTES = 1_000_000
"""Of states that travel together; Temporal refuses 2 MB."""


class StateToSave(Contract):
    """`state` None: it is to be deleted."""

    entity: str
    version: int
    state: Any = None


class SaveStates(Contract):
    kind: str
    items: list[StateToSave]


class Kept(Contract):
    """`code`: why it was not."""

    entity: str
    version: int
    code: str | None = None


class KeptStates(Contract):
    items: list[Kept]


class LoadStates(Contract):
    kind: str
    entities: list[str]


class LoadedState(Contract):
    """`version` 0: the store knows nothing of it."""

    entity: str
    version: int = 0
    state: Any = None


class LoadedStates(Contract):
    """Of the first of those that were asked for, as many as can travel together: one at least."""

    items: list[LoadedState]


class StateActivities:
    """To be given to the workers of a sharded entity type: `save` and `load`."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    @activity.defn(name="actor.save_states")
    async def save(self, order: SaveStates) -> KeptStates:
        """What passes is raised, and Temporal retries all; a repeated save does nothing more."""
        try:
            kept = await asyncio.gather(*(self._save(order.kind, one) for one in order.items))
        except GoatherdError as error:
            raise failure(error) from error
        return KeptStates(items=kept)

    async def _save(self, kind: str, one: StateToSave) -> Kept:
        try:
            if one.state is None:
                await self._store.delete(kind, one.entity, one.version)
            else:
                await self._store.save(kind, one.entity, one.version, one.state)
        except GoatherdError as error:
            if error.retryable:
                raise
            return Kept(entity=one.entity, version=one.version, code=error.code)
        return Kept(entity=one.entity, version=one.version)

    @activity.defn(name="actor.load_states")
    async def load(self, order: LoadStates) -> LoadedStates:
        """The states of entities that are about to come back."""
        try:
            found = await asyncio.gather(*(self._store.load(order.kind, one) for one in order.entities))
        except GoatherdError as error:
            raise failure(error) from error
        loaded: list[LoadedState] = []
        left = MOST_BYTES
        for entity, stored in zip(order.entities, found, strict=True):
            if stored is None:
                loaded.append(LoadedState(entity=entity))
                continue
            left -= size(stored.state)
            if left < 0 and loaded:
                break
            loaded.append(LoadedState(entity=entity, version=stored.version, state=stored.state))
        return LoadedStates(items=loaded)


def size(state: Any) -> int:
    """Bytes that a state has on its way, about."""
    return len(json.dumps(state))


FENCED = Fenced.code
