"""The models that can be asked for, by their public names: those of the settings, and registered ones."""

from __future__ import annotations

import asyncio
import difflib
from datetime import UTC, datetime
from typing import Any

from activities.model_ports import ModelCatalog
from api.posted_models import bounds_of
from goatherd.contracts.inference import ModelSpec, ModelWish
from goatherd.contracts.inference_tasks import Task, tasks_of
from goatherd.contracts.inference_work import ModelEntry
from goatherd.errors import Conflict, GoatherdError, ModelNotFound
from goatherd.settings import Settings
from goatherd.telemetry import get_logger

REFRESH_S = 1.0
"""How long another process's registration may take to be known here."""

log = get_logger(__name__)


class NameTaken(Conflict):
    """There is a model of that name."""

    code = "model-exists"


class ModelRegistry:
    """Follows the catalog. Of two models of one name, that of the settings counts."""

    def __init__(self, settings: Settings, catalog: ModelCatalog) -> None:
        self._own = {
            name: ModelEntry(name=name, spec=spec, origin=settings.origin(name))
            for name, spec in settings.models.items()
        }
        self._bounds = bounds_of(settings)
        self._catalog = catalog
        self._posted: dict[str, ModelEntry] = {}

    def entries(self) -> list[ModelEntry]:
        """By name."""
        return [entry for _, entry in sorted((self._posted | self._own).items())]

    def entry(self, name: str) -> ModelEntry:
        """Raises `ModelNotFound`, with names that are like it."""
        found = self._own.get(name) or self._posted.get(name)
        if found is None:
            known = sorted(self._posted | self._own)
            near = difflib.get_close_matches(name, known, n=3)
            hint = (
                f"Did you mean {', '.join(map(repr, near))}?"
                if near
                else "GET /models lists those there are."
            )
            raise ModelNotFound(f"No model is called {name!r}. {hint}")
        return found

    def talks(self, name: str) -> bool:
        """Whether there is such a model, and it can hold a conversation."""
        found = self._own.get(name) or self._posted.get(name)
        return found is not None and Task.CONVERSATIONAL in tasks_of(found.spec.task)

    async def add(self, name: str, wish: ModelWish, *, owner: str) -> ModelEntry:
        """Registers it for all processes, within the bounds that the settings have. The same again is no
        error.

        Raises `NameTaken` if the name stands for another model.
        """
        spec = ModelSpec(**{**_fields(wish), "bounds": self._bounds})
        entry = ModelEntry(name=name, spec=spec, owner=owner, created_at=datetime.now(UTC))
        if name in self._own or not await self._catalog.add(entry):
            await self.refresh()
            known = self.entry(name)
            if _fields(known.spec) != _fields(spec):
                raise NameTaken(f"There is another model called {name!r}: remove it first, or choose a name.")
            return known
        self._posted[name] = entry
        return entry

    async def remove(self, name: str) -> None:
        """Raises `ModelNotFound`; `Conflict` for a model of the settings."""
        entry = self.entry(name)
        if entry.origin != "posted":
            raise Conflict(f"{name!r} stands in the settings: take it out there.", code="model-in-settings")
        await self._catalog.remove(name)
        self._posted.pop(name, None)

    async def refresh(self) -> None:
        """Raises `Unavailable`."""
        self._posted = {entry.name: entry for entry in await self._catalog.all()}

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.refresh()
            except GoatherdError as error:
                log.warning("could not read the registered models", error=error.message)
            await asyncio.sleep(REFRESH_S)


def _fields(wish: ModelWish) -> dict[str, Any]:
    """What somebody wished for."""
    return {name: getattr(wish, name) for name in ModelWish.model_fields}
