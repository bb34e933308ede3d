"""Which subtask is next: by priority, then age, of those whose requirements a worker meets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush

from workflows.task_items import Item, Items

_MOST_NAMES = 2

Place = tuple[int, tuple[str, ...]]
"""A heap's: what its subtasks require, as the number of a group, and some of those who know them."""


class ReadyQueue:
    """A heap for each group of subtasks that require the same and are known to the same workers: whoever has
    answered a hundred thousand that still wait for others passes over these at one look.

    Entries are not removed when a subtask changes, only passed over: `is_free` says whether one still counts.
    """

    def __init__(self, items: Items, is_free: Callable[[Item], bool]) -> None:
        self._items = items
        self._is_free = is_free
        self._heaps: dict[Place, list[tuple[int, int]]] = {}

    def put(self, item: Item) -> None:
        heappush(self._heaps.setdefault(_place(item), []), (item.priority, item.number))

    def take(self, capabilities: Iterable[str], worker: str, most: int) -> list[Item]:
        """Up to `most` subtasks for a worker, who gets none that he has or has answered. They stay in the
        queue as long as there is room for others: `put` is called for those by whoever takes them."""
        able = frozenset(capabilities)  # Only asked what it contains: its order is nobody's.
        first: list[tuple[tuple[int, int], Place]] = []
        for place, heap in list(self._heaps.items()):
            group, known_to = place
            if worker in known_to or (group and not able.issuperset(self._items.groups[group])):
                continue
            self._clear(place, heap)
            if heap:
                first.append((heap[0], place))
            else:
                del self._heaps[place]
        heapify(first)
        found: list[Item] = []
        passed: list[tuple[Place, tuple[int, int]]] = []
        while first and len(found) < most:
            _, place = heappop(first)
            heap = self._heaps[place]
            entry = heappop(heap)
            item = self._items[entry[1]]
            if item.knows(worker):
                passed.append((place, entry))
            elif item not in found:
                found.append(item)
            self._clear(place, heap)
            if heap:
                heappush(first, (heap[0], place))
        for place, entry in passed:
            heappush(self._heaps[place], entry)
        return found

    def _clear(self, place: Place, heap: list[tuple[int, int]]) -> None:
        while heap:
            item = self._items[heap[0][1]]
            if item.priority == heap[0][0] and _place(item) == place and self._is_free(item):
                return
            heappop(heap)


def _place(item: Item) -> Place:
    """Of those who know it, only some: there could be as many heaps as subtasks."""
    if not item.leases and not item.answers:
        return item.group, ()
    names = [answer[0] for answer in item.answers or ()]
    names += [lease.worker for lease in (item.leases or {}).values()]
    return item.group, tuple(sorted(names[:_MOST_NAMES]))
