"""A feed of what is written: one change stream on the database, kept alive.

One stream for all collections of a feed keeps the order between them: a reply's deltas come before the event
that completes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from pymongo.asynchronous.change_stream import AsyncDatabaseChangeStream
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure, PyMongoError

from activities.backends.mongo_client import store_errors
from activities.backends.projection import Document
from activities.ports import Resync
from goatherd.waiting import put_down

log = logging.getLogger(__name__)

Token = Mapping[str, Any]
Stream = AsyncDatabaseChangeStream[Document]

_BUFFER = 1_000
_SHORTEST_WAIT_S = 0.05
_LONGEST_WAIT_S = 2.0


Item = TypeVar("Item")
Readers = Mapping[str, Callable[[Document], Item]]
"""By collection: what an inserted or replaced document of it is to whoever follows."""


@asynccontextmanager
async def watch(
    database: AsyncDatabase[Document], readers: Readers[Item]
) -> AsyncGenerator[AsyncIterator[Item | Resync]]:
    """What is written to the collections of `readers`, and what `watch` of the ports promises besides. The
    stream is open at the server when the context is entered.

    The collections must only ever be inserted into, or have documents replaced: such a change carries its
    whole document.

    Raises:
        Unavailable: on entering, if the store can't be reached.
    """
    feed = _Feed(database, readers)
    with store_errors():
        await feed.open(None)
    reader = asyncio.create_task(feed.read())
    try:
        yield feed
    finally:
        await put_down(reader)
        feed.end()


class _Feed(Generic[Item]):
    """The items between the stream's reader and who iterates. Full, it makes the reader wait."""

    def __init__(self, database: AsyncDatabase[Document], readers: Readers[Item]) -> None:
        self._database = database
        self._readers = readers
        self._stream: Stream
        self._items: asyncio.Queue[Item | Resync | None] = asyncio.Queue(_BUFFER)

    async def open(self, token: Token | None) -> None:
        """Opens the stream, from now on or where another ended."""
        written = {
            "ns.coll": {"$in": list(self._readers)},
            "operationType": {"$in": ["insert", "replace"]},
        }
        self._stream = await self._database.watch([{"$match": written}], resume_after=token)

    def __aiter__(self) -> AsyncIterator[Item | Resync]:
        return self

    async def __anext__(self) -> Item | Resync:
        item = await self._items.get()
        if item is None:
            self.end()
            raise StopAsyncIteration
        return item

    def end(self) -> None:
        """Drops what is left and ends the iteration, however often it is asked for more."""
        while not self._items.empty():
            self._items.get_nowait()
        self._items.put_nowait(None)

    async def read(self) -> None:
        """Reads until it is cancelled, through whatever happens to the server."""
        try:
            while True:
                try:
                    change = await self._stream.next()
                except Exception as error:  # whatever it is: a feed that ends would end its process's use
                    await self._reopen(error)
                else:
                    if (item := self._read(change)) is not None:
                        await self._items.put(item)
        finally:
            with suppress(PyMongoError):
                await self._stream.close()

    async def _reopen(self, error: Exception) -> None:
        """Opens a new stream where the old one ended, or from now on with a `Resync`.

        It goes on from the old one's end only if the connection was lost: what the server itself says
        against the old stream, it would say again.
        """
        log.warning("the store's change stream broke off: %s", error)
        lost_connection = isinstance(error, PyMongoError) and not isinstance(error, OperationFailure)
        token = self._stream.resume_token if lost_connection else None
        wait = _SHORTEST_WAIT_S
        while True:
            with suppress(PyMongoError):
                await self._stream.close()
            try:
                await self.open(token)
                break
            except OperationFailure as refusal:
                log.warning("the store's change stream can't be resumed: %s", refusal)
                token = None
            except Exception as refusal:
                log.debug("the store is not back yet: %s", refusal)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)
        log.info("the store's change stream is open again, %s", "resumed" if token else "from now on")
        if token is None:
            await self._items.put(Resync())

    def _read(self, change: Mapping[str, Any]) -> Item | None:
        document = change.get("fullDocument")
        if document is None:
            return None
        try:
            return self._readers[change["ns"]["coll"]](document)
        except (ValidationError, KeyError) as error:
            # From a newer version of Goatherd, perhaps; to stop here would stop everybody's feed.
            log.warning("skipped a document of %r that can't be read: %s", change["ns"], error)
            return None
