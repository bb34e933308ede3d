"""Answers to searches from the parts of an engine in this process. Blocks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from activities.backends.retrieval.fusion import Fused, fuse
from activities.backends.retrieval.local_parts import Parts
from activities.backends.retrieval.queries import ReadQuery, read_query
from activities.retrieval_ports import Keys, Vectors
from goatherd.contracts.retrieval import (
    Hit,
    IndexSpec,
    Rank,
    SearchAnswer,
    SearchQuery,
    of_chunk_key,
)
from goatherd.errors import GoatherdError, Unavailable

_NEAR = 128
"""Searches for so many neighbours, or fewer, share a matrix; those for more have another, so that one of them
does not make all slow."""
_MORE = 4
"""So many times as much is looked for, where what was found was not enough."""

_log = logging.getLogger(__name__)

Scores = dict[int, float]
"""By key, best first."""


def search(
    spec: IndexSpec, parts: Parts, applied: int, queries: Sequence[SearchQuery]
) -> list[SearchAnswer | GoatherdError]:
    """Each query's answer, in its place, from what has all up to `applied`."""
    return _Batch(spec, parts, applied).answer(queries)


@dataclass(slots=True)
class _Search:
    """One query on its way. `most`: how many of each list are looked for. `allowed`: None is all."""

    query: ReadQuery
    most: int
    allowed: Keys | None = None
    dense: Scores = field(default_factory=dict)
    lexical: Scores = field(default_factory=dict)
    outcome: SearchAnswer | GoatherdError | None = None

    @property
    def wants_dense(self) -> bool:
        return self.query.vector is not None and not (self.query.hybrid and self.query.weights[0] == 0)

    @property
    def wants_lexical(self) -> bool:
        return self.query.text is not None and not (self.query.hybrid and self.query.weights[1] == 0)

    def may_find_more(self, there: int) -> bool:
        """Whether a list is as long as it was allowed to be, and there may be more than it has. `there`: no
        more vectors. Of words nobody knows how many dead ones there are, where others write them too."""
        if self.query.hybrid and self.query.candidates_given:
            return False
        bounded = self.most >= (there if self.allowed is None else len(self.allowed))
        return (self.wants_dense and not bounded and len(self.dense) >= self.most) or (
            self.wants_lexical
            and not (bounded and self.allowed is not None)
            and len(self.lexical) >= self.most
        )


