"""The subtasks of a task as its actor keeps them: little of each, since there may be a hundred thousand.

Inputs and results are not here: these are the store's. What is written for the next run is columns, most of
whose values are the same, packed: a hundred thousand subtasks that are done take some hundred kilobytes.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from goatherd.contracts.task import DEFAULT_PRIORITY, SubtaskStatus
from goatherd.errors import Invalid

BLOCKED = SubtaskStatus.BLOCKED.value
PENDING = SubtaskStatus.PENDING.value
LEASED = SubtaskStatus.LEASED.value
COMPLETED = SubtaskStatus.COMPLETED.value
FAILED = SubtaskStatus.FAILED.value
CANCELLED = SubtaskStatus.CANCELLED.value
DEAD = SubtaskStatus.DEAD.value
UNFINISHED = (BLOCKED, PENDING, LEASED)

_LETTERS = {BLOCKED: "b", PENDING: "p", LEASED: "l", COMPLETED: "c", FAILED: "f", CANCELLED: "x", DEAD: "d"}
_STATUSES = {letter: status for status, letter in _LETTERS.items()}


class Lease:
    """An assignment that is held. `take`: the id of the request that it was given to.
    Times are seconds since 1970."""

    __slots__ = (
        "attempt", "expires_at", "fence", "length_s", "number", "take", "taken_at", "worker",
    )  # fmt: skip

    def __init__(
        self,
        *,
        fence: int,
        number: int,
        worker: str,
        attempt: int,
        taken_at: float,
        expires_at: float,
        length_s: float,
        take: str | None,
    ) -> None:
        self.fence = fence
        self.number = number
        self.worker = worker
        self.attempt = attempt
        self.taken_at = taken_at
        self.expires_at = expires_at
        self.length_s = length_s
        self.take = take

    def written(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Item:
    """A subtask. What most have not is None.

    `group`: of those that require the same. `leases`: by fence, who has it. `past`: records of leases that
    ended. `answers`: `(worker, fence, digest)` of each that counts; `digest` is a number of 32 bits, 0 if
    unknown. `cause`: the number of the subtask because of which it is cancelled. Of one that is completed,
    only `fence`, the last lease's, and its `digest` are left, to answer a repeated report; and of all that
    its holders have ended, if these were several, `done`. `free`: whether it is counted as one that somebody
    can take; it follows from the rest.
    """

    __slots__ = (
        "answers", "cause", "checkpoint", "dependents", "depends", "digest", "done", "error", "failures",
        "fence", "free", "group", "info", "leases", "not_before", "number", "past", "priority", "progress",
        "reason", "status", "verdict", "waits_for",
    )  # fmt: skip

    def __init__(self, number: int, priority: int, group: int, info: int) -> None:
        self.number = number
        self.priority = priority
        self.group = group
        self.info = info
        self.status = PENDING
        self.failures = 0
        self.fence = 0
        self.waits_for = 0
        self.cause = 0
        self.leases: dict[int, Lease] | None = None
        self.past: list[dict[str, Any]] | None = None
        self.digest = 0
        self.answers: list[tuple[str, int, int]] | None = None
        self.done: list[dict[str, Any]] | None = None
        self.free = False
        self.depends: list[int] | None = None
        self.dependents: list[int] | None = None
        self.not_before: float | None = None
        self.progress: float | None = None
        self.checkpoint: Any = None
        self.error: dict[str, Any] | None = None
        self.reason: str | None = None
        self.verdict: dict[str, Any] | None = None

    @property
    def taken(self) -> int:
        """How many have it or have answered it."""
        return (len(self.leases) if self.leases else 0) + (len(self.answers) if self.answers else 0)

    def knows(self, worker: str) -> bool:
        """Whether this worker has it or has answered it."""
        if self.leases and any(lease.worker == worker for lease in self.leases.values()):
            return True
        return bool(self.answers) and any(answer[0] == worker for answer in self.answers or ())


# Written as columns; all else only of items that have it.
_COLUMNS = {"priority": DEFAULT_PRIORITY, "group": 0, "info": 0, "fence": 0, "digest": 0}
_REST = {
    "failures": 0, "waits_for": 0, "cause": 0, "past": None, "answers": None, "depends": None,
    "dependents": None, "done": None, "not_before": None, "progress": None, "checkpoint": None, "error": None,
    "reason": None, "verdict": None,
}  # fmt: skip


class Items:
    """All subtasks, by number from 1. A field of an actor's state: it is written as one text."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self.groups: list[tuple[str, ...]] = [()]
        self._group_numbers: dict[tuple[str, ...], int] = {(): 0}

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Any:
        return iter(self._items)

    def __getitem__(self, number: int) -> Item:
        return self._items[number - 1]

    def find(self, number: int | None) -> Item | None:
        return self._items[number - 1] if number is not None and 1 <= number <= len(self._items) else None

    def add(self, priority: int, requires: list[str], info: int) -> Item:
        item = Item(len(self._items) + 1, priority, self.group(requires), info)
        self._items.append(item)
        return item

    def group(self, requires: list[str]) -> int:
        """The number of those that require the same, in whatever order."""
        key = tuple(sorted(dict.fromkeys(requires)))
        number = self._group_numbers.get(key)
        if number is None:
            number = self._group_numbers[key] = len(self.groups)
            self.groups.append(key)
        return number

    # -- for the next run

    def written(self) -> str:
        items = self._items
        columns: dict[str, Any] = {
            name: values
            for name, usual in _COLUMNS.items()
            for values in [[getattr(item, name) for item in items]]
            if any(value != usual for value in values)
        }
        rest: dict[int, dict[str, Any]] = {}
        for item in items:
            more = {name: value for name, usual in _REST.items() if (value := getattr(item, name)) != usual}
            if item.leases:
                more["leases"] = [lease.written() for lease in item.leases.values()]
            if more:
                rest[item.number] = more
        document = {
            "status": "".join([_LETTERS[item.status] for item in items]),
            "columns": columns,
            "groups": self.groups,
            "rest": rest,
        }
        packed = zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 6)
        return base64.b64encode(packed).decode()

    @classmethod
    def read(cls, text: str) -> Items:
        document = json.loads(zlib.decompress(base64.b64decode(text)))
        items = cls()
        items.groups = [tuple(group) for group in document["groups"]]
        items._group_numbers = {group: number for number, group in enumerate(items.groups)}
        columns, rest = document["columns"], document["rest"]
        for at, letter in enumerate(document["status"]):
            item = Item(at + 1, DEFAULT_PRIORITY, 0, 0)
            item.status = _STATUSES[letter]
            items._items.append(item)
        for name, values in columns.items():
            for item, value in zip(items._items, values, strict=True):
                setattr(item, name, value)
        for number, more in rest.items():
            _fill(items[int(number)], more)
        return items

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: Any) -> Items:
            return value if isinstance(value, Items) else cls.read(value)

        return core_schema.no_info_plain_validator_function(
            read,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda items: items.written()),
        )


