"""Images and sounds between processes: small ones in the message, large ones by claim check.

They go to the store of large payloads (docs/adr/0006-claim-check.md) as the bytes that they are, and not by
Temporal's converter, which would write them as text inside of JSON first.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from goatherd.contracts.inference_tasks import SHAPES, Media, Task
from goatherd.errors import Unavailable
from goatherd.payloads import Owner, PayloadLost, PayloadStore, utc_now

INLINE = 96 * 1024
"""Bytes that still travel in the message itself."""

_CLOCKS_DIFFER = timedelta(minutes=5)


class Blobs:
    """Large files of calls and jobs. Each has an owner: dropped with it, or swept when it is gone."""

    def __init__(self, payloads: PayloadStore | None, namespace: str) -> None:
        self._payloads = payloads
        self._namespace = namespace

    async def stow(self, media: Media, owner: str) -> Media:
        """The same with a claim in place of its bytes, if these are many. Raises `Unavailable`."""
        if len(media.data) <= INLINE:
            return media
        key = await self._store.put(Owner(self._namespace, owner), media.data)
        return Media(mime=media.mime, claim=key)

    async def fetch(self, media: Media) -> Media:
        """The same with its bytes. Raises `PayloadLost`, `Unavailable`."""
        if media.claim is None:
            return media
        data = await self._store.get(media.claim)
        if data is None:
            raise PayloadLost(f"A large file is not in the store: {media.claim}.")
        return Media(data=data, mime=media.mime)

    async def stow_output(self, task: Task, output: Any, owner: str) -> Any:
        """An output in its JSON form, its bytes by claim if they are many."""
        shape = SHAPES[task]
        if isinstance(output, Media):
            output = await self.stow(output, owner)
        return shape.read_output.dump_python(output, mode="json", exclude_none=True)

    async def fetch_output(self, task: Task, output: Any) -> Any:
        """Of an output in its JSON form, what its task gives; a file with its bytes."""
        read = SHAPES[task].read_output.validate_python(output)
        return await self.fetch(read) if isinstance(read, Media) else read

    async def drop(self, owner: str) -> None:
        """All that this owner has. What can't be dropped now is swept later."""
        if self._payloads is not None:
            await self._payloads.sweep(Owner(self._namespace, owner), utc_now() + _CLOCKS_DIFFER)

    @property
    def _store(self) -> PayloadStore:
        if self._payloads is None:
            raise Unavailable("There is no store for large files here.")
        return self._payloads