class _Batch:
    def __init__(self, spec: IndexSpec, parts: Parts, applied: int) -> None:
        self._spec = spec
        self._parts = parts
        self._applied = applied
        self._chunks = parts.table.counts[1]
        # What a crowd of dead ones stands before is found, too.
        self._there = max(self._chunks, parts.vectors.size if parts.vectors is not None else 0)
        self._allowed: dict[str, Keys] = {}

    def answer(self, queries: Sequence[SearchQuery]) -> list[SearchAnswer | GoatherdError]:
        begun = [self._begin(query) for query in queries]
        pending = [one for one in begun if isinstance(one, _Search) and one.outcome is None]
        while pending:
            for together in _matrices([one for one in pending if one.wants_dense]):
                _guarded(together, self._find_dense)
            for one in pending:
                if one.wants_lexical and one.outcome is None:
                    _guarded([one], self._find_lexical)
                if one.outcome is None:
                    _guarded([one], self._conclude)
            pending = [one for one in pending if one.outcome is None]
            for one in pending:
                one.most *= _MORE
        return [_outcome(one) for one in begun]

    def _begin(self, query: SearchQuery) -> _Search | GoatherdError:
        try:
            read = read_query(self._spec, query, self._applied)
        except GoatherdError as error:
            return error
        alone = 2 * read.k if read.per_document else read.k
        one = _Search(read, read.candidates if read.hybrid else alone)
        _guarded([one], self._bound)
        return one

    def _bound(self, searches: Sequence[_Search]) -> None:
        for one in searches:
            condition, name = one.query.condition, one.query.filter_name
            if condition is None:
                continue
            if name not in self._allowed:
                self._allowed[name] = self._parts.table.select(condition)
            one.allowed = self._allowed[name]

    def _find_dense(self, searches: Sequence[_Search]) -> None:
        """All of one filter."""
        vectors, allowed = self._parts.vectors, searches[0].allowed
        assert vectors is not None  # or the query was refused
        most = min(max(one.most for one in searches), vectors.size)
        if most == 0 or (allowed is not None and not len(allowed)):
            found: list[tuple[Keys, Vectors]] = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(
                searches
            )
        else:
            matrix = np.stack([one.query.vector for one in searches if one.query.vector is not None])
            found = vectors.search(matrix, most, allowed)
        for one, (keys, scores) in zip(searches, found, strict=True):
            # Of equal ones the older is better, so that the order is the same each time.
            order = np.lexsort((keys, -scores))[: one.most]
            one.dense = dict(zip(keys[order].tolist(), scores[order].tolist(), strict=True))

    def _find_lexical(self, searches: Sequence[_Search]) -> None:
        texts = self._parts.texts
        assert texts is not None
        for one in searches:
            if one.allowed is not None and not len(one.allowed):
                one.lexical = {}
                continue
            found = texts.search(one.query.text or "", one.most, one.allowed)
            one.lexical = {hit.key: hit.score for hit in found}

    def _conclude(self, searches: Sequence[_Search]) -> None:
        """Answers, unless too little was found and there may be more."""
        for one in searches:
            ranked = _ranked(one)
            chosen = self._choose(ranked, one.query)
            if len(chosen) < one.query.k and one.may_find_more(self._there):
                continue
            marked = self._highlights(one, [found.key for found, _ in chosen])
            vectors = self._parts.vectors
            one.outcome = SearchAnswer(
                hits=[_hit(found, doc, one, marked.get(found.key, [])) for found, doc in chosen],
                seq=self._applied,
                exact=not one.wants_dense or vectors is None or vectors.exact,
            )

    def _choose(self, ranked: Sequence[Fused], query: ReadQuery) -> list[tuple[Fused, str]]:
        """The best `k` that are somebody's, with whose they are."""
        chosen: list[tuple[Fused, str]] = []
        seen: set[str] = set()
        for found, doc in self._documents(ranked, query.k):
            if doc is None or (query.per_document and doc in seen):
                continue
            seen.add(doc)
            chosen.append((found, doc))
            if len(chosen) == query.k:
                break
        return chosen

    def _documents(self, ranked: Sequence[Fused], at_once: int) -> Iterator[tuple[Fused, str | None]]:
        """Asked for as they are needed: of the lists that are joined most are not."""
        for start in range(0, len(ranked), at_once):
            some = ranked[start : start + at_once]
            yield from zip(some, self._parts.table.documents([one.key for one in some]), strict=True)

    def _highlights(self, one: _Search, keys: Sequence[int]) -> dict[int, list[str]]:
        """Only of what is given back: to mark words is more work than to find them."""
        texts = self._parts.texts
        keys = [key for key in keys if key in one.lexical]
        if not one.query.highlight or not keys or texts is None:
            return {}
        allowed = np.array(sorted(keys), np.int64)
        found = texts.search(one.query.text or "", len(keys), allowed, highlight=True)
        return {hit.key: list(hit.highlights) for hit in found}


def _matrices(searches: Sequence[_Search]) -> list[list[_Search]]:
    """Those that are looked for together."""
    found: dict[tuple[str, bool], list[_Search]] = {}
    for one in searches:
        found.setdefault((one.query.filter_name, one.most > _NEAR), []).append(one)
    return list(found.values())


def _guarded(searches: Sequence[_Search], work: Callable[[Sequence[_Search]], None]) -> None:
    """What goes wrong is the outcome of these alone."""
    try:
        work(searches)
    except GoatherdError as error:
        for one in searches:
            one.outcome = error
    except Exception as error:
        _log.exception("an index can't be searched")
        for one in searches:
            one.outcome = Unavailable(f"the index can't be searched: {type(error).__name__}: {error}")


def _outcome(one: _Search | GoatherdError) -> SearchAnswer | GoatherdError:
    outcome = one.outcome if isinstance(one, _Search) else one
    assert outcome is not None
    return outcome


def _ranked(one: _Search) -> list[Fused]:
    query = one.query
    if query.hybrid:
        return fuse([list(one.dense), list(one.lexical)], query.weights, query.rank_constant)
    if one.wants_dense:
        return [Fused(key, score, (rank, None)) for rank, (key, score) in enumerate(one.dense.items(), 1)]
    return [Fused(key, score, (None, rank)) for rank, (key, score) in enumerate(one.lexical.items(), 1)]


def _hit(found: Fused, doc: str, one: _Search, highlights: list[str]) -> Hit:
    seq, chunk = of_chunk_key(found.key)
    dense, lexical = found.ranks if one.query.explain else (None, None)
    return Hit(
        doc=doc,
        chunk=chunk,
        seq=seq,
        score=found.score,
        dense=None if dense is None else Rank(rank=dense, score=one.dense[found.key]),
        lexical=None if lexical is None else Rank(rank=lexical, score=one.lexical[found.key]),
        highlights=highlights,
    )
