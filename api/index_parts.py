"""Puts together what serves indexes in an API process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from temporalio.client import Client

from activities.ports import WorkerRegistry
from api.index_documents import DocumentService
from api.index_lookup import IndexLookup
from api.index_nudges import Nudges, by_signal
from api.index_search import IndexSearch, Searching
from api.index_service import IndexService
from api.index_workers import IndexWorkers
from api.inference_port import Inference
from goatherd.payloads import PayloadStore
from goatherd.settings import Settings

if TYPE_CHECKING:
    from activities.retrieval_ports import IndexStore


@dataclass(frozen=True, slots=True)
class Indexes:
    """All that a request about indexes may need."""

    service: IndexService
    documents: DocumentService
    search: IndexSearch
    nudges: Nudges


@dataclass(frozen=True, slots=True)
class SearchingParts:
    """What searches need from outside."""

    client: Client
    workers: WorkerRegistry
    payloads: PayloadStore | None
    settings: Settings


MakeSearching = Callable[[SearchingParts], AbstractAsyncContextManager[Searching]]


@asynccontextmanager
async def by_index_workers(parts: SearchingParts) -> AsyncIterator[Searching]:
    """`Searching` by the workers of the pool `retrieval`."""
    searching = IndexWorkers(parts.client, parts.workers, parts.payloads, parts.settings)
    try:
        yield searching
    finally:
        await searching.close()


@asynccontextmanager
async def serve_indexes(
    parts: SearchingParts,
    store: IndexStore,
    inference: Inference,
    make_searching: MakeSearching = by_index_workers,
) -> AsyncIterator[Indexes]:
    """Serves while the context lasts; then ingestions that are still to be told of work are."""
    lookup = IndexLookup(store)
    async with (
        make_searching(parts) as searching,
        Nudges(by_signal(parts.client, parts.settings)).running() as nudges,
    ):
        yield Indexes(
            service=IndexService(store, lookup, nudges, inference, parts.settings),
            documents=DocumentService(store, lookup, nudges),
            search=IndexSearch(store, lookup, inference, searching),
            nudges=nudges,
        )
