"""Searches of one version in Elasticsearch: those of a batch go together, in as few requests as they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from elasticsearch import AsyncElasticsearch

from activities.backends.retrieval.elastic_client import IndexLost, elastic_errors, refusal
from activities.backends.retrieval.elastic_filters import Query, filter_query
from activities.backends.retrieval.elastic_schema import MOST_RESULTS
from activities.backends.retrieval.elastic_vectors import HAS_VECTOR, nearest, our_score, scored
from activities.backends.retrieval.elastic_words import marking, pieces, words_query
from activities.backends.retrieval.fusion import Fused, fuse
from activities.backends.retrieval.queries import ReadQuery, read_query
from goatherd.contracts.retrieval import IndexSpec, of_chunk_key
from goatherd.contracts.search import Hit, Rank, SearchAnswer, SearchQuery
from goatherd.errors import GoatherdError

COMPARED = 1_000
"""Up to so many vectors that meet a filter are compared with one by one, which misses none."""
_MORE = 4
_ORDER = [{"_score": "desc"}, {"key": "asc"}]


@dataclass(frozen=True, slots=True)
class _Found:
    doc: str
    score: float


@dataclass(slots=True)
class _Search:
    """One query on its way. `most`: how many of each list are looked for. `there`: how many have a vector and
    meet the filter, as far as it was counted."""

    query: ReadQuery
    condition: Query | None
    most: int
    there: int = 0
    exact: bool = False
    dense: dict[int, _Found] = field(default_factory=dict)
    lexical: dict[int, _Found] = field(default_factory=dict)
    marked: dict[int, list[str]] = field(default_factory=dict)
    chosen: list[Fused] | None = None
    error: GoatherdError | None = None

    @property
    def wants_dense(self) -> bool:
        return self.query.vector is not None and not (self.query.hybrid and self.query.weights[0] == 0)

    @property
    def wants_lexical(self) -> bool:
        return self.query.text is not None and not (self.query.hybrid and self.query.weights[1] == 0)

    @property
    def is_open(self) -> bool:
        return self.error is None and self.chosen is None

    def doc(self, key: int) -> str:
        return (self.dense.get(key) or self.lexical[key]).doc


class ElasticSearches:
    """The searches of one version. Belongs to one event loop, like its client."""

    def __init__(self, client: AsyncElasticsearch, name: str, spec: IndexSpec) -> None:
        self._client = client
        self._name = name
        self._spec = spec

    async def answer(
        self, queries: Sequence[SearchQuery], applied: int
    ) -> list[SearchAnswer | GoatherdError]:
        """Each query's answer, in its place.

        Raises:
            IndexLost: there is no such index any more.
            Unavailable: the server is away.
        """
        begun = [self._begin(query, applied) for query in queries]
        searches = [one for one in begun if isinstance(one, _Search)]
        await self._count([one for one in searches if one.wants_dense])
        while pending := [one for one in searches if one.is_open]:
            await self._find(pending)
            for one in pending:
                if one.error is None:
                    self._conclude(one)
        await self._mark([one for one in searches if one.query.highlight and one.chosen])
        return [self._outcome(one, applied) if isinstance(one, _Search) else one for one in begun]

    def _begin(self, query: SearchQuery, applied: int) -> _Search | GoatherdError:
        try:
            read = read_query(self._spec, query, applied)
        except GoatherdError as error:
            return error
        condition = None if read.condition is None else filter_query(read.condition)
        if read.hybrid:
            return _Search(read, condition, read.candidates)
        return _Search(read, condition, 2 * read.k if read.per_document else read.k)

    # -- what is asked

    async def _count(self, searches: Sequence[_Search]) -> None:
        """How many each may find by meaning: by that it is chosen how to look for them."""
        named = {one.query.filter_name: one for one in searches}
        bodies: list[Query] = [
            {
                "size": 0,
                "track_total_hits": COMPARED + 1,
                "query": {
                    "bool": {"filter": [HAS_VECTOR, *([one.condition] if one.condition is not None else [])]}
                },
            }
            for one in named.values()
        ]
        counts = dict(zip(named, await self._ask(bodies), strict=True))
        for one in searches:
            counted = counts[one.query.filter_name]
            if isinstance(counted, GoatherdError):
                one.error = counted
            else:
                one.there = counted["hits"]["total"]["value"]
                one.exact = one.there <= COMPARED

    async def _find(self, searches: Sequence[_Search]) -> None:
        asked: list[tuple[_Search, bool]] = []
        bodies: list[Query] = []
        for one in searches:
            if one.wants_dense:
                asked.append((one, True))
                bodies.append(self._dense(one))
            if one.wants_lexical:
                asked.append((one, False))
                bodies.append(self._lexical(one))
        for (one, dense), answer in zip(asked, await self._ask(bodies), strict=True):
            if isinstance(answer, GoatherdError):
                one.error = answer
                continue
            found = [
                (int(hit["_id"]), _Found(hit["fields"]["doc"][0], self._score(hit["_score"], dense)))
                for hit in answer["hits"]["hits"]
            ]
            # Of equal ones the older is better, so that the order is the same each time.
            found.sort(key=lambda pair: (-pair[1].score, pair[0]))
            if dense:
                one.dense = dict(found)
            else:
                one.lexical = dict(found)

    def _score(self, score: float, dense: bool) -> float:
        return our_score(self._spec.metric, score) if dense else score

    def _dense(self, one: _Search) -> Query:
        query, vector = one.query, one.query.vector
        assert vector is not None
        if one.exact:
            found = scored(vector, self._spec.metric, one.condition)
            return _body(one.most, by_document=query.per_document and not query.hybrid) | {"query": found}
        looked_at = min(max(self._spec.elasticsearch.num_candidates, one.most), MOST_RESULTS)
        return _body(one.most, in_order=False) | {"knn": nearest(vector, one.most, looked_at, one.condition)}

    def _lexical(self, one: _Search) -> Query:
        query = one.query
        return _body(one.most, by_document=query.per_document and not query.hybrid) | {
            "query": _with_words(one)
        }

    async def _mark(self, searches: Sequence[_Search]) -> None:
        """Only what is given back: to mark words is more work than to find them."""
        bodies: list[Query] = []
        for one in searches:
            keys = [found.key for found in one.chosen or []]
            query = {
                "bool": {"must": [words_query(one.query.text or "")], "filter": [{"terms": {"key": keys}}]}
            }
            bodies.append({"size": len(keys), "_source": False, "query": query, "highlight": marking()})
        for one, answer in zip(searches, await self._ask(bodies), strict=True):
            if isinstance(answer, GoatherdError):
                one.error = answer
            else:
                one.marked = {int(hit["_id"]): pieces(hit) for hit in answer["hits"]["hits"]}

    async def _ask(self, bodies: Sequence[Query]) -> list[dict[str, Any] | GoatherdError]:
        if not bodies:
            return []
        # All of what is there, or an error: of several shards none may be missing.
        lines: list[dict[str, Any]] = []
        for body in bodies:
            lines += [{"allow_partial_search_results": False}, body]
        with elastic_errors():
            answer = await self._client.msearch(index=self._name, searches=lines)
        answers: list[dict[str, Any] | GoatherdError] = []
        for one in answer["responses"]:
            error = refusal(one["status"], one) if "error" in one else None
            if isinstance(error, IndexLost):
                raise error
            answers.append(one if error is None else error)
        return answers

    # -- what is made of it

    def _conclude(self, one: _Search) -> None:
        """Chooses what is given back, unless too little was found and there may be more."""
        query = one.query
        if one.wants_dense and not one.exact and len(one.dense) < min(one.most, one.there):
            # Its own search lost some of those that there are.
            one.exact = True
            return
        chosen = _chosen(_ranked(one), one)
        if len(chosen) == query.k or not self._may_find_more(one):
            one.chosen = chosen
        elif one.most == MOST_RESULTS:
            one.exact = True
        else:
            one.most = min(one.most * _MORE, MOST_RESULTS)

    def _may_find_more(self, one: _Search) -> bool:
        """There are too few documents; others may stand behind so many chunks of these."""
        query = one.query
        if not query.per_document:
            return False
        if query.hybrid:
            full = max(len(one.dense), len(one.lexical)) == one.most
            return full and not query.candidates_given and one.most < MOST_RESULTS
        return one.wants_dense and not one.exact

    def _outcome(self, one: _Search, applied: int) -> SearchAnswer | GoatherdError:
        if one.error is not None:
            return one.error
        return SearchAnswer(
            hits=[_hit(found, one) for found in one.chosen or []],
            seq=applied,
            exact=one.exact or not one.wants_dense,
        )


def _body(size: int, *, by_document: bool = False, in_order: bool = True) -> Query:
    body: Query = {"size": size, "_source": False, "docvalue_fields": ["doc"], "track_total_hits": False}
    if in_order:
        body |= {"sort": _ORDER, "track_scores": True}
    return body | {"collapse": {"field": "doc"}} if by_document else body


def _with_words(one: _Search) -> Query:
    words = words_query(one.query.text or "")
    return words if one.condition is None else {"bool": {"must": [words], "filter": [one.condition]}}


def _ranked(one: _Search) -> list[Fused]:
    query = one.query
    if query.hybrid:
        return fuse([list(one.dense), list(one.lexical)], query.weights, query.rank_constant)
    if one.wants_dense:
        return [Fused(key, hit.score, (rank, None)) for rank, (key, hit) in enumerate(one.dense.items(), 1)]
    return [Fused(key, hit.score, (None, rank)) for rank, (key, hit) in enumerate(one.lexical.items(), 1)]


def _chosen(ranked: Sequence[Fused], one: _Search) -> list[Fused]:
    if not one.query.per_document:
        return list(ranked[: one.query.k])
    best: dict[str, Fused] = {}
    for found in ranked:
        best.setdefault(one.doc(found.key), found)
    return list(best.values())[: one.query.k]


def _hit(found: Fused, one: _Search) -> Hit:
    seq, chunk = of_chunk_key(found.key)
    dense, lexical = found.ranks if one.query.explain else (None, None)
    return Hit(
        doc=one.doc(found.key),
        chunk=chunk,
        seq=seq,
        score=found.score,
        dense=None if dense is None else Rank(rank=dense, score=one.dense[found.key].score),
        lexical=None if lexical is None else Rank(rank=lexical, score=one.lexical[found.key].score),
        highlights=one.marked.get(found.key, []),
    )
