"""Elasticsearch's clients: how they are built, and how their errors become ours.

They speak as clients of version 8 do. Servers of version 9 understand that as well; those of version 8 refuse
what a client of version 9 says by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from elastic_transport import (
    AsyncTransport,
    Transport,
    TransportApiResponse,
    TransportError,
)
from elasticsearch import ApiError, AsyncElasticsearch, Elasticsearch, UnsupportedProductError

from goatherd.errors import GoatherdError, Invalid, ModelBroken, Unavailable

_SETTINGS: Mapping[str, Any] = {
    "request_timeout": 60.0,
    # The caller tries again, and knows when; here only a connection that was closed meanwhile is opened anew.
    "max_retries": 1,
    "retry_on_status": (),
}
_REFUSED = {401: "unauthorized", 403: "forbidden"}


class IndexLost(Unavailable):
    """What was in Elasticsearch is not there any more; it is made anew, from the first entry on."""

    def __init__(self) -> None:
        super().__init__("Elasticsearch has lost this index: it is filled again", retry_after_s=2.0)


def connect(url: str | None, api_key: str | None = None) -> AsyncElasticsearch:
    """A client for one event loop. Nothing is sent yet; close it by `await client.close()`.

    Raises:
        ModelBroken: there is no address, or it is none.
    """
    with _understood():
        return AsyncElasticsearch(_given(url), api_key=api_key, transport_class=_Transport8Async, **_SETTINGS)


def connect_blocking(url: str | None, api_key: str | None = None) -> Elasticsearch:
    """The same for threads."""
    with _understood():
        return Elasticsearch(_given(url), api_key=api_key, transport_class=_Transport8, **_SETTINGS)


def _given(url: str | None) -> str:
    if not url:
        raise ModelBroken(
            "This index needs Elasticsearch, and there is none: set GOATHERD_ELASTICSEARCH to its address, "
            "such as http://elasticsearch:9200, for the workers of the pool `retrieval`."
        )
    return url


@contextmanager
def _understood() -> Iterator[None]:
    # Each failure with the address and a traceback: whoever called is told, and tells it.
    for name in ("transport", "node_pool"):
        logging.getLogger(f"elastic_transport.{name}").setLevel(logging.ERROR)
    try:
        yield
    except (ValueError, TypeError):
        # Not what it says: the address may have a password in it.
        raise ModelBroken(
            "GOATHERD_ELASTICSEARCH is no address: write http(s)://HOST:PORT, with the port."
        ) from None


class _Transport8(Transport):
    def perform_request(  # type: ignore[override]
        self, method: str, target: str, *, headers: Mapping[str, str] | None = None, **given: Any
    ) -> TransportApiResponse:
        return super().perform_request(method, target, headers=_as_version_8(headers), **given)


class _Transport8Async(AsyncTransport):
    async def perform_request(  # type: ignore[override]
        self, method: str, target: str, *, headers: Mapping[str, str] | None = None, **given: Any
    ) -> TransportApiResponse:
        return await super().perform_request(method, target, headers=_as_version_8(headers), **given)


def _as_version_8(headers: Mapping[str, str] | None) -> dict[str, str]:
    return {
        name: value.replace("compatible-with=9", "compatible-with=8")
        for name, value in (headers or {}).items()
    }


@contextmanager
def elastic_errors() -> Iterator[None]:
    """Raises what they mean to us instead of the client's errors. None of them names a host."""
    try:
        yield
    except UnsupportedProductError as error:
        raise ModelBroken(
            "What answers at GOATHERD_ELASTICSEARCH is not Elasticsearch: mend the address."
        ) from error
    except ApiError as error:
        raise refusal(error.meta.status, error.body) from error
    except TransportError as error:
        raise Unavailable(
            "Elasticsearch can't be reached: see that it runs, and that GOATHERD_ELASTICSEARCH is where."
        ) from error


def refusal(status: int, body: object) -> GoatherdError:
    """What a status and its explanation mean: of an answer, or of one part of it."""
    kind, reason = _explained(body)
    text = (f"{kind}: {reason}" if reason else kind)[:500]
    if kind == "cluster_block_exception":
        return Unavailable(
            "Elasticsearch takes nothing in, as it does when its disk is nearly full: make room on its "
            f"volume ({text})",
            code="storage-full",
            retry_after_s=30.0,
        )
    if status in _REFUSED:
        return Unavailable(
            f"Elasticsearch refuses us ({_REFUSED[status]}): set GOATHERD_ELASTICSEARCH_API_KEY to a key "
            "that may manage, read and write the indices `goatherd-*`.",
            retry_after_s=30.0,
        )
    if status == 429:
        return Unavailable(
            f"Elasticsearch has too much to do: try again soon, or give it more room ({text})",
            retry_after_s=2.0,
        )
    if status >= 500:
        return Unavailable(f"Elasticsearch failed: see its log ({text})")
    if kind == "index_not_found_exception":
        return IndexLost()
    return Invalid(f"Elasticsearch refuses this ({text})")


def _explained(body: object) -> tuple[str, str]:
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(error, Mapping):
        return "no explanation", ""
    causes = error.get("root_cause") or [error]
    cause = causes[0] if isinstance(causes[0], Mapping) else error
    return str(cause.get("type") or "error"), str(cause.get("reason") or "")
