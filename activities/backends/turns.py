"""Who is computed next: callers take turns, and inputs of like weight go together. Plain, without a clock."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")

_LOOK_AHEAD = 4
"""Of how many times the inputs that fit in a batch its like ones are chosen."""
_PADDED = 1.5
"""A batch is computed as if all its inputs were as long as the longest: most that this may make of it …"""
_FREE = 512
"""… besides so much, which costs less than a batch more."""


@dataclass(eq=False, slots=True)
class Waiting(Generic[T]):
    """`weight`: as large as the model will see it."""

    what: T
    caller: str
    weight: int = 1


class Turns(Generic[T]):
    """Those who wait for one task of a model.

    A batch is formed around its lead: the longest waiting input of the caller whose turn it is. So each
    caller leads within as many batches as there are callers, and no input starves for being unlike others.
    Inputs of a caller that weigh the same are taken in the order that they came in.
    """

    def __init__(self) -> None:
        self._callers: OrderedDict[str, dict[Waiting[T], None]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, one: Waiting[T]) -> None:
        self._callers.setdefault(one.caller, {})[one] = None
        self._count += 1

    def discard(self, one: Waiting[T]) -> bool:
        """False if it does not wait (any more)."""
        line = self._callers.get(one.caller, {})
        if one not in line:
            return False
        del line[one]
        self._count -= 1
        if not line:
            del self._callers[one.caller]
        return True

    def take(self, most: int, most_weight: int) -> list[Waiting[T]]:
        """The next batch, lead first; empty if nobody waits. At most `most` inputs, and count times the
        heaviest at most `most_weight`: one that is heavier goes alone."""
        window = self._by_turns(most * _LOOK_AHEAD)
        if not window:
            return []
        lead = window[0]
        batch = _around(lead, window, most, most_weight)
        # Whose oldest is in it has had his turn. Others have not: else an odd one of theirs would starve.
        served = [one.caller for one in batch if one is next(iter(self._callers[one.caller]))]
        for one in batch:
            self.discard(one)
        for caller in served:
            if caller in self._callers:
                self._callers.move_to_end(caller)
        return batch

    def drain(self) -> list[Waiting[T]]:
        """All of them, by caller."""
        everyone = [one for line in self._callers.values() for one in line]
        self._callers.clear()
        self._count = 0
        return everyone

    def _by_turns(self, most: int) -> list[Waiting[T]]:
        """One of each caller, then a second of each, and so on."""
        lines = [iter(line) for line in islice(self._callers.values(), most)]
        window: list[Waiting[T]] = []
        while lines and len(window) < most:
            lines = [line for line in lines if _next(line, window, most)]
        return window


def _next(line: object, window: list[Waiting[T]], most: int) -> bool:
    one = next(line, None)  # type: ignore[call-overload]
    if one is None or len(window) >= most:
        return False
    window.append(one)
    return True


def _around(lead: Waiting[T], window: list[Waiting[T]], most: int, most_weight: int) -> list[Waiting[T]]:
    ordered = sorted(window, key=lambda one: one.weight)  # stable: among equals, turns decide
    low = high = ordered.index(lead)
    heaviest = real = lead.weight
    batch = [lead]
    while len(batch) < most:
        count = len(batch) + 1
        # (waste, the heaviest then, whose side), where it stays within bounds.
        able: list[tuple[int, int, bool]] = []
        for place, above in ((high + 1, True), (low - 1, False)):
            if not 0 <= place < len(ordered):
                continue
            weight = ordered[place].weight
            padded = max(heaviest, weight) * count
            if padded <= min(most_weight, (real + weight) * _PADDED + _FREE):
                able.append((padded - real - weight, max(heaviest, weight), above))
        if not able:
            break
        _, heaviest, above = min(able, key=lambda one: one[0])
        if above:
            high += 1
            chosen = ordered[high]
        else:
            low -= 1
            chosen = ordered[low]
        real += chosen.weight
        batch.append(chosen)
    return batch
