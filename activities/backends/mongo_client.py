"""The client of the store: how it is built, and how its errors become ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl

from bson.errors import BSONError
from pymongo import AsyncMongoClient, IndexModel, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    InvalidName,
    InvalidOperation,
    OperationFailure,
    PyMongoError,
)

from activities.backends.projection import Document
from goatherd.errors import GoatherdError, Invalid, Unavailable

DUPLICATE_KEY = 11000

_INTERNAL_ERROR = 1
_OUT_OF_DISK_SPACE = 14031
_DOCUMENT_TOO_LARGE = 10334
_FULL_DISK_TEXTS = ("no space left", "enospc", "disk full", "out of disk", "disk quota exceeded")
_DEFAULTS: Mapping[str, Any] = {
    "serverSelectionTimeoutMS": 2_000,
    "connectTimeoutMS": 2_000,
    "socketTimeoutMS": 10_000,
    "waitQueueTimeoutMS": 5_000,
    "w": "majority",
    "journal": True,
    # Every write here may be repeated by its caller, which is what retries. The driver's own retries
    # would have the server remember each write's outcome, which costs the embedded one most of its speed.
    "retryWrites": False,
}


def connect(uri: str, database: str, *, app: str = "goatherd") -> AsyncDatabase[Document]:
    """A database of a new client. Nothing is sent yet; close it by `await database.client.close()`.

    Options in the URI win over our defaults.

    Raises:
        Invalid: the URI or the database's name makes no sense.
    """
    given = {name.lower() for name, _ in parse_qsl(uri.partition("?")[2], keep_blank_values=True)}
    options = {name: value for name, value in _DEFAULTS.items() if name.lower() not in given}
    try:
        client: AsyncMongoClient[Document] = AsyncMongoClient(
            uri, appname=app, tz_aware=True, document_class=dict, **options
        )
        return client[database]
    except (ConfigurationError, InvalidName, ValueError) as error:
        raise Invalid(f"the store's address or name can't be used: {error}") from error


def describe_store_error(error: Exception) -> GoatherdError:
    """What went wrong, in our terms. The only place that knows the driver's errors."""
    if isinstance(error, (BSONError, UnicodeError, OverflowError)):
        return Invalid(f"this can't be kept in the store: {error}")
    codes, text = _findings(error)
    if _OUT_OF_DISK_SPACE in codes or any(sign in text.lower() for sign in _FULL_DISK_TEXTS):
        return Unavailable(
            "the store's disk is full: make room on the volume that holds its data, then try again",
            code="storage-full",
            retry_after_s=30.0,
        )
    if _INTERNAL_ERROR in codes:
        # The embedded server says no more when its storage has failed, and answers nothing from then on.
        return Unavailable(
            "the store's storage failed, as it does when its disk is full: see the store's log, make room, "
            f"then restart it ({text})",
            code="storage-failed",
            retry_after_s=30.0,
        )
    if codes == {_DOCUMENT_TOO_LARGE}:
        return Invalid("this is too large for the store, which keeps documents of up to 16 MB")
    if isinstance(error, ConnectionFailure):
        return Unavailable(f"the store can't be reached: {text}")
    return Unavailable(f"the store refused: {text}")


def _findings(error: Exception) -> tuple[set[int], str]:
    """The server's error codes, and its texts cut to a readable length."""
    codes: set[int] = set()
    texts = [str(error)]
    if isinstance(error, BulkWriteError):
        found = [*error.details.get("writeErrors", []), *error.details.get("writeConcernErrors", [])]
        codes = {one.get("code", 0) for one in found}
        texts = [str(one.get("errmsg", "")) for one in found]
    elif isinstance(error, OperationFailure) and error.code is not None:
        codes = {error.code}
    # What follows in the driver's texts are its settings and its view of the servers, or the whole answer.
    texts = [text.partition(" (configured timeouts")[0].partition(", full error")[0] for text in texts]
    return codes, "; ".join(dict.fromkeys(texts))[:500]


@contextmanager
def store_errors() -> Iterator[None]:
    """Raises what `describe_store_error` makes of the driver's errors instead of them."""
    try:
        yield
    except (PyMongoError, BSONError, UnicodeError, OverflowError) as error:
        raise describe_store_error(error) from error


_TOGETHER = 64


async def insert_new(collection: AsyncCollection[Document], documents: list[Document]) -> list[int]:
    """Inserts in one command, in order, what is not there yet.

    Returns the indices of those that were refused because one of their unique keys is taken. Any other
    failure is raised, as the driver's own error.
    """
    if not documents:
        return []
    try:
        await collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        refused: list[Document] = error.details["writeErrors"]
        others = [one for one in refused if one["code"] != DUPLICATE_KEY]
        if others or error.details.get("writeConcernErrors"):
            raise
        return [one["index"] for one in refused]
    return []


async def update_together(collection: AsyncCollection[Document], updates: list[UpdateOne]) -> int:
    """Makes updates, several by one transaction: a commit for each costs the development store half of its
    time. Not too many, since documents may be large, and what is not committed stays in the store's cache.

    Nobody may depend on their coming together: where there are no transactions, or this one meets others,
    they come one by one. Gives how many found their document.
    """
    found = 0
    for start in range(0, len(updates), _TOGETHER):
        found += await _update_some(collection, updates[start : start + _TOGETHER])
    return found


async def _update_some(collection: AsyncCollection[Document], updates: list[UpdateOne]) -> int:
    if len(updates) > 1:
        try:
            async with (
                collection.database.client.start_session() as session,
                await session.start_transaction(),
            ):
                outcome = await collection.bulk_write(updates, ordered=False, session=session)
            return outcome.matched_count
        except (OperationFailure, BulkWriteError, InvalidOperation, ConfigurationError):
            pass  # What it did is undone; what really is wrong is met again.
    return (await collection.bulk_write(updates, ordered=False)).matched_count


async def make_indexes(indexes: Mapping[AsyncCollection[Document], list[IndexModel]]) -> None:
    """Makes what is missing. Several processes may do so at the same time."""
    for collection, models in indexes.items():
        with store_errors():
            await collection.create_indexes(models)
