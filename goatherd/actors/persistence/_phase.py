"""How far an event-sourced actor is between its journal and its next command. See `_running`."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    NEW = "new"
    SETTLING = "settling"
    RECOVERING = "recovering"
    READY = "ready"
    PERSISTING = "persisting"
    FAILED = "failed"