def _fill(item: Item, more: dict[str, Any]) -> None:
    leases = more.pop("leases", None)
    if leases:
        item.leases = {one["fence"]: Lease(**one) for one in leases}
    if "answers" in more:
        more["answers"] = [tuple(one) for one in more["answers"]]
    for name, value in more.items():
        setattr(item, name, value)


def check_cycles(count: int, depends: dict[int, list[int]]) -> list[int] | None:
    """Of new subtasks 0 to `count - 1`, which depend on each other as `depends` says: a cycle, or None.

    Those that are there already can't depend on new ones, so only new ones can make a cycle.

    Raises:
        Invalid: one of them is not among the new ones.
    """
    waits = {at: len(on) for at, on in depends.items()}
    followers: dict[int, list[int]] = {}
    for at, on in depends.items():
        for other in on:
            if not 0 <= other < count:
                raise Invalid(f"Subtask {at} depends on {other}, which this request does not have.")
            followers.setdefault(other, []).append(at)
    free = [at for at in range(count) if not waits.get(at)]
    for at in free:
        for follower in followers.get(at, ()):
            waits[follower] -= 1
            if waits[follower] == 0:
                free.append(follower)
    if len(free) == count:
        return None
    # Whoever is left leads, by one that is left too, into a cycle.
    left = dict.fromkeys(at for at in range(count) if waits.get(at))
    path: list[int] = [next(iter(left))]
    while path[-1] not in path[:-1]:
        path.append(next(other for other in depends[path[-1]] if other in left))
    return path[path.index(path[-1]) :]
