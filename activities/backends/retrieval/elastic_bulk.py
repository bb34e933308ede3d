"""Writing much to Elasticsearch at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from elasticsearch import AsyncElasticsearch, Elasticsearch

from activities.backends.retrieval.elastic_client import refusal

_CONFLICT = 409
_MOST_BYTES = 1_000_000
"""Of one request: a longer one is sent in one go, and the event loop waits."""

Action = list[bytes]
"""What is to be done, and with what: lines of JSON."""


def action(kind: str, alias: str, id: str, document: Any = None, **given: Any) -> Action:
    """`kind`: index or create, or delete, without a document. `alias`: what is written by, so that the server
    makes no index with guessed fields if ours is gone."""
    lines = [orjson.dumps({kind: {"_index": alias, "_id": id, **given}})]
    if document is not None:
        lines.append(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))
    return lines


@dataclass(frozen=True, slots=True)
class Seen:
    """What a writer has seen of a document: its next write is refused if somebody else's came between."""

    if_seq_no: int
    if_primary_term: int

    def as_given(self) -> dict[str, int]:
        return {"if_seq_no": self.if_seq_no, "if_primary_term": self.if_primary_term}


async def write_all(client: AsyncElasticsearch, actions: Sequence[Action]) -> list[Seen | None]:
    """Writes, in requests of a size that servers take. None where the server has something newer.

    Raises:
        GoatherdError: the server refuses one of them otherwise; the others may be written.
    """
    written: list[Seen | None] = []
    for lines in _requests(actions):
        answer = await client.bulk(operations=lines, require_alias=True)
        written.extend(map(_outcome, answer["items"]))
    return written


def write_all_blocking(client: Elasticsearch, actions: Sequence[Action]) -> None:
    """The same for threads."""
    for lines in _requests(actions):
        for item in client.bulk(operations=lines, require_alias=True)["items"]:
            _outcome(item)


def _outcome(item: dict[str, Any]) -> Seen | None:
    done: dict[str, Any] = next(iter(item.values()))
    if "error" not in done:
        return Seen(done["_seq_no"], done["_primary_term"])
    if done["status"] == _CONFLICT:
        return None
    raise refusal(done["status"], done)


def _requests(actions: Sequence[Action]) -> Iterator[list[Any]]:
    """The lines of each."""
    request: list[Any] = []
    size = 0
    for lines in actions:
        length = sum(map(len, lines))
        if request and size + length > _MOST_BYTES:
            yield request
            request, size = [], 0
        request.extend(lines)
        size += length
    if request:
        yield request
