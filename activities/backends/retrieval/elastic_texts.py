"""`LexicalIndex` in Elasticsearch, for indexes whose vectors are in FAISS or ScaNN. Blocks.

All workers that have this version share it: a chunk's text never changes, so what one of them writes again
changes nothing. Each knows the keys that it has itself, and finds only these: not what another has already,
nor what one has left that ended before it was saved.

Its alias has a name that is made anew with the index: a snapshot that was made with another one is of no use,
as the texts that came before it are not here.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from elasticsearch import BadRequestError, Elasticsearch, NotFoundError

from activities.backends.retrieval.elastic_bulk import action, write_all_blocking
from activities.backends.retrieval.elastic_client import IndexLost, connect_blocking, elastic_errors
from activities.backends.retrieval.elastic_filters import Query
from activities.backends.retrieval.elastic_schema import MOST_RESULTS, words_body, words_name
from activities.backends.retrieval.elastic_words import marking, pieces, without_marks, words_query
from activities.backends.retrieval.files_vectors import synced
from activities.retrieval_ports import Found, Keys, LexicalIndex
from goatherd.contracts.retrieval import IndexSpec
from goatherd.errors import Unavailable

ASKED_FOR = 10_000
"""Up to so many allowed keys are sent with a search. If there are more, what it finds is looked through."""
_PAGE, _MORE = 1_000, 4
_ALIAS, _KEYS = "alias", "keys.npy"
_KEY_BYTES = 70
"""Of one in a set."""
_ORDER = [{"_score": "desc"}, {"key": "asc"}]


class ElasticTexts(LexicalIndex):
    """Made by what `elastic_texts` gives."""

    def __init__(self, client: Elasticsearch, alias: str, keys: Sequence[int]) -> None:
        self._client = client
        self._alias = alias
        self._keys = set(keys)
        self._unseen = True

    @property
    def memory_bytes(self) -> int:
        """Of the keys. The texts are in the server's."""
        return _KEY_BYTES * len(self._keys)

    def upsert(self, keys: Keys, texts: Sequence[str]) -> None:
        self._write(
            [
                action("index", self._alias, str(key), {"key": key, "text": without_marks(text)})
                for key, text in zip(keys.tolist(), texts, strict=True)
            ]
        )
        self._keys.update(keys.tolist())

    def remove(self, keys: Keys) -> None:
        self._keys.difference_update(keys.tolist())
        self._write([action("delete", self._alias, str(key)) for key in keys.tolist()])

    def _write(self, actions: list[list[bytes]]) -> None:
        with self._errors():
            self._unseen = self._unseen or bool(actions)
            write_all_blocking(self._client, actions)

    def search(
        self, text: str, k: int, allowed: Keys | None = None, *, highlight: bool = False
    ) -> list[Found]:
        if k < 1 or (allowed is not None and not len(allowed)):
            return []
        with self._errors():
            if self._unseen:
                self._client.indices.refresh(index=self._alias)
                self._unseen = False
            query: Query = words_query(text)
            if allowed is None or len(allowed) <= ASKED_FOR:
                if allowed is not None:
                    query = {"bool": {"must": [query], "filter": [{"terms": {"key": allowed.tolist()}}]}}
                return self._best(query, k, k, highlight, self._keys)
            wanted = self._keys.intersection(allowed.tolist())
            return self._best(query, k, max(k, _PAGE), highlight, wanted)

    def _best(
        self, query: Query, k: int, page: int, highlight: bool, wanted: AbstractSet[int]
    ) -> list[Found]:
        """The best `k` that are wanted, however many others are before them.

        As long as the server gives all at once, more are asked for from the first one on: a page that goes on
        behind a score leaves out some of those that have the same, where the server's copies of the texts
        differ in it.
        """
        found: dict[int, Found] = {}
        body: dict[str, Any] = {"size": min(page, MOST_RESULTS), "source": False, "track_total_hits": False}
        body |= {"sort": _ORDER, "track_scores": True}
        if highlight:
            body["highlight"] = marking()
        after: list[Any] | None = None
        while True:
            answer = self._client.search(
                index=self._alias,
                query=query,
                search_after=after,
                preference=self._alias,
                allow_partial_search_results=False,
                **body,
            )
            hits = answer["hits"]["hits"]
            for hit in hits:
                key = int(hit["_id"])
                if key in wanted:
                    found.setdefault(key, Found(key, hit["_score"], tuple(pieces(hit))))
                    if len(found) == k:
                        return list(found.values())
            if len(hits) < body["size"] or hits[-1]["sort"] == after:
                return list(found.values())
            if body["size"] < MOST_RESULTS:
                found, body["size"] = {}, min(_MORE * body["size"], MOST_RESULTS)
            else:
                after = hits[-1]["sort"]

    def save(self, folder: Path) -> None:
        """The server keeps the texts; here is only which ones they are."""
        with self._errors():
            self._client.indices.flush(index=self._alias)
        (folder / _ALIAS).write_text(self._alias)
        np.save(folder / _KEYS, np.array(sorted(self._keys), np.int64))
        synced(folder)

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with elastic_errors():
                yield
        except IndexLost as error:
            raise Unavailable(
                "Elasticsearch has lost the words of this index: restart the workers that have it, and they "
                "bring them again",
                retry_after_s=30.0,
            ) from error


def elastic_texts(
    url: str | None, api_key: str | None, index: str, number: int
) -> Callable[[IndexSpec, Path | None, Path], ElasticTexts]:
    """Opens the words of this version (`local_parts.OpenTexts`).

    What it gives raises `ModelBroken`: there is no address of a server; `Unavailable`: the server is away;
    `ValueError`: there is a snapshot, and the texts that came before it are no more.
    """

    def open_texts(spec: IndexSpec, snapshot: Path | None, live: Path) -> ElasticTexts:
        client = connect_blocking(url, api_key)
        try:
            with elastic_errors():
                alias = _opened(client, words_name(index, number), spec, snapshot)
            keys = [] if snapshot is None else np.load(snapshot / _KEYS).tolist()
            return ElasticTexts(client, alias, keys)
        except BaseException:
            client.close()
            raise

    return open_texts


def _opened(client: Elasticsearch, name: str, spec: IndexSpec, snapshot: Path | None) -> str:
    alias = _alias(client, name)
    if snapshot is not None and alias != (snapshot / _ALIAS).read_text():
        raise ValueError("Elasticsearch has lost the words that belong to it")
    return alias or _made(client, name, spec)


def _alias(client: Elasticsearch, name: str) -> str | None:
    try:
        found = client.indices.get_alias(index=name)
    except NotFoundError:
        return None
    alias: str = next(iter(found[name]["aliases"]))
    return alias


def _made(client: Elasticsearch, name: str, spec: IndexSpec) -> str:
    try:
        alias = f"{name}-{secrets.token_hex(8)}"
        client.indices.create(index=name, **words_body(alias, spec))
    except BadRequestError as error:
        if error.error != "resource_already_exists_exception":
            raise
        return _alias(client, name) or alias
    return alias
