"""When a snapshot is taken, and what is deleted after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Predicate = Callable[[Any, Any, int], bool]
"""Of the state after an event, the event, and its number."""


@dataclass(frozen=True, slots=True)
class Retention:
    """`keep` None: no snapshot is deleted. `delete_events`: events before the oldest kept snapshot go."""

    interval: int | None = None
    predicate: Predicate | None = None
    keep: int | None = None
    delete_events: bool = False

    def due(self, before: int, steps: Sequence[tuple[Any, Any]]) -> bool:
        """Whether to take one after `steps`, states and events, the first of them number `before` + 1."""
        if self.interval is not None and (before + len(steps)) // self.interval > before // self.interval:
            return True
        predicate = self.predicate
        if predicate is None:
            return False
        return any(predicate(state, event, seq) for seq, (state, event) in enumerate(steps, before + 1))


def every(
    events: int, *, keep: int | None = 2, delete_events: bool = False, when: Predicate | None = None
) -> Retention:
    """A snapshot each time so many events more are written, and `when` a predicate says so.

    Events written together are never parted: it is taken after the last of them.

    Raises:
        ValueError: a number is not positive, or events are to be deleted but no snapshot is.
    """
    if events < 1:
        raise ValueError(f"A snapshot every {events} events makes no sense: 1 or more.")
    return _checked(Retention(events, when, keep, delete_events))


def when(predicate: Predicate, *, keep: int | None = None, delete_events: bool = False) -> Retention:
    """A snapshot after events of which `predicate(state, event, seq)` is true.

    Raises:
        ValueError: see `every`.
    """
    return _checked(Retention(None, predicate, keep, delete_events))


def _checked(retention: Retention) -> Retention:
    if retention.keep is not None and retention.keep < 1:
        raise ValueError(f"Keeping {retention.keep} snapshots makes no sense: 1 or more.")
    if retention.delete_events and retention.keep is None:
        raise ValueError("Events are deleted before the oldest kept snapshot: say how many to keep.")
    return retention
