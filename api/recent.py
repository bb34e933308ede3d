"""What a process remembers of the latest sessions, tasks or replies: it may forget, and ask anew."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

REMEMBERED = 50_000

Value = TypeVar("Value")


class Recent(OrderedDict[str, Value]):
    """At most `most`. Those go first that were put or used the longest ago; `get` does not count as use."""

    def __init__(self, most: int = REMEMBERED) -> None:
        super().__init__()
        self._most = most

    def put(self, key: str, value: Value) -> Value:
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._most:
            self.popitem(last=False)
        return value

    def use(self, key: str) -> Value | None:
        """As `get`, for what has to stay as long as it is used."""
        value = self.get(key)
        if value is not None:
            self.move_to_end(key)
        return value
