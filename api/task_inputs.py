"""What assignments need of the store: title, input and labels of subtasks, as JSON, the latest kept here.

Each version of them never changes, so what is kept is never stale.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from activities.task_ports import TaskStore
from api.task_json import dumps
from goatherd.errors import Unavailable

MOST_BYTES = 64 << 20
PATIENCE_S = 10.0
"""A subtask whose document is not there is on its way: from its creator, or else from its actor."""
_RETRY_S, _RETRY_MAX_S = 0.01, 0.5
_OVERHEAD = 200

Version = tuple[str, int]
"""A subtask, and its `info_version`."""


class Inputs:
    """Bounded; the least recently used go first."""

    def __init__(self, store: TaskStore, *, most_bytes: int = MOST_BYTES) -> None:
        self._store = store
        self._most = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[Version, bytes] = OrderedDict()

    def put(self, subtask: str, version: int, *, title: str | None, input: Any, labels: list[str]) -> None:
        key = (subtask, version)
        if key in self._kept:
            return
        # The inside of an object: it becomes part of an assignment's.
        body = dumps({"title": title, "input": input, "labels": labels})[1:-1]
        self._kept[key] = body
        self._bytes += len(body) + _OVERHEAD
        while self._bytes > self._most and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= len(gone) + _OVERHEAD

    async def of(self, versions: Sequence[Version]) -> Mapping[Version, bytes]:
        """Of each, its JSON without the braces.

        Raises `Unavailable` if the store doesn't have one for so long that something must be wrong.
        """
        found: dict[Version, bytes] = {}
        missing: list[Version] = []
        for key in versions:
            body = self._kept.get(key)
            if body is None:
                missing.append(key)
            else:
                self._kept.move_to_end(key)
                found[key] = body
        if missing:
            await self._fetch(missing, found)
        return found

    async def _fetch(self, missing: list[Version], found: dict[Version, bytes]) -> None:
        loop = asyncio.get_running_loop()
        deadline, delay = loop.time() + PATIENCE_S, _RETRY_S
        while True:
            infos = await self._store.infos([subtask for subtask, _ in missing])
            still: list[Version] = []
            for key in missing:
                subtask, version = key
                info = infos.get(subtask)
                if info is None or info.info_version < version:
                    still.append(key)
                    continue
                # If it was changed since, its newest is as good: nobody works on it yet.
                self.put(subtask, info.info_version, title=info.title, input=info.input, labels=info.labels)
                found[key] = self._kept[subtask, info.info_version]
            if not still:
                return
            if loop.time() >= deadline:
                raise Unavailable(
                    "What the subtasks are about is not in the store yet. Take again with "
                    "the same Idempotency-Key."
                )
            missing = still
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RETRY_MAX_S)
