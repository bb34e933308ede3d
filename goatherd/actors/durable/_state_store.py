"""Where the states of passivated entities are kept: a port, and its fake."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol

from goatherd.actors._wire import Json
from goatherd.errors import Fenced, Invalid


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store knows of an entity. `state` None: it was deleted, as of `version`."""

    version: int
    state: Json


class StateStore(Protocol):
    """States of entities, the newest of each. Each raises `Unavailable` if it can't be reached."""

    async def save(self, kind: str, entity: str, version: int, state: Json) -> None:
        """Keeps a state in the place of any older one. The same call again does nothing more.

        Raises:
            Fenced: there is a newer version, or was one when it was deleted.
            Invalid: this state can't be kept.
        """
        ...

    async def load(self, kind: str, entity: str) -> Stored | None:
        """What was saved or deleted last; None: neither, or it was deleted a day ago."""
        ...

    async def delete(self, kind: str, entity: str, version: int) -> None:
        """Deletes any older state. The version stays for a day, to keep out a save that is late.

        Raises:
            Fenced: there is a newer version.
        """
        ...


class MemoryStateStore:
    """`StateStore` in memory: it lives as long as this object, and deleted versions do too."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], tuple[int, str]] = {}

    async def save(self, kind: str, entity: str, version: int, state: Json) -> None:
        try:
            self._put(kind, entity, version, json.dumps(state))
        except (TypeError, ValueError) as error:
            raise Invalid(f"The state of {kind} {entity!r} is no JSON: {error}") from error

    async def load(self, kind: str, entity: str) -> Stored | None:
        found = self._states.get((kind, entity))
        return None if found is None else Stored(found[0], json.loads(found[1]))

    async def delete(self, kind: str, entity: str, version: int) -> None:
        self._put(kind, entity, version, "null")

    def _put(self, kind: str, entity: str, version: int, text: str) -> None:
        found = self._states.get((kind, entity))
        if found is not None and found[0] > version:
            raise Fenced(f"Version {version} of {kind} {entity!r} is older than {found[0]}, which is there.")
        self._states[kind, entity] = (version, text)
