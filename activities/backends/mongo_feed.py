"""The feed of everything written: one change stream on the database, kept alive.

One stream for all collections keeps the order between a reply's deltas and the event that completes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from pydantic import ValidationError
from pymongo.asynchronous.change_stream import AsyncDatabaseChangeStream
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure, PyMongoError

from activities.backends.mongo_client import store_errors
from activities.backends.projection import Document
from activities.ports import FeedItem, Resync
from goatherd.contracts.chat import Delta, Ephemeral, Event
from goatherd.waiting import put_down

log = logging.getLogger(__name__)

Token = Mapping[str, Any]
Stream = AsyncDatabaseChangeStream[Document]

_BUFFER = 1_000
_SHORTEST_WAIT_S = 0.05
_LONGEST_WAIT_S = 2.0


def _event(document: Document) -> Event:
    return Event.model_validate({**document, "id": document["_id"]})


_READERS: dict[str, Callable[[Document], Event | Delta | Ephemeral]] = {
    "events": _event,
    "deltas": Delta.model_validate,
    "ephemera": Ephemeral.model_validate,
}
# All three are only ever inserted or replaced, so that each change carries its whole document.
_PIPELINE = [
    {"$match": {"ns.coll": {"$in": list(_READERS)}, "operationType": {"$in": ["insert", "replace"]}}}
]


@asynccontextmanager
async def watch(database: AsyncDatabase[Document]) -> AsyncGenerator[AsyncIterator[FeedItem]]:
    """`ChatStore.watch`. The stream is open at the server when the context is entered.

    Raises:
        Unavailable: on entering, if the store can't be reached.
    """
    with store_errors():
        stream = await _open(database, None)
    feed = _Feed(database, stream)
    reader = asyncio.create_task(feed.read())
    try:
        yield feed
    finally:
        await put_down(reader)
        feed.end()


async def _open(database: AsyncDatabase[Document], token: Token | None) -> Stream:
    return await database.watch(_PIPELINE, resume_after=token)


class _Feed:
    """The items between the stream's reader and who iterates. Full, it makes the reader wait."""

    def __init__(self, database: AsyncDatabase[Document], stream: Stream) -> None:
        self._database = database
        self._stream = stream
        self._items: asyncio.Queue[FeedItem | None] = asyncio.Queue(_BUFFER)

    def __aiter__(self) -> AsyncIterator[FeedItem]:
        return self

    async def __anext__(self) -> FeedItem:
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
                    if (item := _read(change)) is not None:
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
                self._stream = await _open(self._database, token)
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


def _read(change: Mapping[str, Any]) -> FeedItem | None:
    document = change.get("fullDocument")
    if document is None:
        return None
    try:
        return _READERS[change["ns"]["coll"]](document)
    except (ValidationError, KeyError) as error:
        # From a newer version of Goatherd, perhaps; to stop here would stop everybody's feed.
        log.warning("skipped a document of %r that can't be read: %s", change["ns"], error)
        return None
