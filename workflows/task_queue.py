"""Which subtask is next: by priority, then age, of those whose requirements a worker meets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from workflows.task_items import Item, Items


class ReadyQueue:
    """A heap for each group of subtasks that require the same.

    Entries are not removed when a subtask changes, only passed over: `is_free` says whether one still counts.
    """

    def __init__(self, items: Items, is_free: Callable[[Item], bool]) -> None:
        self._items = items
        self._is_free = is_free
        self._heaps: dict[int, list[tuple[int, int]]] = {}

    def put(self, item: Item) -> None:
        heappush(self._heaps.setdefault(item.group, []), (item.priority, item.number))

    def take(self, capabilities: Iterable[str], worker: str, most: int) -> list[Item]:
        """Up to `most` subtasks for a worker, who gets none that he has or has answered. They stay in the
        queue as long as there is room for others: `put` is called for those by whoever takes them."""
        able = frozenset(capabilities)  # Only asked what it contains: its order is nobody's.
        groups = [
            number
            for number, heap in self._heaps.items()
            if heap and (not number or able.issuperset(self._items.groups[number]))
        ]
        found: list[Item] = []
        passed: list[tuple[int, tuple[int, int]]] = []
        while len(found) < most:
            best: int | None = None
            for number in groups:
                heap = self._heaps[number]
                self._clear(number, heap)
                if heap and (best is None or heap[0] < self._heaps[best][0]):
                    best = number
            if best is None:
                break
            entry = heappop(self._heaps[best])
            item = self._items[entry[1]]
            if item.knows(worker):
                passed.append((best, entry))
            elif item not in found:
                found.append(item)
        for number, entry in passed:
            heappush(self._heaps[number], entry)
        return found

    def _clear(self, group: int, heap: list[tuple[int, int]]) -> None:
        while heap:
            item = self._items[heap[0][1]]
            if item.priority == heap[0][0] and item.group == group and self._is_free(item):
                return
            heappop(heap)
